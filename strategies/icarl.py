"""iCaRL: exemplars chosen by herding, distillation while training, nearest mean of exemplars when asked.

Source: Rebuffi et al. 2017, "iCaRL: Incremental Classifier and Representation Learning", algorithms 1 to 5.
Differs: exemplars follow each batch by `ratio` instead of being mixed into the experience's data; herding chooses
    from a uniform sample of at most `pool` samples of the experience (exact up to that size), so that memory stays
    bounded; a class that comes back is herded again from its exemplars and the new samples together; room per class
    is capacity // classes. Class-incremental streams only: a known class is never taught anything new.
    Means follow the features at the end of each experience.
Checked: herding order against its definition, loss against a hand computation, answers against the nearest mean
    (tests/test_icarl.py).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Strategy
from lifelong.learning.allowance import allowed
from lifelong.learning.buffers import draw_rows, drawing
from lifelong.learning.frozen import Frozen
from lifelong.learning.samples import Sampled
from lifelong.learning.strategy import State, Undo
from lifelong.models import Classifier, outputs
from lifelong.models.exemplar import ExemplarHead
from lifelong.types import Batch, Experience, Output


def herded(features: Tensor, count: int) -> Tensor:
    """Return the rows `[count]` of unit `features` `[N, D]` whose running mean follows the mean of all best.

    Row k is the one that brings the mean of the first k nearest to the mean of all; no row comes twice.
    """
    z = F.normalize(features.double(), dim=1)
    mean, total, free = z.mean(0), torch.zeros_like(z[0]), torch.ones(len(z), dtype=torch.bool, device=z.device)
    chosen: list[int] = []
    for k in range(1, min(count, len(z)) + 1):
        far = (mean - (total + z) / k).square().sum(1).masked_fill(~free, torch.inf)
        chosen.append(int(far.argmin()))
        total, free[chosen[-1]] = total + z[chosen[-1]], False
    return torch.tensor(chosen, dtype=torch.int64, device=z.device)


@final
class ICaRL(Strategy):
    """Replace cross-entropy by sigmoid targets: the previous model's for classes it knew, one-hot for new ones.

    Args:
        capacity: Exemplars kept, of all classes together.
        ratio: Exemplars per new sample in a step.
        pool: Samples of the running experience that exemplars are chosen from at its end.
        seed: Of its own generators.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=frozenset({"class-il"}))
    owns = frozenset({"head"})

    def __init__(self, capacity: int = 1000, ratio: float = 1.0, pool: int = 2000, seed: int = 0) -> None:
        if capacity < 1 or ratio < 0:
            raise ConfigError(f"need capacity >= 1 and ratio >= 0, got capacity={capacity}, ratio={ratio}")
        self.capacity, self.ratio = capacity, ratio
        self.previous, self.running = Frozen(), Sampled(pool, seed)
        self.exemplars: dict[int, Batch] = {}  # by class index, best first
        self.random = torch.Generator().manual_seed(seed)

    def adapt(self, model: nn.Module) -> None:
        """Put a head on top that trains as a linear layer and answers as a nearest mean."""
        assert isinstance(model, Classifier)
        model.with_head("exemplar")

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the experience."""
        self.running.begin(experience)

    def undo(self) -> Undo:
        """Return what takes back the step's draw."""
        return drawing(self.random)

    def augment(self, batch: Batch) -> Batch:
        """Return `batch` followed by round(ratio * N) exemplars."""
        count = allowed(self.allowance, round(self.ratio * len(batch))) if self.exemplars else 0
        if not count:
            return batch
        every = Batch.cat(list(self.exemplars.values()))
        return Batch.cat([batch, every.take(draw_rows(len(every), count, self.random)).to(batch.x.device)])

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Return the binary cross-entropy summed over classes, mean over samples."""
        target = F.one_hot(batch.y, out.logits.shape[1]).to(out.logits)
        if self.previous:
            old = self._linear(batch.x, batch.task)
            target[:, : old.shape[1]] = old.sigmoid()
        return F.binary_cross_entropy_with_logits(out.logits, target, reduction="sum") / len(batch)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the experience's sample."""
        self.running.observe(batch)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Choose exemplars, move the means and remember the model as the previous one."""
        taken = self.running.end()
        if taken is not None:
            self._choose(model, taken.to("cpu"))
        for c, batch in self.exemplars.items():
            _head(model).place(c, self._features(model, batch))
        self.previous.take(model)

    def state(self) -> State:
        """Return exemplars, the previous model, the running sample and the generator's state."""
        return {
            "exemplars": {str(c): batch.state() for c, batch in self.exemplars.items()},
            "previous": self.previous.state(),
            "running": self.running.state(),
            "random": self.random.get_state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        kept = sorted(state["exemplars"].items(), key=lambda item: int(item[0]))
        self.exemplars = {int(c): Batch(**batch) for c, batch in kept}
        self.previous.restore(state["previous"])
        self.running.restore(state["running"])
        self.random.set_state(state["random"])

    def summary(self) -> dict[str, float]:
        """Return how many exemplars are kept."""
        return {"memory": float(sum(map(len, self.exemplars.values())))}

    def _choose(self, model: nn.Module, taken: Batch) -> None:
        seen = set(taken.y.tolist())
        room = self.capacity // len(seen | set(self.exemplars))
        kept = {c: batch[:room] for c, batch in self.exemplars.items()}
        for c in seen:
            mine = taken[taken.y == c]
            mine = Batch.cat([kept[c], mine]) if c in kept else mine
            kept[c] = mine.take(herded(self._features(model, mine), room))
        self.exemplars = {c: kept[c] for c in sorted(kept) if len(kept[c])}

    def _features(self, model: nn.Module, batch: Batch) -> Tensor:
        device = next(p.device for p in model.parameters())
        return outputs(model, batch.x, device=device).features

    def _linear(self, x: Tensor, task: Tensor) -> Tensor:
        """Return the previous model's linear logits: its answers are distances to means."""
        assert self.previous.model is not None
        logits: Tensor = _head(self.previous.model).linear(self.previous(x, task).features)
        return logits


def _head(model: nn.Module) -> ExemplarHead:
    assert isinstance(model, Classifier) and isinstance(model.head, ExemplarHead)
    return model.head
