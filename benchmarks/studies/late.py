"""Our rehearsal with Avalanche's timing: a memory that takes an experience in when it has ended."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from lifelong.learning import Strategy
from lifelong.models import outputs
from lifelong.types import Batch, Experience, Output


@final
class Late(Strategy):
    """A strategy with a memory whose `observe` waits for the end; it gets the features and logits of that time.

    Args:
        inner: `replay`, `der` or `derpp`.
    """

    def __init__(self, inner: Any) -> None:  # noqa: ANN401
        self.inner = inner
        self.waiting: list[Batch] = []  # the first pass over the running experience
        self.room = 0

    def begin(self, model: nn.Module, experience: Experience) -> None:
        self.inner.begin(model, experience)
        self.waiting, self.room = [], len(experience.train)  # type: ignore[arg-type]

    def augment(self, batch: Batch) -> Batch:
        mixed: Batch = self.inner.augment(batch)
        return mixed

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        loss: Tensor | None = self.inner.loss(model, batch, out)
        return loss

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        if self.room > 0:
            self.waiting.append(batch)
            self.room -= len(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        every = Batch.cat(self.waiting)
        self.inner.observe(model, every, outputs(model, every.x))
        self.inner.end(model, experience)
