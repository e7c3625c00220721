"""Changes of the inputs that make a new domain out of the same samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from lifelong.errors import DataError


def permuted(x: Tensor, order: Tensor) -> Tensor:
    """Return inputs `[N, ...]` whose P values stand in another `order` `[P]` i64; the shape stays."""
    if x[0].numel() != len(order):
        raise DataError(f"an order of {len(order)} values does not fit samples of shape {list(x.shape[1:])}")
    return x.flatten(1).index_select(1, order.to(x.device)).view_as(x)


def rotated(x: Tensor, degrees: float) -> Tensor:
    """Return float images `[N, ..., height, width]` turned counter-clockwise about their centre, bilinearly.

    Corners that come from outside are 0. Multiples of 90 degrees move square images exactly.

    >>> rotated(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 90).tolist()
    [[[2.0, 4.0], [1.0, 3.0]]]
    """
    if x.dim() < 3 or not x.is_floating_point():
        raise DataError(f"only float images [N, ..., height, width] turn, got {x.dtype} of shape {list(x.shape)}")
    height, width = x.shape[-2:]
    quarters, rest = divmod(degrees, 90)
    if rest == 0 and (height == width or quarters % 2 == 0):
        return torch.rot90(x, int(quarters) % 4, (-2, -1)) if quarters % 4 else x
    turn = math.radians(degrees)
    cos, sin, side = math.cos(turn), math.sin(turn), height / width
    matrix = torch.tensor([[[cos, -sin * side, 0], [sin / side, cos, 0]]], dtype=x.dtype, device=x.device)
    images = x.flatten(1, -3) if x.dim() > 3 else x.unsqueeze(1)
    grid = functional.affine_grid(matrix, [1, 1, height, width], align_corners=False)
    grid = grid.expand(len(x), -1, -1, -1)  # one grid, seen by all
    return functional.grid_sample(images, grid, align_corners=False).view_as(x)
