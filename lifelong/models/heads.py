"""Heads: features `[N, D]` in, logits `[N, C]` out; column c always means class index c."""

from __future__ import annotations

from math import sqrt
from typing import Any, final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError


@final
class LinearHead(nn.Module):
    """A linear layer that grows a column for each new class; old columns keep their values bit for bit.

    Args:
        dim: Feature width D.
        classes: Columns to start with; 0 is allowed.
    """

    family = "linear"

    def __init__(self, dim: int, classes: int = 0) -> None:
        super().__init__()
        if dim < 1 or classes < 0:
            raise ConfigError(f"a linear head needs dim >= 1 and classes >= 0, got dim={dim}, classes={classes}")
        self.dim = dim
        self.weight = nn.Parameter(torch.empty(classes, dim))
        self.bias = nn.Parameter(torch.empty(classes))

    @property
    def classes(self) -> int:
        """How many classes it has columns for."""
        return self.bias.shape[0]

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        return {"name": "linear", "classes": self.classes}

    def reset(self, generator: torch.Generator) -> None:
        """Draw all columns anew."""
        with torch.no_grad():
            self.weight.copy_(self._rows(self.classes, generator))
            self.bias.zero_()

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add columns until there are `classes`; nothing happens if there are as many already. Frozen stays frozen."""
        new = classes - self.classes
        if new <= 0:
            return
        rows, trains = self._rows(new, generator).to(self.weight), self.weight.requires_grad
        self.weight = nn.Parameter(torch.cat([self.weight.detach(), rows]), trains)
        self.bias = nn.Parameter(torch.cat([self.bias.detach(), self.bias.detach().new_zeros(new)]), trains)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]`."""
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def _rows(self, count: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(count, self.dim, generator=generator) * 2 - 1) / sqrt(self.dim)


@final
class SimplexHead(nn.Module):
    """Fixed classifier: the K vertices of a regular simplex in D = K - 1 dimensions, never trained.

    Unit vertices with pairwise cosine -1/(K-1). By default logits = z W^T without bias or scale; with a `scale` they
    are scale * cos(z, w), which fits the way embeddings are compared later. Vertices of classes that have not come
    yet stay in the softmax as negatives (pre-allocation). Vertices depend on K alone, so
    adding classes moves nothing; changing K moves everything, hence K is part of the embedding's family.

    Source: Pernici et al., "Regular Polytope Networks"; Biondi et al., d-Simplex stationary representations.
    Differs: logits in O(D) from the closed form of W, no K x D matrix is kept; the scaled cosine is an option.

    Args:
        dim: Feature width D of the backbone; must be `classes - 1`.
        classes: K, pre-allocated.
        scale: Factor on the cosine, > 0; None is the papers' plain product.
        downwards: Class c takes vertex K - 1 - c instead of c: a model trained elsewhere has the first ones, and both
            share one interface as long as their classes add up to at most K.
    """

    def __init__(self, dim: int, classes: int = 64, scale: float | None = None, downwards: bool = False) -> None:
        super().__init__()
        if scale is not None and not scale > 0:
            raise ConfigError(f"a simplex head's scale must be > 0, or None for plain products; got {scale}")
        if classes < 2 or dim != classes - 1:
            raise ConfigError(
                f"a simplex head of K classes needs features of width K - 1 and K >= 2, got dim={dim}, "
                f"classes={classes}; set the backbone's features={max(classes, 2) - 1}"
            )
        self.dim, self.classes, self.scale, self.downwards = dim, classes, scale, downwards
        root = (1 - sqrt(1 + dim)) / dim
        mean = (1 + root) / (dim + 1)
        norm = sqrt((1 - mean) ** 2 + (dim - 1) * mean**2)
        self._mean, self._norm, self._last = mean, norm, root - mean

    @property
    def family(self) -> str:
        """Name of the stationary geometry: K, and from which end labels take vertices."""
        return f"simplex-k{self.classes}" + ("-down" if self.downwards else "")

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head."""
        told = {"name": "simplex", "classes": self.classes, "scale": self.scale}
        return {**told, "downwards": True} if self.downwards else told

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Check that `classes` fit into the pre-allocated vertices.

        Raises:
            ConfigError: They do not.
        """
        if classes > self.classes:
            raise ConfigError(
                f"the simplex has {self.classes} pre-allocated classes and needs {classes}; start a new lineage "
                f"with a larger K (features = K - 1): it cannot grow without moving every vertex"
            )

    def vertices(self) -> Tensor:
        """Return W `[K, D]` float64, row c for class c: unit rows, pairwise cosine -1/(K-1), column sums 0."""
        rows = torch.eye(self.dim, dtype=torch.float64) - self._mean
        last = torch.full((1, self.dim), self._last, dtype=torch.float64)
        upwards = torch.cat([rows, last]) / self._norm
        return upwards.flip(0) if self.downwards else upwards

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, K]`, equal to `features @ vertices().T` (scaled, of unit features, if it has a scale)."""
        if self.scale is not None:
            features = torch.nn.functional.normalize(features, dim=1) * self.scale
        total = features.sum(1, keepdim=True)
        logits = torch.cat([features - self._mean * total, self._last * total], 1) / self._norm
        return logits.flip(1) if self.downwards else logits


@final
class PrototypeHead(nn.Module):
    """Nearest class mean: logits are negative squared distances to running means of unit features.

    Means come from float64 sums and counts, so they depend neither on the order of samples nor on how they
    were cut into batches; a class without samples is never predicted; a zero feature is a zero vector, not NaN.

    Source: "A Simple Baseline that Questions the Use of Pretrained-Models in Continual Learning" (NMC).

    Args:
        dim: Feature width D.
        classes: Rows to start with.
        normalise: Scale features to unit norm first (the mean itself is not scaled again).
    """

    family = "prototype"
    sums: Tensor
    counts: Tensor

    def __init__(self, dim: int, classes: int = 0, normalise: bool = True) -> None:
        super().__init__()
        if dim < 1 or classes < 0:
            raise ConfigError(f"a prototype head needs dim >= 1 and classes >= 0, got dim={dim}, classes={classes}")
        self.dim, self.normalise = dim, normalise
        self.register_buffer("sums", torch.zeros(classes, dim, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))

    @property
    def classes(self) -> int:
        """How many classes it has rows for."""
        return len(self.counts)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this head as it is now."""
        return {"name": "prototype", "classes": self.classes, "normalise": self.normalise}

    def reset(self, generator: torch.Generator) -> None:
        """Forget everything."""
        self.sums.zero_()
        self.counts.zero_()

    def grow(self, classes: int, generator: torch.Generator) -> None:
        """Add empty rows until there are `classes`."""
        new = max(classes - self.classes, 0)
        self.sums = torch.cat([self.sums, self.sums.new_zeros(new, self.dim)])
        self.counts = torch.cat([self.counts, self.counts.new_zeros(new)])

    def update(self, features: Tensor, y: Tensor, sign: int = 1) -> None:
        """Add (or with `sign=-1` exactly take back) features `[N, D]` of class indices `y` `[N]`."""
        z = self._scaled(features.detach()).double()
        self.sums.index_add_(0, y, z * sign)
        self.counts.index_add_(0, y, torch.full_like(y, sign))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[N, C]`: -||z - mean_c||^2, -inf for a class without samples."""
        means = (self.sums / self.counts.clamp(min=1).unsqueeze(1)).to(features.dtype)
        distance = torch.cdist(self._scaled(features), means).square()
        return (-distance).masked_fill(self.counts == 0, -torch.inf)

    def _scaled(self, features: Tensor) -> Tensor:
        return torch.nn.functional.normalize(features, dim=1) if self.normalise else features
