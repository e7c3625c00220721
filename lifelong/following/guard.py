"""What must never be learned: a step after which the loss or a weight is not a number, or the loss leaps."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import nn

FADE = 0.99  # of the usual loss


@final
class Guard:
    """Judges losses against the usual one.

    Args:
        spike: How many times the usual loss (and chance) is too much; 0 refuses only what is not finite.
    """

    def __init__(self, spike: float) -> None:
        self.spike, self.usual = spike, 0.0

    def refuses(self, loss: float, classes: int) -> str:
        """Return why a loss is refused, empty if it is not; `classes` are known so far."""
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        usual = max(self.usual, math.log(max(classes, 2)))
        if self.spike and loss > self.spike * usual:
            return f"the loss leapt to {loss:.4g}, from usually {usual:.4g}"
        return ""

    def accept(self, loss: float) -> None:
        """Count a loss into the usual one."""
        self.usual = FADE * self.usual + (1 - FADE) * loss if self.usual else loss

    def state(self) -> dict[str, Any]:
        """Return the usual loss."""
        return {"usual": self.usual}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.usual = state["usual"]


def finite(model: nn.Module) -> bool:
    """Return whether every weight and buffer of `model` is a number; -inf is one (a class without samples)."""
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    return not any(bool(torch.isnan(t).any()) or bool((t == torch.inf).any()) for t in tensors)
