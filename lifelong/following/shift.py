"""Inputs that are not what they used to be, seen where the model sees them: no labels are needed.

Source: two-sample Kolmogorov-Smirnov test (SciPy) of each coordinate of the embedding, with Bonferroni's correction;
    Rabanser et al. 2019, "Failing Loudly" (there called univariate tests).
Differs: both samples are embedded anew by the model of now, so that a model that has changed is not taken for inputs
    that have. The samples themselves are kept for that: twice `ROWS` of them.
Checked: against SciPy's vectorised test, a shift is found and none where there is none, exact resume
    (tests/test_shift.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from lifelong.errors import Unavailable

ROWS = 250  # in each of the two samples


@final
class Shift:
    """Compares the last `ROWS` inputs with the first ones after the last shift.

    Args:
        alpha: Probability of a false alarm in each comparison, at most.
        rows: In each of the two samples.

    Raises:
        Unavailable: SciPy is not installed.
    """

    def __init__(self, alpha: float, rows: int = ROWS) -> None:
        try:
            from scipy.stats import ks_2samp
        except ImportError as error:
            raise Unavailable("window=shift needs SciPy; pip install 'lifelong[drift]'") from error
        self._test, self.alpha, self.rows = ks_2samp, alpha, rows
        self.reference: list[Tensor] = []
        self.recent: list[Tensor] = []

    def update(self, inputs: Sequence[Tensor], embed: Callable[[Tensor], Tensor]) -> bool:
        """Take inputs in order; return whether one of them completed a shift.

        Args:
            inputs: Of one shape each.
            embed: Returns embeddings `[N, D]` of inputs `[N, ...]`.
        """
        found = False
        for x in inputs:
            (self.recent if len(self.reference) >= self.rows else self.reference).append(x)
            if len(self.recent) >= self.rows:
                if self.level(embed) < self.alpha:
                    self.reference, found = self.recent, True
                self.recent = []
        return found

    def level(self, embed: Callable[[Tensor], Tensor]) -> float:
        """Return the smallest p-value over all coordinates, times their number (1 at most)."""
        one, two = embed(torch.stack(self.reference)).double(), embed(torch.stack(self.recent)).double()
        values = [self._test(one[:, i].numpy(), two[:, i].numpy(), method="asymp").pvalue for i in range(one.shape[1])]
        return min(1.0, float(min(values)) * len(values))

    def state(self) -> dict[str, Any]:
        """Return both samples."""
        return {name: stacked(getattr(self, name)) for name in ("reference", "recent")}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.reference, self.recent = list(state["reference"]), list(state["recent"])


def stacked(rows: Sequence[Tensor]) -> Tensor:
    """Return rows as one tensor, which may be empty."""
    return torch.stack(list(rows)) if rows else torch.empty(0)
