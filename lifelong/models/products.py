"""The few products that a protected layer costs in each step, on its weight and bias in place, without copies.

O outputs, I inputs of a layer seen as one matrix [W | b], K columns of its memory, U of them in use. Whatever is as
large as the weights is a product with the memory; everything else is as small as the coordinates `[O, K]`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.models.layers import Layer


def inside(weight: Tensor, bias: Tensor | None, columns_IK: Tensor) -> Tensor:
    """Return [W | b] M `[O, K]` of a weight `[O, ...]` and a bias `[O]` or None."""
    flat = weight if weight.dim() == 2 else weight.reshape(len(weight), -1)
    if bias is None:
        return flat @ columns_IK
    return (flat @ columns_IK[:-1]).addr_(bias, columns_IK[-1])


def plus(weight: Tensor, bias: Tensor | None, part_OK: Tensor, columns_IK: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of [W | b] + A M' for A `[O, K]`, inverse to `inside` on the span of M."""
    flat = weight if weight.dim() == 2 else weight.reshape(len(weight), -1)
    if bias is None:
        return torch.addmm(flat, part_OK, columns_IK.T).view_as(weight), None
    moved = torch.addmm(flat, part_OK, columns_IK[:-1].T).view_as(weight)
    return moved, torch.addmv(bias, part_OK, columns_IK[-1])


@torch.no_grad()
def add(weight: Tensor, bias: Tensor | None, part_OK: Tensor, columns_IK: Tensor) -> None:
    """Add A M' to the first O rows of [W | b] in place."""
    rows = len(part_OK)
    flat = weight if weight.dim() == 2 else weight.view(len(weight), -1)
    if rows < len(weight):
        flat, bias = flat[:rows], None if bias is None else bias[:rows]
    if bias is None:
        flat.addmm_(part_OK, columns_IK.T)
    else:
        flat.addmm_(part_OK, columns_IK[:-1].T)
        bias.addmv_(part_OK, columns_IK[-1])


@torch.no_grad()
def follow(layer: Layer, memory_IK: Tensor, held_OK: Tensor) -> Tensor:
    """Return [W | b] M as it is in `held_OK`, and as it is now for rows and columns that are new since."""
    rows, columns = held_OK.shape
    if rows == len(layer.weight) and columns == memory_IK.shape[1]:
        return held_OK
    now = inside(layer.weight, layer.bias, memory_IK)
    now[:rows, :columns] = held_OK
    return now


@torch.no_grad()
def hold(layer: Layer, memory_IK: Tensor, held_OK: Tensor, outputs: int, free_K: Tensor | None = None) -> None:
    """Put a layer back to where it was along its memory, and note where it is along what is free.

    Args:
        layer: After a step.
        memory_IK: Orthonormal columns.
        held_OK: [W | b] M as it is to be; rows and columns that are free are noted in place.
        outputs: Rows, from the first, that are held.
        free_K: Columns that are free in these rows too; None is none.
    """
    rows = len(held_OK)
    bias = None if layer.bias is None else layer.bias[:rows]
    off = held_OK - inside(layer.weight[:rows], bias, memory_IK)
    if outputs < rows:
        held_OK[outputs:] -= off[outputs:]
        off = off[:outputs]
    if free_K is not None:
        held_OK[:outputs] -= off * free_K
        off = off * ~free_K
    add(layer.weight, layer.bias, off, memory_IK)


@torch.no_grad()
def take_out(
    layer: Layer,
    memory_IK: Tensor,
    outputs: int,
    free_K: Tensor | None = None,
    *,
    felt_OK: Tensor | None = None,
    more_OK: Tensor | None = None,
    loose: bool = False,
) -> Tensor | None:
    """Take out of a layer's gradient what lies along its memory and is not free, and add to the rest what is given.

    After a step that is a multiple of the gradient the layer is where `hold` would put it, up to rounding. It takes no
    copy of the weights, and one product instead of two where `felt_OK` is known (`lifelong.models.rails`).

    Args:
        layer: After a backward pass.
        memory_IK: Orthonormal columns.
        outputs: Rows, from the first, that are held.
        free_K: Columns that are free in these rows too; None is none.
        felt_OK: The gradient's product with the memory, if it is known.
        more_OK: To add where it is free.
        loose: All columns are free, and `felt_OK` and `more_OK` are known: nothing is taken out.

    Returns:
        The new gradient's product with the memory, None if it is 0.
    """
    weight, bias = layer.weight.grad, None if layer.bias is None else layer.bias.grad
    if weight is None:
        return None
    felt = inside(weight, bias, memory_IK) if felt_OK is None else felt_OK
    if loose and more_OK is not None and felt_OK is not None:
        add(weight, bias, more_OK, memory_IK)
        return more_OK + felt_OK
    more = torch.zeros(()).to(felt) if more_OK is None else more_OK
    part = felt.neg() if free_K is None else torch.where(free_K, more, -felt)
    if outputs < len(felt):
        part[outputs:] = more if more_OK is None else more[outputs:]
    add(weight, bias, part, memory_IK)
    return None if free_K is None and outputs >= len(felt) else part.add_(felt)
