"""Gradients of single samples, squared or not: what EWC, MAS and selective unlearning call importance.

A mean of squared gradients is not the square of a mean gradient: the latter depends on how samples were batched. All
functions here look at one sample at a time (vectorised, or by `lifelong.learning.outer` where all weights are in linear
layers), so the batch size changes the time and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.learning.analytic import Stack
from lifelong.learning.inputs import answered
from lifelong.learning.optimizers import trained
from lifelong.learning.outer import FOLDS, stacked, summed
from lifelong.types import Batch, Output

MODES = ("empirical", "expected")
Value = Callable[[Output, Tensor], Tensor]  # of N samples, each by itself: their outputs and class indices [N] -> [N]
Importance = dict[str, Tensor]


def fisher(model: nn.Module, batch: Batch, mode: str = "empirical", *, size: int = 32) -> Importance:
    """Return the diagonal of the Fisher information of each trained parameter, by name: mean over samples.

    `empirical` squares d log p(y | x) at the observed class; `expected` takes the expectation of that square over the
    classes the model itself believes in (C backward passes, and no labels needed).

    Args:
        model: In eval mode while this runs.
        batch: N >= 1 samples; `y` matters in `empirical` mode only.
        mode: `empirical` or `expected`.
        size: Samples at a time: memory is `size` times the parameters.

    Source: Martens 2020, "New Insights and Perspectives on the Natural Gradient Method", sections 5 and 11.
    """
    if mode not in MODES:
        raise UnknownName.among("Fisher mode", mode, MODES)

    def observed(out: Output, y: Tensor) -> Tensor:
        return -F.cross_entropy(out.logits, y, reduction="none")

    def believed(out: Output, y: Tensor) -> Tensor:  # sqrt(p) scales the gradient, hence its square by p
        log_p = -F.cross_entropy(out.logits, y, reduction="none")
        return log_p * (log_p.detach() / 2).exp()

    if mode == "empirical" or not len(batch):
        return mean_gradient(model, batch, observed, torch.square, size=size)
    total: Importance = {}
    with torch.no_grad():
        classes = model(batch.x[:1].to(_device(model)), batch.task[:1].to(_device(model))).logits.shape[1]
    for c in range(classes):
        as_if = Batch(batch.x, torch.full_like(batch.y, c), batch.ids, batch.task)
        part = mean_gradient(model, as_if, believed, torch.square, size=size)
        total = {name: total[name] + g if total else g for name, g in part.items()}
    return total


def sensitivity(model: nn.Module, batch: Batch, *, size: int = 32) -> Importance:
    """Return the mean over samples of |d ||logits||^2 / dw| of each trained parameter: no labels needed.

    Source: Aljundi et al. 2018, "Memory Aware Synapses", equations 2 and 5.
    """

    def square(out: Output, _: Tensor) -> Tensor:
        return out.logits.masked_fill(out.logits.isneginf(), 0.0).square().sum(1)

    return mean_gradient(model, batch, square, torch.abs, size=size)


def mean_gradient(
    model: nn.Module, batch: Batch, value: Value, fold: Callable[[Tensor], Tensor], *, size: int = 32
) -> Importance:
    """Return the mean over samples of `fold(d value / d w)` for each trained parameter w, by name.

    In a task-incremental setting `value` sees -inf for the logits of other tasks' classes.

    Raises:
        DataError: No samples.
        ConfigError: `size` is below 1.
    """
    if not len(batch):
        raise DataError("importance is a mean over samples, got none")
    if size < 1:
        raise ConfigError(f"size must be at least 1, got {size}")

    stack = Stack.of(model) if fold in FOLDS else None
    if stack is not None and stack.whole and not stack.watched:
        return _mean(model, batch, size, lambda rows: stacked(stack, rows, value, fold))
    training = model.training
    model.eval()
    found = _mean(model, batch, size, lambda rows: _added(model, rows, value, fold))
    model.train(training)
    return found


def _mean(model: nn.Module, batch: Batch, size: int, added: Callable[[Batch], Importance]) -> Importance:
    total: Importance = {}
    device = _device(model)
    for start in range(0, len(batch), size):
        part = added(batch[start : start + size].to(device))
        total = {name: total[name] + folded for name, folded in part.items()} if total else part
    return {name: t / len(batch) for name, t in total.items()}


def _added(model: nn.Module, rows: Batch, value: Value, fold: Callable[[Tensor], Tensor]) -> Importance:
    found = summed(model, rows, value, fold)
    if found is not None:
        return found

    def one(w: Importance, x: Tensor, y: Tensor, task: Tensor) -> Tensor:
        out = functional_call(model, w, (x[None], task[None]))
        return value(Output(out.features, answered(model, out.logits, task[None])), y[None])[0]

    weights = {name: p.detach() for name, p in trained(model).items()}
    each = vmap(grad(one), in_dims=(None, 0, 0, 0))(weights, rows.x, rows.y, rows.task)
    return {name: fold(g).sum(0) for name, g in each.items()}


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
