"""Square matrices as modules: one that stays orthogonal while it trains, one that never trains."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


def cayley(free: Tensor) -> Tensor:
    """Return the orthogonal matrix (I + S)^-1 (I - S), S = free - free^T, of a square matrix; of zeros, I."""
    skew, one = free - free.T, torch.eye(len(free)).to(free)
    made: Tensor = torch.linalg.solve(one + skew, one - skew)
    return made


@final
class Rotation(nn.Module):
    """An orthogonal matrix that trains, I at first.

    Args:
        dim: Of the space.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.zeros(dim, dim))

    def reset(self, generator: torch.Generator) -> None:
        """Become I again."""
        nn.init.zeros_(self.free)

    def forward(self) -> Tensor:
        """Return the matrix `[dim, dim]`."""
        return cayley(self.free)


@final
class Fixed(nn.Module):
    """A matrix that never trains, I at first.

    Args:
        rows: Of the matrix.
        columns: As many as rows unless given.
    """

    matrix: Tensor

    def __init__(self, rows: int, columns: int | None = None) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.eye(rows, columns or rows))

    def reset(self, generator: torch.Generator) -> None:
        """Become I again."""
        nn.init.eye_(self.matrix)
