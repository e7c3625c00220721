"""Metrics of continual learning, each under the name of its definition: libraries disagree on what "forgetting" is.

All are pure functions of the accuracy matrix R `[T, T]`: `R[i][j]` is the accuracy (0..1) on the held-out samples of
experience j, after learning experiences 0..i. NaN means that a cell was not measured; a metric that needs such a cell
raises, it never guesses. Formulas count from 0 and write n for T - 1, so that `R[n]` is the last row.

References:
    GEM: Lopez-Paz & Ranzato 2017, "Gradient Episodic Memory for Continual Learning".
    RWalk: Chaudhry et al. 2018, "Riemannian Walk for Incremental Learning".
    iCaRL: Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning".
    Forget: Diaz-Rodriguez et al. 2018, "Don't forget, there is more than forgetting: new metrics for CL".
    ER-ACE: Caccia et al. 2022, "New Insights on Reducing Abrupt Representation Change in Online Continual Learning".
    Gandhi: Gandhi et al. 2024, "Natural Mitigation of Catastrophic Interference" (the environment; our definition).
    Gama: Gama, Sebastiao & Rodrigues 2013, "On evaluating stream learning algorithms".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from lifelong.bench.cells import Floats, require, row, square, table
from lifelong.errors import DataError

Matrix: TypeAlias = Any  # [T, T]: nested lists (None is NaN), an array or a CPU tensor


def acc_final(R: Matrix) -> float:
    """Return mean_j R[n][j]: the accuracy on all experiences after the last. (GEM, "ACC")."""
    R = square(R)
    return _mean("acc_final", R, [(len(R) - 1, j) for j in range(len(R))])


def acc_avg_incremental(R: Matrix) -> float:
    """Return mean_i mean_{j<=i} R[i][j]: after each experience, the accuracy on those seen so far. (iCaRL).

    iCaRL pools the samples of all classes seen; the two agree if all experiences hold out equally many.
    """
    R = square(R)
    return float(np.mean([_mean("acc_avg_incremental", R, [(i, j) for j in range(i + 1)]) for i in range(len(R))]))


def bwt_gem(R: Matrix) -> float:
    """Return mean_{j<n} (R[n][j] - R[j][j]): what the rest of the stream did to an experience. (GEM, eq. 3).

    Also what avalanche, mammoth and Renate print.
    """
    R = square(R, least=2)
    n = len(R) - 1
    return _mean("bwt_gem", R, [(n, j) for j in range(n)]) - _mean("bwt_gem", R, [(j, j) for j in range(n)])


def bwt_tri(R: Matrix) -> float:
    """Return the mean of R[i][j] - R[j][j] over all pairs j < i: also counts what was lost and regained. (Forget).

    Also what continuum and CapyMOA print.
    """
    R = square(R, least=2)
    pairs = [(i, j) for i in range(len(R)) for j in range(i)]
    return _mean("bwt_tri", R, pairs) - _mean("bwt_tri", R, [(j, j) for _, j in pairs])


def forgetting_chaudhry(R: Matrix) -> float:
    """Return mean_{j<n} (max_{l<n} R[l][j] - R[n][j]): the best ever known minus the last. (RWalk, section 3).

    The last row is not among the candidates, so an experience that ends at its best counts as negative. Rows before
    experience j was learned (l < j) are candidates where they were measured. Also continuum and Renate.
    """
    return _forgetting("forgetting_chaudhry", R, last_row=False)


def forgetting_max_incl_last(R: Matrix) -> float:
    """Return mean_{j<n} (max_{l<=n} R[l][j] - R[n][j]): never negative. (Code of mammoth and PILOT)."""
    return _forgetting("forgetting_max_incl_last", R, last_row=True)


def forgetting_first_last(R: Matrix) -> float:
    """Return mean_{j<n} (R[j][j] - R[n][j]): just learned minus last; this is -bwt_gem. (Code of avalanche)."""
    R = square(R, least=2)
    n = len(R) - 1
    name = "forgetting_first_last"
    return _mean(name, R, [(j, j) for j in range(n)]) - _mean(name, R, [(n, j) for j in range(n)])


def fwt_gem(R: Matrix, b: Sequence[float] | Floats) -> float:
    """Return mean_{0<j<=n} (R[j-1][j] - b[j]): what came before, against no training at all. (GEM, eq. 4).

    Args:
        R: Accuracy matrix `[T, T]`.
        b: Accuracies `[T]` of the untrained model on each experience.
    """
    R = square(R, least=2)
    base = row(b, len(R))
    ahead = range(1, len(R))
    require("fwt_gem", base[None], [(0, j) for j in ahead], "b")
    return _mean("fwt_gem", R, [(j - 1, j) for j in ahead]) - float(base[1:].mean())


def anytime_seen(A: Matrix, seen: Sequence[int] | None = None) -> float:
    """Return mean_s mean_{j<seen[s]} A[s][j]: at each moment, the accuracy on what was seen so far. (ER-ACE, "AAA").

    Args:
        A: Accuracies `[S, T]` at S moments of the stream; for the matrix R it equals `acc_avg_incremental`.
        seen: How many experiences had begun at each moment `[S]`, 1..T; None: one moment after each experience.
    """
    A = table(A)
    counts = list(range(1, len(A) + 1)) if seen is None else [int(s) for s in seen]
    if len(counts) != len(A) or not all(1 <= s <= A.shape[1] for s in counts):
        raise DataError(
            f"anytime_seen needs how many of {A.shape[1]} experiences were seen at each of {len(A)} rows, got {counts}"
        )
    rows = [_mean("anytime_seen", A, [(i, j) for j in range(s)]) for i, s in enumerate(counts)]
    return float(np.mean(rows))


def anytime_all(A: Matrix) -> float:
    """Return mean_s mean_j A[s][j]: at each moment, the accuracy on the whole stream, future included. (CapyMOA).

    Args:
        A: Accuracies `[S, T]` at S moments of the stream; R is one, after each experience.
    """
    A = table(A)
    return _mean("anytime_all", A, [(i, j) for i in range(len(A)) for j in range(A.shape[1])])


def ttt(R: Matrix, b: Sequence[float] | Floats) -> float:
    """Return (b[0] + sum_{0<j<=n} R[j-1][j]) / T: each experience is tested, then trained on. (Gama, prequential).

    This is test-then-train at the grain of experiences, on their held-out samples; the share of stream samples that
    were predicted right before they were trained on is finer, and no function of R.

    Args:
        R: Accuracy matrix `[T, T]`.
        b: Accuracies `[T]` of the untrained model; only the first is used.
    """
    R = square(R)
    base = row(b, len(R))
    require("ttt", base[None], [(0, 0)], "b")
    ahead = [(j - 1, j) for j in range(1, len(R))]
    require("ttt", R, ahead)
    return float((base[0] + sum(R[cell] for cell in ahead)) / len(R))


def need_weighted(R: Matrix, alpha: float = 1.0) -> float:
    """Return sum_j p_j R[n][j], p_j ~ (T - j) ** -alpha: accuracy where need fades as a power of time. (Gandhi).

    T - j is how long ago experience j was learned, seen from the one that would come next: the youngest counts most.

    Args:
        R: Accuracy matrix `[T, T]`; only the last row is used.
        alpha: Decay of the need, >= 0; 0 is `acc_final`.
    """
    R = square(R)
    if not 0 <= alpha < np.inf:
        raise DataError(f"the need of older experiences decays by a finite alpha >= 0, got {alpha}")
    n = len(R) - 1
    require("need_weighted", R, [(n, j) for j in range(n + 1)])
    weight = np.arange(n + 1, 0, -1, dtype=np.float64) ** -alpha
    return float(weight @ R[n] / weight.sum())


class Metric(NamedTuple):
    """One row of `METRICS`: how to compute it, what it says in one line, and where it is defined."""

    function: Callable[..., float]
    definition: str
    citation: str


METRICS: dict[str, Metric] = {
    "acc_final": Metric(acc_final, "mean of the last row", "Lopez-Paz & Ranzato 2017"),
    "acc_avg_incremental": Metric(acc_avg_incremental, "mean of each row's seen part, averaged", "Rebuffi et al. 2017"),
    "bwt_gem": Metric(bwt_gem, "last row minus diagonal", "Lopez-Paz & Ranzato 2017, eq. 3"),
    "bwt_tri": Metric(bwt_tri, "lower triangle minus diagonal", "Diaz-Rodriguez et al. 2018"),
    "forgetting_chaudhry": Metric(forgetting_chaudhry, "best earlier row minus last", "Chaudhry et al. 2018"),
    "forgetting_max_incl_last": Metric(
        forgetting_max_incl_last, "best of all rows minus last", "code of mammoth, PILOT"
    ),
    "forgetting_first_last": Metric(forgetting_first_last, "diagonal minus last row", "code of avalanche"),
    "fwt_gem": Metric(fwt_gem, "first upper diagonal minus untrained", "Lopez-Paz & Ranzato 2017, eq. 4"),
    "anytime_seen": Metric(anytime_seen, "seen part of each moment, averaged", "Caccia et al. 2022"),
    "anytime_all": Metric(anytime_all, "all experiences at each moment, averaged", "CapyMOA, OCLMetrics"),
    "need_weighted": Metric(need_weighted, "last row, weighted by 1 / age", "Gandhi et al. 2024"),
    "ttt": Metric(ttt, "each experience tested just before it is learned", "Gama et al. 2013"),
}
BASED = frozenset({"fwt_gem", "ttt"})  # need the accuracies b of the untrained model


def summary(R: Matrix, b: Sequence[float] | Floats | None = None) -> dict[str, float]:
    """Return every metric that the measured cells define, by name.

    Args:
        R: Accuracy matrix `[T, T]`; metrics that need a cell that is NaN, or T >= 2, are left out.
        b: Accuracies `[T]` of the untrained model; without them `fwt_gem` and `ttt` are left out.

    Raises:
        DataError: R or b is no such matrix or row at all.

    >>> sorted(summary([[0.9, None], [0.5, 0.75]]))  # doctest: +NORMALIZE_WHITESPACE
    ['acc_avg_incremental', 'acc_final', 'anytime_seen', 'bwt_gem', 'bwt_tri', 'forgetting_chaudhry',
     'forgetting_first_last', 'forgetting_max_incl_last', 'need_weighted']
    """
    R = square(R)
    base = None if b is None else row(b, len(R))
    found = {}
    for name, metric in METRICS.items():
        if name in BASED and base is None:
            continue
        try:
            found[name] = metric.function(R, base) if name in BASED else metric.function(R)
        except DataError:  # a cell is missing: R and b themselves were checked above
            continue
    return found


def _forgetting(name: str, R: Matrix, *, last_row: bool) -> float:
    R = square(R, least=2)
    n = len(R) - 1
    require(name, R, [(i, j) for j in range(n) for i in range(j, n + 1)])
    best = np.nanmax(R[: n + 1 if last_row else n, :n], axis=0)
    return float((best - R[n, :n]).mean())


def _mean(name: str, A: Floats, cells: list[tuple[int, int]]) -> float:
    require(name, A, cells)
    return float(np.mean([A[cell] for cell in cells]))
