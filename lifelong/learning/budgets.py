"""What one step may cost, as an input: a strategy rehearses fewer old samples instead of going beyond it.

Operations and bytes are those of the model's forward and backward pass, counted on one and on three samples whenever
the model has changed its size, so they are the same on every machine, and a run that they cut is bit-identical when it
is repeated. Seconds are measured: a run that they cut is not.

Differs: new samples are always learned, also where they alone are beyond the budget (counted as `over_budget`); what a
    strategy computes besides rehearsing (look-aheads, gradients on a memory, consolidation) is not in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from lifelong import ranges
from lifelong.learning.allowance import Allowance
from lifelong.learning.strategy import Strategy
from lifelong.models import Classifier
from lifelong.ranges import setting
from lifelong.types import Batch

FADE = 0.9  # of the measured seconds for each sample


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one step may cost; 0 is no limit.

    Args:
        flops: Floating-point operations of the forward and backward pass.
        bytes: Of activations that are kept for the backward pass.
        seconds: Time; a run that is cut by it is not repeated bit for bit.
    """

    flops: float = setting(0.0, minimum=0)
    bytes: int = setting(0, minimum=0)
    seconds: float = setting(0.0, minimum=0)

    def __post_init__(self) -> None:
        ranges.check(self)

    def __bool__(self) -> bool:
        return any((self.flops, self.bytes, self.seconds))

    @property
    def deterministic(self) -> bool:
        """Whether the same stream gives the same bits."""
        return not self.seconds


@final
class Spending:
    """Keeps the steps of one learner within a budget.

    Args:
        budget: Of each step.

    Attributes:
        counters: What a learner counts besides: old samples that were wanted and left out, and steps whose new samples
            alone were beyond the budget.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.counters = {"left_out": 0, "over_budget": 0} if budget else {}
        self._size = -1  # of the model whose costs are known
        self._flops, self._bytes = (0.0, 0.0), (0.0, 0.0)  # for no sample, and for each
        self._seconds, self._began = 0.0, 0.0
        self._allowance, self._over = Allowance(0), False

    def before(self, strategy: Strategy, model: Classifier, batch: Batch) -> None:
        """Tell `strategy` how many old samples may follow `batch`."""
        if not self.budget:
            return
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if size != self._size:
            self._size = size
            (flops, kept), (flops_3, kept_3) = cost(model, batch, 1), cost(model, batch, 3)
            self._flops, self._bytes = _line(flops, flops_3), _line(kept, kept_3)
        room = self._room()
        self._over = room < len(batch)
        left = 2**31 if room == math.inf else max(0, int(room) - len(batch))
        self._allowance = Allowance(left)
        for part in strategy.parts:
            part.allowance = self._allowance
        self._began = time.perf_counter()

    def after(self, samples: int, counters: dict[str, int]) -> None:
        """Count what was left out of a step on `samples` samples, new and old."""
        if not self.budget:
            return
        each = (time.perf_counter() - self._began) / samples
        self._seconds = FADE * self._seconds + (1 - FADE) * each if self._seconds else each
        counters["left_out"] += self._allowance.left_out
        counters["over_budget"] += self._over

    def _room(self) -> float:
        """Return how many samples a step may have."""
        limits = [
            (limit - fixed) // each
            for limit, (fixed, each) in ((self.budget.flops, self._flops), (self.budget.bytes, self._bytes))
            if limit and each
        ]
        if self.budget.seconds and self._seconds:
            limits.append(self.budget.seconds // self._seconds)
        return min(limits, default=math.inf)


def cost(model: Classifier, batch: Batch, samples: int) -> tuple[int, int]:
    """Return operations, and bytes kept, of a forward and backward pass over copies of a batch's first sample.

    Nothing of the model changes, and nothing is drawn.

    Args:
        model: Whose cost it is.
        batch: Of at least one sample.
        samples: How many copies.
    """
    from torch.utils.flop_counter import FlopCounterMode  # takes a while to load

    weights = [p for p in model.parameters() if p.requires_grad]
    rows = torch.zeros(samples, dtype=torch.int64, device=batch.x.device)
    small, kept = batch.take(rows), dict[int, int]()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        where = tensor.untyped_storage().data_ptr()
        if where not in own:
            kept[where] = tensor.untyped_storage().nbytes()
        return tensor

    with _still(model), FlopCounterMode(display=False) as counted, saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(model(small.x, small.task).logits, small.y)
        torch.autograd.grad(loss, weights, allow_unused=True)
    return counted.get_total_flops(), sum(kept.values())


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Have a model in eval mode for a while: nothing is drawn or counted."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _line(one: float, three: float) -> tuple[float, float]:
    """Return cost of no sample and of each, from those of one and of three."""
    each = (three - one) / 2
    return one - each, each
