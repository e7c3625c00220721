"""Compute, counted and not timed: floating-point operations of a forward pass, from the layers' own shapes.

A multiplication and an addition are two operations. Biases, activations, pooling and normalisation are left out, as
torch's own counter does. What a whole run costs, decompositions and distances too, `lifelong.bench.meter` counts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lifelong.errors import DataError


def linear_flops(samples: int, inputs: int, outputs: int) -> int:
    """Return the operations of `[samples, inputs] @ [inputs, outputs]`.

    >>> linear_flops(samples=1, inputs=784, outputs=256)
    401408
    """
    return 2 * samples * inputs * outputs


def conv_flops(samples: int, layer: nn.Conv2d, height: int, width: int) -> int:
    """Return the operations of `layer` whose output is `height` x `width`."""
    per_output = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
    return 2 * samples * layer.out_channels * height * width * per_output


def forward_flops(model: nn.Module, x: Tensor) -> dict[str, int]:
    """Return the operations of each layer of `model` in one forward pass over `x` `[N, ...]`, by name.

    Linear and 2-d convolution layers are counted, and lifelong's linear head; a layer used twice counts twice. A
    backward pass costs about twice as much again (once for the weights, once for the inputs, not for the first layer).

    Args:
        model: Called once, in eval mode, without gradients.
        x: Inputs; only their shape matters.

    Raises:
        DataError: There are no inputs.
    """
    if not len(x):
        raise DataError("counting needs at least one sample, got none")
    counts: dict[str, int] = {}
    hooks = [
        part.register_forward_hook(_counter(name, counts)) for name, part in model.named_modules() if _counted(part)
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return counts


def _counted(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv2d | nn.Linear) or _is_linear_head(part)


def _is_linear_head(part: nn.Module) -> bool:
    return getattr(part, "family", None) == "linear" and isinstance(getattr(part, "weight", None), Tensor)


def _counter(name: str, counts: dict[str, int]) -> Any:  # noqa: ANN401 - a forward hook
    def hook(part: nn.Module, _: object, out: Tensor) -> None:
        if isinstance(part, nn.Conv2d):
            count = conv_flops(len(out), part, out.shape[-2], out.shape[-1])
        else:
            weight = part.weight
            assert isinstance(weight, Tensor)
            count = linear_flops(out.numel() // max(1, out.shape[-1]), weight.shape[1], weight.shape[0])
        counts[name] = counts.get(name, 0) + count

    return hook
