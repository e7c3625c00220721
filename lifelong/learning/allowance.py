"""How many old samples a step may still rehearse: given by a learner with a budget, used up by strategies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(slots=True)
class Allowance:
    """Old samples that may be rehearsed in one step, by all strategies together.

    Args:
        left: How many may still be.
        left_out: How many were wanted and not given.
    """

    left: int
    left_out: int = 0


def allowed(allowance: Allowance | None, wanted: int) -> int:
    """Return how many of `wanted` old samples may be rehearsed, and take note; None allows all."""
    if allowance is None:
        return wanted
    given = min(wanted, allowance.left)
    allowance.left -= given
    allowance.left_out += wanted - given
    return given
