"""Gradients as one vector `[P]`, in the order of the trained parameters; a parameter without one counts as zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from lifelong.learning.inputs import answered
from lifelong.learning.optimizers import trained
from lifelong.types import Batch


def current(model: nn.Module) -> Tensor:
    """Return the gradients that the last backward pass left."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained(model).values()])


def replace(model: nn.Module, vector: Tensor) -> None:
    """Write `vector` `[P]` over the gradients."""
    weights = list(trained(model).values())
    for p, part in zip(weights, vector.split([p.numel() for p in weights]), strict=True):
        p.grad = part.view_as(p).clone()


def of_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the gradient of the mean cross-entropy of `batch`; the gradients in place stay as they are.

    In a task-incremental setting a sample is compared with its own task's classes.
    """
    weights = list(trained(model).values())
    batch = batch.to(weights[0].device)
    loss = F.cross_entropy(answered(model, model(batch.x, batch.task).logits, batch.task), batch.y)
    found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def of_losses(model: nn.Module, batches: Sequence[Batch]) -> Tensor:
    """Return the gradient `[T, P]` of the mean cross-entropy of each of T >= 1 batches.

    Batches of one size are looked at together, so that T of them cost little more than one with all their samples.
    """
    weights = {name: p.detach() for name, p in trained(model).items()}
    device = next(iter(weights.values())).device

    def loss(w: dict[str, Tensor], x: Tensor, y: Tensor, task: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, w, (x, task)).logits, y)

    found: dict[int, Tensor] = {}
    for size in {len(batch) for batch in batches}:
        which = [t for t, batch in enumerate(batches) if len(batch) == size]
        if len(which) == 1:
            found[which[0]] = of_loss(model, batches[which[0]])
            continue
        x, y, task = (torch.stack([getattr(batches[t], part) for t in which]).to(device) for part in ("x", "y", "task"))
        each = vmap(grad(loss), in_dims=(None, 0, 0, 0))(weights, x, y, task)
        rows = torch.cat([g.flatten(1) for g in each.values()], 1)
        found |= dict(zip(which, rows, strict=True))
    return torch.stack([found[t] for t in range(len(batches))])
