"""Linear maps between two embeddings, fitted on pairs: the same inputs, embedded by both.

Source: Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem"; ridge regression.
Differs: features are scaled to unit length and not centred, because they are compared by cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import DataError
from lifelong.models.matrices import Fixed
from lifelong.models.stacked import part


def orthogonal_map(new: Tensor, old: Tensor) -> Tensor:
    """Return M `[D_o, D]` with orthonormal rows or columns that brings `new` `[N, D]` nearest to `old` `[N, D_o]`.

    With D <= D_o lengths and angles stay what they are, and so does every ranking within the new space.

    Raises:
        DataError: They are not features of the same inputs.
    """
    z, target = _pairs(new, old)
    u, _, v = torch.linalg.svd(target.T @ z, full_matrices=False)
    turn: Tensor = u @ v
    return turn.to(new.dtype)


def ridge_map(new: Tensor, old: Tensor, penalty: float = 1e-3) -> Tensor:
    """Return M `[D_o, D]` that minimises |old - M new|^2 / N + penalty |M|^2 over unit features.

    Raises:
        DataError: They are not features of the same inputs.
    """
    z, target = _pairs(new, old)
    gram = z.T @ z + penalty * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    solved: Tensor = torch.linalg.solve(gram, z.T @ target)
    return solved.T.to(new.dtype)


MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"orthogonal": orthogonal_map, "ridge": ridge_map}


@final
class Mapped(nn.Module):
    """A backbone, and a fixed matrix after it.

    Args:
        inner: Spec of the backbone, D features.
        dim: Width D' after the matrix.
    """

    def __init__(self, inner: Mapping[str, Any], dim: int) -> None:
        super().__init__()
        self.inner: Any = part(inner)
        self.dim = dim
        self.input_shape = tuple(self.inner.input_shape)
        self.fixed = Fixed(dim, self.inner.dim)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to inputs before the first layer."""
        found: dict[str, Any] = getattr(self.inner, "preprocessing", {"scale": "none"})
        return found

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        return {"name": "mapped", "inner": self.inner.spec(), "dim": self.dim}

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, D']`."""
        mapped: Tensor = self.inner(x) @ self.fixed.matrix.T
        return mapped


def _pairs(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor]:
    if new.dim() != 2 or old.dim() != 2 or len(new) != len(old) or not len(new):
        raise DataError(f"need features [N, D] of the same N >= 1 inputs, got {list(new.shape)} and {list(old.shape)}")
    return F.normalize(new.double(), dim=1), F.normalize(old.double(), dim=1)
