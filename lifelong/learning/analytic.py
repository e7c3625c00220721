"""A step's gradients by hand: the calls of torch that autograd would make, without a graph between them.

    x -> linear -> ReLU -> ... -> linear -> features -> linear head -> logits -> cross-entropy

Each gradient comes from the same operation on the same operands as in autograd, so all bits are the same. What is left
out is the graph: in a small model it takes more time to record and walk it than to multiply. What a strategy adds to
the loss still goes through autograd, down to features, logits and weights; from there it goes on by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from lifelong.learning.inputs import answered
from lifelong.learning.optimizers import trained
from lifelong.learning.ranks import Ranks
from lifelong.learning.strategy import Strategy
from lifelong.models import Classifier
from lifelong.models.heads import LinearHead
from lifelong.models.networks import MLP
from lifelong.types import Batch, Output

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
aten = torch.ops.aten
nll, nll_back = aten.nll_loss_forward.default, aten.nll_loss_backward.default
log_softmax, log_softmax_back = torch._log_softmax, torch._log_softmax_backward_data
relu_back = aten.threshold_backward.default


@final
class Stack:
    """Linear layers, one after the other, that are all of a classifier that trains.

    Args:
        model: The classifier.
        layers: These layers, in order, the head last.
        active: Whether a ReLU follows each of them.
        weights: Their parameters by name, in the model's order.
    """

    def __init__(
        self, model: Classifier, layers: list[nn.Module], active: list[bool], weights: dict[str, nn.Parameter]
    ) -> None:
        self.model, self.active, self.weights = model, active, weights
        self.layers: list[dict[str, Any]] = [m._parameters for m in layers]  # asked as attributes they take longer
        self._hooks = [m.__dict__[kind] for m in (model, model.backbone, *layers) for kind in HOOKS]

    @classmethod
    def of(cls, model: nn.Module) -> Stack | None:
        """Return what trains in `model`, on the CPU; None if that is anything but such a stack."""
        if type(model) is not Classifier or type(model.head) is not LinearHead or model.scaling is not None:
            return None
        body, weights = model.backbone, trained(model)
        every = {id(p) for p in weights.values()}
        moves = any(id(p) in every for p in body.parameters())
        steps: list[tuple[nn.Module, bool]] = [*body.linear()] if moves and type(body) is MLP else []
        steps.append((model.head, False))
        layers, active = [layer for layer, _ in steps], [bent for _, bent in steps]
        mine = [p for layer in layers for p in layer._parameters.values() if p is not None]
        if len(mine) != len(every) or {id(p) for p in mine} != every or any(p.device.type != "cpu" for p in mine):
            return None
        return cls(model, layers, active, weights)

    @property
    def whole(self) -> bool:
        """Whether these layers are all of the model: then it answers the same in training and in eval mode."""
        return len(self.layers) > 1

    @property
    def watched(self) -> bool:
        """Whether somebody listens to modules or weights, or computes in other types: then only autograd will do."""
        if any(self._hooks) or _has_any_global_hook() or torch.is_autocast_enabled("cpu"):
            return True
        weights = [p for own in self.layers for p in own.values()]
        return any(p._backward_hooks or p._post_accumulate_grad_hooks or not p.requires_grad for p in weights)

    @torch.no_grad()
    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what each layer is given `[N, I]` (the head, last: the features) and the logits `[N, C]`."""
        x, given = x.flatten(1) if self.whole else self.model.backbone(x), []
        for own, active in zip(self.layers, self.active, strict=True):
            given.append(x)
            x = F.linear(x, own["weight"], own["bias"])
            x = x.relu_() if active else x
        return given, x

    def slopes(
        self, given: list[Tensor], by_logits: Tensor, by_features: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the slope at the output of each layer `[N, O]`, and its place, from the head down."""
        slope = by_logits
        for place in range(len(self.layers) - 1, -1, -1):
            if self.active[place]:
                slope = relu_back(slope, given[place + 1], 0)
            yield place, slope
            if place:
                slope = slope.mm(self.layers[place]["weight"])
            if by_features is not None:
                slope, by_features = slope.add_(by_features), None

    def loss(self, strategy: Strategy, batch: Batch) -> tuple[Output, Tensor, Callable[[], None]]:
        """Return the outputs, the cross-entropy and what `strategy` adds to it, and what writes the gradients of both.

        Args:
            strategy: One that `suits`.
            batch: N samples.
        """
        given, logits = self.forward(batch.x)
        out, allowed = Output(given[-1], logits), self.model.allowed
        others = None if allowed is None else ~allowed[batch.task]
        loss, slope = cross_entropy(logits if others is None else logits.masked_fill(others, -torch.inf), batch.y)
        slope = slope if others is None else slope.masked_fill_(others, 0)
        if not _own(strategy, "penalty"):
            return out, loss, partial(self._write, given, slope)
        known = None if "penalty" in strategy.__dict__ else strategy.weight_penalty(self.weights)
        if known is not None:
            return out, loss + known[0], partial(self._write, given, slope, None, known[1])
        ends = Output(given[-1].detach().requires_grad_(), logits.detach().requires_grad_())
        extra = strategy.penalty(self.model, batch, ends)
        if extra is None:
            return out, loss, partial(self._write, given, slope)

        def back() -> None:
            if extra.requires_grad:
                extra.backward()
            self._write(given, _sum(slope, ends.logits.grad), ends.features.grad)

        return out, loss + extra.detach(), back

    @torch.no_grad()
    def _write(
        self,
        given: list[Tensor],
        by_logits: Tensor,
        by_features: Tensor | None = None,
        more: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the gradients, or add them to those that are there."""
        for place, slope in self.slopes(given, by_logits, by_features):
            own = self.layers[place]
            own["bias"].grad = _sum(slope.sum(0), own["bias"].grad)
            own["weight"].grad = _sum(slope.t().mm(given[place]), own["weight"].grad)
        if more:
            there = [g for name in more if (g := self.weights[name].grad) is not None]  # all of them, by now
            slopes: list[Tensor] = list(more.values())
            torch._foreach_add_(there, slopes)


@torch.no_grad()
def cross_entropy(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of logits `[N, C]` at class indices `[N]`, and its slope by the logits."""
    likely = log_softmax(logits, 1, False)
    loss, weight = nll(likely, y, None, 1, -100)
    by_likely = nll_back(torch.ones_like(loss), likely, y, None, 1, -100, weight)
    return loss, log_softmax_back(by_likely, likely, 1, logits.dtype)


def loss_of(
    stack: Stack | None, ranks: Ranks, strategy: Strategy, model: nn.Module, batch: Batch
) -> tuple[Output, Tensor, Callable[[], None]]:
    """Return outputs, loss and what writes its gradients: by hand where there is a stack that will do, else by torch.

    Args:
        stack: That `model` is, None if it is none.
        ranks: Who passes over the batch.
        strategy: What may replace the cross-entropy, and add to it.
        model: Trained.
        batch: N samples.
    """
    if stack is not None and not stack.watched and suits(strategy):
        return stack.loss(strategy, batch)
    out = ranks.forward(model, batch)
    logits = answered(model, out.logits, batch.task)
    loss = strategy.loss(model, batch, Output(out.features, logits))
    loss = F.cross_entropy(logits, batch.y) if loss is None else loss
    extra = strategy.penalty(model, batch, out)
    loss = loss if extra is None else loss + extra
    return out, loss, loss.backward


def suits(strategy: Strategy) -> bool:
    """Return whether a strategy leaves the loss as it is, and adds to it nothing but what its arguments say."""
    return not any(
        _own(part, "loss") or (_own(part, "penalty") and not part.needs.distributed) for part in strategy.parts
    )


def _own(part: Strategy, hook: str) -> bool:
    return getattr(getattr(part, hook), "__func__", None) is not getattr(Strategy, hook)


def _sum(one: Tensor, other: Tensor | None) -> Tensor:
    return one if other is None else one + other
