"""The laws by name. Each takes a maker of fresh strategies; a broken one raises `AssertionError` with a sentence.

A law that cannot be tried on a strategy returns the reason instead of None.
"""

from __future__ import annotations

from collections.abc import Callable

from lifelong.laws.bits import (
    deterministic,
    effective_above_zero,
    exact_resume,
    independent_clone,
    inert_at_zero,
    predict_is_pure,
    state_round_trip,
)
from lifelong.laws.costs import bounded_memory, flat_cost
from lifelong.laws.learning import beats_naive, nan_refused, needs_enforced, new_labels
from lifelong.trial import Make

LAWS: dict[str, Callable[[Make], str | None]] = {
    "exact resume": exact_resume,
    "inert at zero": inert_at_zero,
    "effective above zero": effective_above_zero,
    "predict is pure": predict_is_pure,
    "deterministic": deterministic,
    "bounded memory": bounded_memory,
    "flat cost": flat_cost,
    "new labels": new_labels,
    "NaN refused": nan_refused,
    "independent clone": independent_clone,
    "state round trip": state_round_trip,
    "needs enforced": needs_enforced,
    "beats naive": beats_naive,
}
