"""Layers while a task is trained that scales them along its memory: weights, or answers, and what comes back of them.

O outputs, I inputs of a layer seen as one matrix [W | b], K columns of its memory M, U of them in use. Two ways to the
same answers: by the weights (`scaled_now`, two products of their size, three where something may move), or by the
inputs (`answer_now`, one product per sample with the memory, which also tells the gradient's coordinates). The latter
is for linear layers: a convolution sees too many patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lifelong.models.layers import Layer
from lifelong.models.products import inside, plus


@final
@dataclass(frozen=True, slots=True)
class Along:
    """Columns that a task scales its weights along, all its related tasks' bases together.

    Args:
        columns: All that are used `[I, U]`.
        ids: Their numbers in the memory `[U]` i64; None if these are all, in order.
        cells: Which entry of a matrix `[U, U]` an entry of the offsets is added to `[most * room * room]` i64.
        units: What each of them counts in, 0 beyond its basis `[most, room, room]`.
    """

    columns: Tensor
    ids: Tensor | None
    cells: Tensor
    units: Tensor

    @classmethod
    def of(cls, memory_IK: Tensor, bases: Sequence[Tensor], units: Sequence[float], like: Tensor) -> Along:
        """Return what the `bases`, columns `[k]` of the memory, use together.

        Args:
            memory_IK: Orthonormal columns.
            bases: Of the related tasks.
            units: What the offsets along each of them count in.
            like: The offsets `[most, room, room]`.
        """
        own = [basis.long().to(memory_IK.device) for basis in bases]
        ids = torch.cat(own).unique()
        cells, scale = torch.zeros_like(like, dtype=torch.int64), torch.zeros_like(like)
        for slot, (basis, unit) in enumerate(zip(own, units, strict=True)):
            k, place = len(basis), torch.searchsorted(ids, basis)
            cells[slot, :k, :k] = place[:, None] * len(ids) + place
            scale[slot, :k, :k] = unit
        every = len(ids) == memory_IK.shape[1]
        return cls(memory_IK if every else memory_IK[:, ids], None if every else ids, cells.flatten(), scale)

    def used(self, each_OK: Tensor) -> Tensor:
        """Return the columns in use `[O, U]` of those of the whole memory."""
        return each_OK if self.ids is None else each_OK.index_select(1, self.ids)

    def spread(self, part_OU: Tensor, like_OK: Tensor) -> Tensor:
        """Return columns of the whole memory `[O, K]`, 0 where they are not in use; the inverse of `used`."""
        return part_OU if self.ids is None else torch.zeros_like(like_OK).index_copy_(1, self.ids, part_OU)

    def joined(self, offsets: Tensor) -> Tensor:
        """Return sum_j u_j D_j `[U, U]` of the offsets D of all related tasks."""
        wide = self.columns.shape[1]
        flat = offsets.new_zeros(wide * wide).scatter_add_(0, self.cells, (offsets * self.units).flatten())
        return flat.view(wide, wide)

    def apart(self, slope_UU: Tensor) -> Tensor:
        """Return the gradient by the offsets `[most, room, room]` from the one by `joined`."""
        return slope_UU.flatten().index_select(0, self.cells).view_as(self.units).mul_(self.units)


@final
@dataclass(slots=True, eq=False)
class Felt:
    """What a backward pass says of one layer, in coordinates of its memory.

    Args:
        gradient: The product of the gradient of [W | b] with the memory `[O, K]`, None if it was not computed.
        through: What the gradient lacks along the memory: the part that comes through scales of free columns.
    """

    gradient: Tensor | None = None
    through: Tensor | None = None

    def add(self, gradient_OK: Tensor, through_OK: Tensor | None) -> None:
        """Count in another pass through the layer."""
        self.gradient = gradient_OK if self.gradient is None else self.gradient + gradient_OK
        if through_OK is not None:
            self.through = through_OK if self.through is None else self.through + through_OK


@final
@dataclass(frozen=True, slots=True)
class Rail:
    """Where a layer is held while a task is trained that scales it.

    Args:
        memory: Orthonormal columns `[I, K]`.
        held: [W | b] M `[O, K]`.
        along: The columns in use.
        outputs: Rows, from the first, whose coordinates are constants.
        free: Columns that are not constant in these rows either `[K]`; None is none.
        loose: All of them.
    """

    memory: Tensor
    held: Tensor
    along: Along
    outputs: int
    free: Tensor | None
    loose: bool = False

    def through(self, felt_OU: Tensor, scales_UU: Tensor) -> Tensor | None:
        """Return the gradient by the coordinates `[O, U]` that comes through scaling them, None if none may move."""
        if self.free is None and self.outputs >= len(self.held):
            return None
        found = felt_OU @ scales_UU.T
        if self.loose:
            return found
        found[: self.outputs] *= 0 if self.free is None else self.along.used(self.free[None])
        return found


def cheaper(layer: Layer, samples: int) -> bool:
    """Return whether a layer scales its answers to so many inputs in fewer operations than its weights."""
    outputs, inputs = layer.weight.shape[0], layer.weight.shape[1:].numel()
    return not isinstance(layer, nn.Conv2d) and samples * (inputs + 2 * outputs) < 2 * outputs * inputs


def scaled_now(layer: Layer, offsets: Tensor, rail: Rail, felt: Felt | None = None) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of W + sum_j u_j (W B_j) D_j B_j'; gradients flow to D, and to W where it may move.

    Args:
        layer: Its weight and bias.
        offsets: D = Q - I of each related task, `[most, room, room]`; what is beyond its basis is not used.
        rail: Where the layer is held, and what it is scaled along.
        felt: Takes what W's gradient has along the memory and lacks there, if the layer is asked for nothing else; None
            leaves W's gradient complete.
    """
    made: tuple[Tensor, Tensor | None] = Scale.apply(layer.weight, layer.bias, offsets, rail, felt)
    return made


def answer_now(y: Tensor, x: Tensor, offsets: Tensor, rail: Rail, felt: Felt) -> Tensor:
    """Return what a linear layer would answer with the weights of `scaled_now`, from what it answers without them.

    Args:
        y: The layer's answers `[..., O]`.
        x: Its inputs `[..., I]`, without the 1 of the bias.
        offsets: As in `scaled_now`.
        rail: As in `scaled_now`.
        felt: As in `scaled_now`.
    """
    made: Tensor = Sense.apply(y, x, offsets, rail, felt)
    return made


class Scale(torch.autograd.Function):
    """The product of `scaled_now`, with a backward pass that leaves out what would be taken out of the step anyway."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        weight: Tensor,
        bias: Tensor | None,
        offsets: Tensor,
        rail: Rail,
        felt: Felt | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the scaled weight and bias."""
        known, scales = rail.along.used(rail.held), rail.along.joined(offsets)
        ctx.save_for_backward(known, scales)
        ctx.rail, ctx.felt, ctx.biased = rail, felt, bias is not None
        return plus(weight, bias, known @ scales, rail.along.columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return gradients of the weight, the bias and the offsets, from those of the scaled weight and bias."""
        known, scales = ctx.saved_tensors
        along, bias = ctx.rail.along, bias if ctx.biased else None
        whole = inside(weight, bias, ctx.rail.memory)
        felt = along.used(whole)
        through = ctx.rail.through(felt, scales)
        if ctx.felt is not None:
            ctx.felt.add(whole, None if through is None else along.spread(through, whole))
        elif through is not None:
            weight, bias = plus(weight, bias, through, along.columns)
        return weight, bias, along.apart(known.T @ felt), None, None


class Sense(torch.autograd.Function):
    """The product of `answer_now`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        y: Tensor,
        x: Tensor,
        offsets: Tensor,
        rail: Rail,
        felt: Felt,
    ) -> Tensor:
        """Return the scaled answers."""
        memory, along, rows = rail.memory, rail.along, x.flatten(0, -2)
        where = rows @ memory if len(memory) == x.shape[-1] else torch.addmm(memory[-1], rows, memory[:-1])
        known, scales = along.used(rail.held), along.joined(offsets)
        extra = known @ scales
        ctx.save_for_backward(where, known, scales, extra)
        ctx.rail, ctx.felt, ctx.wide = rail, felt, x.shape
        return torch.addmm(y.flatten(0, -2), along.used(where), extra.T).view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return gradients of the answers, the inputs and the offsets; note the coordinates of the weight's."""
        where, known, scales, extra = ctx.saved_tensors
        rail, along, rows = ctx.rail, ctx.rail.along, slope.flatten(0, -2)
        whole = rows.T @ where
        felt = along.used(whole)
        through = rail.through(felt, scales)
        ctx.felt.add(whole, None if through is None else along.spread(through, whole))
        back = None
        if ctx.needs_input_grad[1]:
            back = ((rows @ extra) @ along.columns[: ctx.wide[-1]].T).view(ctx.wide)
        return slope, back, along.apart(known.T @ felt), None, None
