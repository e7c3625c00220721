"""A head that looks at directions alone: what embeddings that are compared by cosine should be trained with."""

from __future__ import annotations

from math import sqrt
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError


@final
class CosineHead(nn.Module):
    """Logits are scale * cos(feature, w_c); it grows a row for each new class, old rows keep their values bit for bit.

    Args:
        dim: Feature width D.
        classes: Rows to start with; 0 is allowed.
        scale: Factor on the cosine, > 0.
    """

    family = "cosine"

    def __init__(self, dim: int, classes: int = 0, scale: float = 10.0) -> None:
        super().__init__()
        if dim < 1 or classes < 0 or not scale > 0:
            raise ConfigError(
                f"a cosine head needs dim >= 1, classes >= 0 and scale > 0, got dim={dim}, classes={classes}, "
                f"scale={scale}"
            )
        self.dim, self.scale = dim, scale
        self.weight = nn.Parameter(torch.empty(classes, dim))

    @property
    def classes(self) -> int:
        """How many classes it has rows for."""
        return len(self.weight)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        return {"name": "cosine", "classes": self.classes, "scale": self.scale}

    def reset(self, generator: torch.Generator) -> None:
        """Draw all rows anew."""
        with torch.no_grad():
            self.weight.copy_(self._rows(self.classes, generator))

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add rows until there are `classes`; nothing happens if there are as many already. Frozen stays frozen."""
        if classes > self.classes:
            rows = self._rows(classes - self.classes, generator).to(self.weight)
            self.weight = nn.Parameter(torch.cat([self.weight.detach(), rows]), self.weight.requires_grad)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]`."""
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))

    def _rows(self, count: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(count, self.dim, generator=generator) * 2 - 1) / sqrt(self.dim)
