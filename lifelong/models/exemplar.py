"""A head that is trained as a linear layer and asked as a nearest mean (iCaRL)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.models.heads import LinearHead


@final
class ExemplarHead(nn.Module):
    """Linear logits while training; when asked, minus the squared distance to unit means of unit features.

    A class without a mean is never answered; while there is no mean at all, the linear layer answers.

    Args:
        dim: Feature width D.
        classes: Columns to start with.
    """

    family = "exemplar"
    means: Tensor
    known: Tensor

    def __init__(self, dim: int, classes: int = 0) -> None:
        super().__init__()
        self.dim, self.linear = dim, LinearHead(dim, classes)
        self.register_buffer("means", torch.zeros(classes, dim))
        self.register_buffer("known", torch.zeros(classes, dtype=torch.bool))

    @property
    def classes(self) -> int:
        """How many classes it has columns for."""
        return self.linear.classes

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        return {"name": "exemplar", "classes": self.classes}

    def reset(self, generator: torch.Generator) -> None:
        """Draw all columns anew and forget the means."""
        self.linear.reset(generator)
        self.means.zero_()
        self.known.zero_()

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add columns, without means, until there are `classes`."""
        new = max(classes - self.classes, 0)
        self.linear.grow(classes, generator)
        self.means = torch.cat([self.means, self.means.new_zeros(new, self.dim)])
        self.known = torch.cat([self.known, self.known.new_zeros(new)])

    def place(self, c: int, features: Tensor) -> None:
        """Set the mean of class index `c` from its exemplars' features `[N, D]`."""
        self.means[c] = F.normalize(F.normalize(features, dim=1).mean(0), dim=0)
        self.known[c] = True

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]`."""
        if self.training or not bool(self.known.any()):
            logits: Tensor = self.linear(features)
            return logits
        distance = torch.cdist(F.normalize(features, dim=1), self.means.to(features)).square()
        return (-distance).masked_fill(~self.known, -torch.inf)
