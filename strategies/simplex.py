"""d-Simplex stationary representations: features are trained against fixed vertices that never move.

Source: Pernici et al. 2021, "Class-incremental learning with pre-allocated fixed classifiers"; Biondi et al. 2023,
    "CL2R" and "CoReS" (stationary features need no backfilling).
Differs: nothing in the loss; logits use a closed form instead of a matrix product.
Checked: geometry by property (tests/test_heads.py); the head holds no parameter (tests/test_strategies.py).
"""

from __future__ import annotations

from typing import final

from torch import nn

from lifelong.errors import ConfigError
from lifelong.learning import Strategy


@final
class Simplex(Strategy):
    """Put a fixed d-Simplex classifier on the model, pre-allocated for classes to come.

    It does not prevent forgetting by itself: chain it with rehearsal.

    Args:
        classes: K; the backbone's feature width must be K - 1. More can never be learned in this lineage.
    """

    def __init__(self, classes: int = 64) -> None:
        if classes < 2:
            raise ConfigError(f"a simplex needs at least 2 classes, got {classes}")
        self.classes = classes

    def adapt(self, model: nn.Module) -> None:
        """Replace the head, unless it is this simplex already."""
        if getattr(model, "family", "") != f"simplex-k{self.classes}":
            model.with_head("simplex", classes=self.classes)  # type: ignore[operator]
