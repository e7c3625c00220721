"""The forward pass of a finished model as one function: a server that answers one sample at a time waits less."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lifelong.models.classifier import Classifier
from lifelong.models.heads import LinearHead
from lifelong.models.networks import MLP
from lifelong.types import Output


def straight(model: nn.Module) -> Callable[[Tensor], Output]:
    """Return what `model(x)` answers, without the calls of its modules where they are known: the same bits, sooner.

    Known are an `MLP` with any head, and nothing hooked into either. Calling modules takes a sixth of the time that a
    sample takes in an MLP of two hidden layers of 1,024.

    Args:
        model: In eval mode and finished: what is put in the place of its parameters later is not seen.

    Returns:
        Outputs of inputs `[N, ...]`; the model itself where it is of another kind.
    """
    if type(model) is not Classifier or model.scaling is not None or type(model.backbone) is not MLP:
        return model
    if any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return model
    head, steps = model.head, [(layer.weight, layer.bias, bent) for layer, bent in model.backbone.linear()]
    last = (head.weight, head.bias) if type(head) is LinearHead else None

    def answer(x: Tensor) -> Output:
        x = x.flatten(1)
        for weight, bias, bent in steps:
            x = linear(x, weight, bias)
            if bent:
                x = torch.relu(x)
        return Output(x, linear(x, *last) if last else head(x))

    return answer
