"""The few products that a protected layer costs in each step, on its weight and bias in place, without copies.

O outputs, I inputs of a layer seen as one matrix [W | b], K columns of its memory, U of them in use. Whatever is as
large as the weights is a product with the memory; everything else is as small as the coordinates `[O, K]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lifelong.models.layers import Layer


def inside(weight: Tensor, bias: Tensor | None, columns_IK: Tensor) -> Tensor:
    """Return [W | b] M `[O, K]` of a weight `[O, ...]` and a bias `[O]` or None."""
    flat = weight.reshape(len(weight), -1)
    if bias is None:
        return flat @ columns_IK
    return torch.addmm(torch.outer(bias, columns_IK[-1]), flat, columns_IK[:-1])


def plus(weight: Tensor, bias: Tensor | None, part_OK: Tensor, columns_IK: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of [W | b] + A M' for A `[O, K]`, inverse to `inside` on the span of M."""
    flat = weight.reshape(len(weight), -1)
    if bias is None:
        return torch.addmm(flat, part_OK, columns_IK.T).view_as(weight), None
    moved = torch.addmm(flat, part_OK, columns_IK[:-1].T).view_as(weight)
    return moved, torch.addmv(bias, part_OK, columns_IK[-1])


@torch.no_grad()
def add(weight: Tensor, bias: Tensor | None, part_OK: Tensor, columns_IK: Tensor) -> None:
    """Add A M' to the first O rows of [W | b] in place."""
    rows = len(part_OK)
    flat = weight.view(len(weight), -1)[:rows]
    if bias is None:
        flat.addmm_(part_OK, columns_IK.T)
    else:
        flat.addmm_(part_OK, columns_IK[:-1].T)
        bias[:rows].addmv_(part_OK, columns_IK[-1])


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


@final
@dataclass(frozen=True, slots=True)
class Along:
    """Columns that a task scales its weights along.

    Args:
        columns: All that are used `[I, U]`.
        ids: Their numbers in the memory `[U]` i64.
        places: Which of the columns are the basis of the first related task, then of the second, ...; i64.
        sizes: How many columns each of these has.
        units: What the offsets of each of these columns count in.
    """

    columns: Tensor
    ids: Tensor
    places: Tensor
    sizes: tuple[int, ...]
    units: Tensor

    @classmethod
    def of(cls, memory_IK: Tensor, bases: Sequence[Tensor], units: Sequence[float]) -> Along:
        """Return what the `bases`, columns `[k]` of the memory, use together; offsets along each count in `units`."""
        own = [basis.long().to(memory_IK.device) for basis in bases]
        ids = torch.cat(own).unique()
        sizes = tuple(map(len, own))
        unit = memory_IK.new_tensor(list(units)).repeat_interleave(torch.tensor(sizes, device=memory_IK.device))
        return cls(memory_IK[:, ids], ids, torch.searchsorted(ids, torch.cat(own)), sizes, unit)


def scaled_now(
    layer: Layer, offsets: Tensor, held_OK: Tensor, along: Along, outputs: int, free_K: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of W + sum_j u_j (W B_j) D_j B_j'; gradients flow to D, and to W where it may move.

    Args:
        layer: Its weight and bias.
        offsets: D = Q - I of each related task, `[most, room, room]`; what is beyond its basis is not used.
        held_OK: [W | b] M.
        along: The columns in use.
        outputs: Rows, from the first, whose coordinates are constants.
        free_K: Columns that are not constant in these rows either; None is none.
    """
    known = held_OK.index_select(1, along.ids)
    free = None if free_K is None else free_K[along.ids]
    made: tuple[Tensor, Tensor | None] = Scale.apply(layer.weight, layer.bias, offsets, known, along, outputs, free)
    return made


class Scale(torch.autograd.Function):
    """The product of `scaled_now`, with a backward pass that leaves out what would be taken out of the step anyway."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        weight: Tensor,
        bias: Tensor | None,
        offsets: Tensor,
        known_OU: Tensor,
        along: Along,
        outputs: int,
        free_U: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the scaled weight and bias."""
        ctx.save_for_backward(offsets, known_OU, free_U)
        ctx.along, ctx.outputs, ctx.biased = along, outputs, bias is not None
        parts = (known_OU.index_select(1, along.places) * along.units).split(along.sizes, 1)
        made = [part @ block[:k, :k] for part, block, k in zip(parts, offsets, along.sizes, strict=False)]
        more = torch.zeros_like(known_OU).index_add_(1, along.places, torch.cat(made, 1))
        return plus(weight, bias, more, along.columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return gradients of the weight, the bias and the offsets, from those of the scaled weight and bias."""
        offsets, known, free = ctx.saved_tensors
        along, moves = ctx.along, free is not None or ctx.outputs < len(known)
        felt = inside(weight, bias if ctx.biased else None, along.columns)
        parts = (felt.index_select(1, along.places) * along.units).split(along.sizes, 1)
        before = known.index_select(1, along.places).split(along.sizes, 1)
        mine = torch.zeros_like(offsets)
        for one, part, k, out in zip(before, parts, along.sizes, mine, strict=False):
            out[:k, :k] = one.T @ part
        if moves:
            back = [part @ block[:k, :k].T for part, block, k in zip(parts, offsets, along.sizes, strict=False)]
            through = torch.zeros_like(known).index_add_(1, along.places, torch.cat(back, 1))
            through[: ctx.outputs] *= 0 if free is None else free
            weight, bias = plus(weight, bias if ctx.biased else None, through, along.columns)
        return weight, bias if ctx.biased else None, mine, None, None, None, None
