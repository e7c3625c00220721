"""Gradients as one vector `[P]`, in the order of the trained parameters; a parameter without one counts as zeros."""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
