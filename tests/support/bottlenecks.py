"""Small heads of the key-value bottleneck, in float64, and what they are asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lifelong.models.bottleneck import BottleneckHead

BOOKS, PAIRS, WIDTH = 5, 12, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=generator(seed))


def head(classes: int = 3, seed: int = 0, **how: Any) -> BottleneckHead:
    """A head in float64 with values that are not zero."""
    made = BottleneckHead(WIDTH, classes, **{"books": BOOKS, "pairs": PAIRS, "dim_key": 4, "reserve": 7, **how})
    made.reset(generator(seed))
    made.double()
    with torch.no_grad():
        made.values.copy_(normal(*made.values.shape, seed=seed + 1))
    return made
