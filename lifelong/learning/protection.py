"""Layers of a model under protection: what they saw of a task, and steps that old inputs do not feel.

Shapes: O outputs, I inputs of a layer seen as one matrix [W | b] (`lifelong.models.layers`), K basis vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.learning.projection import added
from lifelong.models import layers as matrices
from lifelong.models.layers import layers
from lifelong.types import Batch

ROWS = 64  # samples per pass: patches of a convolution are many times larger than its input


@final
class Energy:
    """Which share of a layer's input energy is to be protected after each task.

    Args:
        threshold: Share (0..1), of all layers or of each in the model's order (then the last one is for the rest);
            0 protects nothing.
        growth: Added for each task that was finished before, up to a share of 1.

    Raises:
        ConfigError: A share is out of range.
    """

    def __init__(self, threshold: float | Sequence[float], growth: float) -> None:
        shares = [threshold] if isinstance(threshold, int | float) else list(threshold)
        if not shares or not all(0 <= share <= 1 for share in shares) or not 0 <= growth <= 1:
            raise ConfigError(f"need threshold and growth in 0..1, got threshold={threshold}, growth={growth}")
        self.shares, self.growth = shares, growth

    def at(self, layer: int, finished: int) -> float:
        """Return the share for the layer of that position after `finished` earlier tasks."""
        share = self.shares[min(layer, len(self.shares) - 1)]
        return min(1.0, share + self.growth * finished) if share else 0.0


def grams(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the Gram matrix `[I, I]` float64 of each trained layer's inputs when `model` sees `batch`, by name."""
    found: dict[str, Tensor] = {}

    def note(name: str, layer: Any, inputs: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - a layer
        found[name] = added(found.get(name), matrices.rows(layer, inputs[0]))

    hooks = [layer.register_forward_pre_hook(partial(note, name)) for name, layer in layers(model).items()]
    try:
        with torch.no_grad(), evaluating(model):
            for x, task in _passes(model, batch):
                model(x, task)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def gradients(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the gradient `[O, I]` of the mean loss on `batch` for each trained layer, by name.

    Only classes that occur in the batch compete. Gradients that wait for a step are left as they are.
    """
    named = layers(model)
    wanted = [p for layer in named.values() for p in layer.parameters(recurse=False)]
    total = [torch.zeros_like(p) for p in wanted]
    y, absent = batch.y.to(wanted[0].device), None
    with torch.enable_grad(), evaluating(model):
        for x, task in _passes(model, batch):
            logits = model(x, task).logits
            if absent is None:
                absent = torch.ones(logits.shape[1], dtype=torch.bool, device=y.device)
                absent[y] = False
            loss = F.cross_entropy(logits.masked_fill(absent, -torch.inf), y[: len(x)], reduction="sum") / len(batch)
            y = y[len(x) :]
            for sum_, g in zip(total, torch.autograd.grad(loss, wanted), strict=True):
                sum_ += g
    by_id = dict(zip(map(id, wanted), total, strict=True))
    return {
        name: matrices.joined(by_id[id(m.weight)], None if m.bias is None else by_id[id(m.bias)])
        for name, m in named.items()
    }


def others(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are neither a layer's matrix nor a task's own (normalisation), by name."""
    shielded = {f"{name}.{part}" for name in layers(model) for part in ("weight", "bias")}
    named = model.named_parameters()
    return {name: p for name, p in named if name not in shielded and not name.startswith("scaling.")}


@torch.no_grad()
def freeze(parameters: Mapping[str, nn.Parameter], before: Mapping[str, Tensor]) -> None:
    """Take the last step of these parameters back; `before` holds what they were."""
    for name, p in parameters.items():
        if name in before:
            p.copy_(before[name])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode for a while."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _passes(model: nn.Module, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    for start in range(0, len(batch), ROWS):
        part = batch[start : start + ROWS]
        yield part.x.to(device), part.task.to(device)
