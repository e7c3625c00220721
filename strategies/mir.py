"""Maximally interfered retrieval: rehearse the samples that the coming step would hurt most.

Source: Aljundi et al. 2019, "Online Continual Learning with Maximally Interfered Retrieval", section 3.1 (ER-MIR).
Differs: the memory is drawn from before the new batch enters it; only the first pass over an experience is offered to
    it; the look-ahead is a plain gradient step of its own size `rate`, whatever the optimizer does.
Checked: chosen samples against a look-ahead computed by really stepping a copy (tests/test_mir.py); ratio 0 equals
    naive bit for bit (laws).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Reservoir
from lifelong.learning.allowance import allowed
from lifelong.learning.inputs import answered
from lifelong.learning.optimizers import trained
from lifelong.learning.remembering import Remembering
from lifelong.types import Batch


@final
class InterferedReplay(Remembering):
    """Follow each batch by those of `candidates` remembered samples whose loss it would raise most.

    Needs no boundaries. Each step costs a backward pass on the batch and two forward passes on the candidates more.

    Args:
        capacity: Samples kept, over all classes and tasks.
        ratio: Remembered samples per new one; 0 never rehearses.
        candidates: Drawn uniformly, to choose from; a step rehearses no more than these.
        rate: Length of the look-ahead step per unit of gradient, > 0; best the learning rate.
        seed: Of the memory's own generator.
    """

    needs = Needs(distributed=True)
    strength = "ratio"

    def __init__(
        self, capacity: int = 1000, ratio: float = 1.0, candidates: int = 50, rate: float = 0.05, seed: int = 0
    ) -> None:
        if ratio < 0 or candidates < 1 or not rate > 0:
            raise ConfigError(
                f"need ratio >= 0, candidates >= 1 and rate > 0, "
                f"got ratio={ratio}, candidates={candidates}, rate={rate}"
            )
        super().__init__(Reservoir(capacity, seed))
        self.ratio, self.candidates, self.rate = ratio, candidates, rate
        self.model: nn.Module | None = None  # the learner's, to look ahead with

    def adapt(self, model: nn.Module) -> None:
        """Note which model is trained."""
        self.model = model

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by the round(ratio * N) most interfered candidates."""
        count = allowed(self.allowance, round(self.ratio * len(batch))) if len(self.memory) else 0
        if not count:
            return batch
        drawn = self.memory.draw(min(self.candidates, len(self.memory))).to(batch.x.device)
        assert self.model is not None, "adapt comes first"
        harm = interference(self.model, batch, drawn, self.rate)
        return Batch.cat([batch, drawn.take(harm.topk(min(count, len(drawn))).indices)])


def interference(model: nn.Module, batch: Batch, old: Batch, rate: float) -> Tensor:
    """Return how much a gradient step of `rate` on `batch` would raise the loss of each sample of `old`, `[N]`."""
    weights = trained(model)
    loss = F.cross_entropy(answered(model, model(batch.x, batch.task).logits, batch.task), batch.y)
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
    ahead = {name: p.detach() - rate * g for (name, p), g in zip(weights.items(), found, strict=True)}
    with torch.no_grad():
        said = model(old.x, old.task).logits, functional_call(model, ahead, (old.x, old.task)).logits
        now, then = (F.cross_entropy(answered(model, one, old.task), old.y, reduction="none") for one in said)
    return then - now
