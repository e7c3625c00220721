"""How far a mean over seeds can be trusted, and whether two strategies differ by more than their seeds do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lifelong.errors import ConfigError, DataError

ROUNDING = 1e-9  # of means in another order of classes; one sample more of a million moves them by more


class Spread(NamedTuple):
    """Mean, sample standard deviation (n - 1), and the 95 % confidence interval of the mean (Student's t)."""

    mean: float
    sd: float
    low: float
    high: float
    seeds: int


def spread(values: Sequence[float]) -> Spread:
    """Return what `values`, one for each seed, say; with one value the interval is not known (NaN).

    Raises:
        DataError: There are none.
    """
    if not values:
        raise DataError("no value to summarise; every run failed")
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Spread(mean, math.nan, math.nan, math.nan, 1)
    sd = statistics.stdev(values)
    half = float(_student().ppf(0.975, count - 1)) * sd / math.sqrt(count)
    return Spread(mean, sd, mean - half, mean + half, count)


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return the two-sided p of a paired t-test over the seeds that both have; NaN with fewer than two of them.

    Equal values at every seed give 1. Values that differ by the same at every seed say nothing either (NaN): neither
    strategy drew anything, so that five seeds are one run.
    """
    seeds = sorted(set(one) & set(other))
    differences = [one[s] - other[s] for s in seeds]
    if len(differences) < 2:
        return math.nan
    sd = statistics.stdev(differences)
    mean = statistics.fmean(differences)
    if sd < ROUNDING:
        return 1.0 if abs(mean) < ROUNDING else math.nan
    return float(2 * _student().sf(abs(mean) / (sd / math.sqrt(len(differences))), len(differences) - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several (Holm 1979, "A simple sequentially rejective ... procedure").

    NaN stays, and is not counted.

    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted((i for i, p in enumerate(ps) if not math.isnan(p)), key=lambda i: ps[i])
    out, highest = list(ps), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, ps[i] * (len(order) - rank)))
        out[i] = highest
    return out


def said(value: Spread | Sequence[float] | None) -> str:
    """Return `0.812 ± 0.010`, or nothing."""
    if value is None:
        return ""
    mean, sd = value[0], value[1]
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} ± {sd:.3f}"


def chance(p: float) -> str:
    """Return a p-value for people; nothing for NaN.

    >>> [chance(p) for p in (0.0312, 0.0000004, float("nan"))]
    ['0.031', '<0.001', '']
    """
    return "" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _student() -> Any:  # noqa: ANN401 - SciPy has no types
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ConfigError("confidence intervals need SciPy: pip install 'lifelong[bench]'") from error
    return t
