"""What one layer knows of the tasks that it was trained on: spans to hold still, and scales along them.

O outputs, I inputs of a layer seen as one matrix [W | b], K columns of its memory M.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from lifelong.models.layers import Layer
from lifelong.models.products import add, follow, hold, take_out
from lifelong.models.rails import Felt

Pull = tuple[Tensor, Tensor]  # numbers of columns [k] i64, some perhaps twice, and what is added to them [O, k]


@final
@dataclass(slots=True)
class Record:
    """What one layer knows of the tasks that are finished, by task id.

    Args:
        memory: Orthonormal columns `[I, K]`.
        own: Which of them are a task's own basis, `[k]` int32.
        related: Along the bases of which older tasks a task's weights are scaled.
        offsets: Q - I `[k, k]` for each of these.
        held: [W | b] M `[O, K]`, where training holds the shared weights along the memory.
        outputs: Rows of W, from the first, that are held; later ones (columns of new classes) are free.
        free: Which columns of the memory are free all the same `[K]` bool; None is none.
        loose: Whether these are all columns.
        units: 1 / |W B|, at most 1, of each task that the running task is related to: while it is trained, Q - I counts
            in these, so that a step along Q moves the answers as far as a step of W does, not |W B| squared times.
        felt: What the last backward pass said of the layer; taken by `correct`.
    """

    memory: Tensor
    own: dict[int, Tensor] = field(default_factory=dict)
    related: dict[int, list[int]] = field(default_factory=dict)
    offsets: dict[int, list[Tensor]] = field(default_factory=dict)
    held: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    outputs: int = 0
    free: Tensor | None = None
    loose: bool = False
    units: list[float] = field(default_factory=list)
    felt: Felt = field(default_factory=Felt)

    def basis(self, task: int) -> Tensor:
        """Return the own basis `[I, k]` of a finished task."""
        return self.memory[:, self.own[task].to(self.memory.device).long()]

    def keep(self, layer: Layer) -> None:
        """Put the layer back to where it was along the memory, as far as it is not free."""
        self.held = follow(layer, self.memory, self.held)
        hold(layer, self.memory, self.held, self.outputs, self.free)

    def correct(self, layer: Layer, rate: float | None, pull: Pull | None = None) -> None:
        """Finish the layer's gradient after a backward pass.

        Args:
            layer: Whose gradient is there.
            rate: What the step multiplies it with; then it is projected, and `keep` has nothing left to do. None if the
                step is not a multiple of it.
            pull: A gradient to add along the memory, of columns that are free.
        """
        felt, self.felt = self.felt, Felt()
        more = felt.through
        if pull is not None:
            columns, part = pull
            more = torch.zeros_like(self.held) if more is None else more
            (more if len(part) == len(more) else more[: len(part)]).index_add_(1, columns, part)
        if rate is not None:
            self.held = follow(layer, self.memory, self.held)
            given = {"felt_OK": felt.gradient, "more_OK": more}
            moved = take_out(layer, self.memory, self.outputs, self.free, loose=self.loose, **given)
            if moved is not None:
                self.held.add_(moved, alpha=-rate)
        elif more is not None and layer.weight.grad is not None:
            add(layer.weight.grad, None if layer.bias is None else layer.bias.grad, more, self.memory)
