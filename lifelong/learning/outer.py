"""Folded gradients of single samples in one backward pass, for models whose weights are all in linear layers.

A sample's gradient by a linear layer's weight is the outer product of the slope at the layer's output and its input.
The square (or size) of an outer product is the outer product of the squares (or sizes), so their sum over samples is
one matrix product of what an ordinary backward pass has at hand. No gradient of a single sample is ever written out.

Source: Goodfellow 2015, "Efficient Per-Example Gradient Computations".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from lifelong.learning.analytic import Stack
from lifelong.learning.inputs import answered
from lifelong.models.heads import LinearHead
from lifelong.types import Batch, Output

FOLDS = (torch.square, torch.abs)  # fold(d * a) is fold(d) * fold(a)


def summed(
    model: nn.Module, rows: Batch, value: Callable[[Output, Tensor], Tensor], fold: Callable[[Tensor], Tensor]
) -> dict[str, Tensor] | None:
    """Return the sum over samples of `fold(d value / d w)` for each trained parameter w, by name.

    Args:
        model: Looks at each sample by itself (no batch statistics).
        rows: N samples on the model's device.
        value: Of N samples, each by itself: their outputs and class indices -> `[N]`.
        fold: One of `FOLDS`.

    Returns:
        None if that cannot be had this way: weights elsewhere than in linear layers, or a layer that did not
        see each sample once.
    """
    every = {name: p for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    layers = {name: model.get_submodule(name) for name in dict.fromkeys(name.rpartition(".")[0] for name in every)}
    if fold not in FOLDS or not all(isinstance(m, nn.Linear | LinearHead) for m in layers.values()):
        return None
    mine = {
        f"{name}.{part}" for name, m in layers.items() for part in ("weight", "bias") if getattr(m, part) is not None
    }
    if mine != every.keys() or len(set(map(id, every.values()))) < len(every):  # under two names it is used twice
        return None
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[name].append((inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(partial(note, name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            out = model(rows.x, rows.task)
            logits = answered(model, out.logits, rows.task)
            total = value(Output(out.features, logits), rows.y).sum()
    finally:
        for hook in hooks:
            hook.remove()
    if not all(len(calls) == 1 and calls[0][0].dim() == 2 for calls in seen.values()):
        return None
    slopes = torch.autograd.grad(total, [calls[0][1] for calls in seen.values()])
    found: dict[str, Tensor] = {}
    for (name, [(given, _)]), slope in zip(seen.items(), slopes, strict=True):
        folded = fold(slope)
        found[f"{name}.weight"] = folded.T @ fold(given)
        found[f"{name}.bias"] = folded.sum(0)
    return {name: found[name] for name in every}


@torch.no_grad()
def stacked(
    stack: Stack, rows: Batch, value: Callable[[Output, Tensor], Tensor], fold: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return what `summed` would, of a stack and one of `FOLDS`: only `value` itself goes through autograd."""
    given, logits = stack.forward(rows.x)
    ends = [given[-1].detach().requires_grad_(), logits.requires_grad_()]
    with torch.enable_grad():
        total = value(Output(ends[0], answered(stack.model, ends[1], rows.task)), rows.y).sum()
    by_features, by_logits = torch.autograd.grad(total, ends, allow_unused=True)
    by_logits = torch.zeros_like(logits) if by_logits is None else by_logits
    found: dict[int, Tensor] = {}
    for place, slope in stack.slopes(given, by_logits, by_features):
        own, folded = stack.layers[place], fold(slope)
        found[id(own["weight"])], found[id(own["bias"])] = folded.T @ fold(given[place]), folded.sum(0)
    return {name: found[id(p)] for name, p in stack.weights.items()}
