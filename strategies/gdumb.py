"""GDumb: learn nothing from the stream but a class-balanced memory, and train a new model on that.

Source: Prabhu, Torr, Dokania 2020, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning".
Differs: the model is trained at the end of each experience instead of whenever it is asked; no CutMix; 30 passes by
    default instead of 256. With room for the whole stream it is training from scratch on everything seen so far.
Checked: the model depends on the memory alone, not on what the weights were before; balance (tests/test_gdumb.py).
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import ClassBalanced, Needs
from lifelong.learning.inputs import answered
from lifelong.learning.optimizers import trained
from lifelong.learning.remembering import Remembering
from lifelong.learning.strategy import KINDS, State
from lifelong.models import Classifier, build
from lifelong.types import Batch, Experience


@final
class GDumb(Remembering):
    """Freeze the model while samples come; at the end of an experience train a fresh one on the memory alone.

    Weights that were frozen before (an encoder's) stay as they are built. The learner's optimizer is not used.

    Args:
        capacity: Samples kept, of all classes together, in equal shares.
        epochs: Passes over the memory.
        lr: Learning rate at the start; it falls to a hundredth along half a cosine, as in the paper.
        momentum: Of SGD, 0..1.
        batch_size: Samples per step.
        seed: Of the memory, the fresh weights and the order of samples.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=KINDS - {"online"})
    owns = frozenset({"weights"})
    trains_late = True

    def __init__(
        self,
        capacity: int = 1000,
        epochs: int = 30,
        lr: float = 0.05,
        momentum: float = 0.9,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        if epochs < 1 or batch_size < 1 or not lr > 0 or not 0 <= momentum < 1:
            raise ConfigError(
                f"need epochs and batch_size >= 1, lr > 0 and 0 <= momentum < 1, "
                f"got epochs={epochs}, batch_size={batch_size}, lr={lr}, momentum={momentum}"
            )
        super().__init__(ClassBalanced(capacity, seed))
        self.epochs, self.lr, self.momentum, self.batch_size, self.seed = epochs, lr, momentum, batch_size, seed
        self.random = torch.Generator().manual_seed(seed)
        self.trains: list[str] = []

    def adapt(self, model: nn.Module) -> None:
        """Freeze everything: the stream is only sampled."""
        self.trains = list(trained(model))
        model.requires_grad_(False)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Draw fresh weights and train them on the memory."""
        super().end(model, experience)
        if len(self.memory):
            assert isinstance(model, Classifier)
            fresh = build(model.spec(), seed=self.seed)
            model.load_state_dict(fresh.state_dict())
            self._train(model, self.memory.store.all)

    def state(self) -> State:
        """Return the memory, the order's generator and how far the first pass is."""
        return {**super().state(), "random": self.random.get_state()}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        super().restore(state)
        self.random.set_state(state["random"])

    def _train(self, model: nn.Module, memory: Batch) -> None:
        weights = [p for name, p in model.named_parameters() if name in self.trains]
        memory = memory.to(weights[0].device)
        optimizer = torch.optim.SGD(weights, lr=self.lr, momentum=self.momentum)
        for p in weights:
            p.requires_grad_(True)
        for epoch in range(self.epochs):
            share = 0.01 + 0.99 * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            optimizer.param_groups[0]["lr"] = self.lr * share
            for rows in torch.randperm(len(memory), generator=self.random).split(self.batch_size):
                batch = memory.take(rows.to(memory.y.device))
                optimizer.zero_grad()
                F.cross_entropy(answered(model, model(batch.x, batch.task).logits, batch.task), batch.y).backward()
                optimizer.step()
        optimizer.zero_grad()
        for p in weights:
            p.requires_grad_(False)
