"""Learning without forgetting: on new samples, keep saying of old classes what the previous model said.

Source: Li and Hoiem 2016, "Learning without Forgetting", section 3 (temperature 2, weight 1).
Differs: the divergence is multiplied by T^2 (Hinton et al. 2015), so that `pull` means the same at every temperature;
    all weights train from the first step (no warm-up of the new columns alone); without task ids old classes are all
    columns that the previous model had. Rehearsed samples of a chain are distilled too.
Checked: the loss against torch's own KL divergence, and that the previous model is a frozen copy (tests/test_lwf.py);
    pull 0 equals naive bit for bit (laws).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.frozen import Frozen
from lifelong.learning.strategy import State
from lifelong.models import Classifier
from lifelong.types import Batch, Experience, Output


@final
class LwF(Strategy):
    """Add pull * T^2 * KL(previous model || model) over the previous model's classes, both softened by T.

    In a task-incremental setting it is the sum over old tasks, each among its own classes, as with a head per task.

    Args:
        pull: lambda; 0 leaves it out.
        temperature: T, > 0.
    """

    needs = Needs(
        distributed=True, boundaries=True, scenarios=frozenset({"class-il", "domain-il", "data-il", "task-il"})
    )
    uses = frozenset({"head"})
    strength = "pull"
    exempt = {  # noqa: RUF012 - a constant
        "beats naive": "at this law's learning rate distilling swamps what is new; see the claims for tuned pulls"
    }

    def __init__(self, pull: float = 1.0, temperature: float = 2.0) -> None:
        if pull < 0 or not temperature > 0:
            raise ConfigError(f"need pull >= 0 and temperature > 0, got pull={pull}, temperature={temperature}")
        self.pull, self.temperature, self.previous = pull, temperature, Frozen()
        self.heads: Tensor | None = None  # [T, C] of the previous model: the classes of each task, if it knew tasks

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the divergence, None before the first experience has ended."""
        if not self.pull or not self.previous:
            return None
        old = self.previous(batch.x, batch.task).logits / self.temperature
        new = out.logits[:, : old.shape[1]] / self.temperature
        every = [_kl(old, new)] if self.heads is None else [_kl(old[:, own], new[:, own]) for own in self.heads]
        return self.pull * self.temperature**2 * torch.stack(every).sum()

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Remember the model as the previous one."""
        if self.pull:
            assert isinstance(model, Classifier)
            self.previous.take(model)
            rows = model.allowed
            self.heads = None if rows is None else rows[:-1][rows[:-1].any(1)]

    def state(self) -> State:
        """Return the previous model, and its tasks' classes."""
        return {"previous": self.previous.state(), **({} if self.heads is None else {"heads": self.heads})}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.previous.restore(state["previous"])
        self.heads = state.get("heads")


def _kl(old: Tensor, new: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(new, 1), F.log_softmax(old, 1), reduction="batchmean", log_target=True)
