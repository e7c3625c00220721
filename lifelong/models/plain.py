"""A classifier of ours for other libraries: a module that returns one tensor."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from lifelong.models.classifier import Classifier


@final
class Logits(nn.Module):
    """A classifier that answers with its logits `[N, C]` alone.

    Args:
        model: Trained through this.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return logits of inputs `[N, ...]`."""
        logits: Tensor = self.model(x).logits
        return logits


@final
class Features(nn.Module):
    """A classifier that answers with its features `[N, D]` alone.

    Args:
        model: Whose backbone.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return features of inputs `[N, ...]`."""
        features: Tensor = self.model(x).features
        return features
