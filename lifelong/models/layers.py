"""Layers as matrices: what a linear layer or a convolution does to each of its inputs is one product.

A layer of weight W and bias b is the matrix [W | b] `[O, I]`, its inputs are rows `[n, I]` that end in a 1; without a
bias the 1 is left out. A convolution sees one row per patch. O outputs, I inputs (with the 1), n rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.models.heads import LinearHead

Layer = nn.Linear | nn.Conv2d | LinearHead


def layers(model: nn.Module) -> dict[str, Layer]:
    """Return the linear layers, convolutions and linear heads of `model` that train, by name, in its order.

    Raises:
        ConfigError: A convolution that is no plain product with patches (grouped, or not padded by zeros).
    """
    found = {
        name: m
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d | LinearHead) and m.weight.requires_grad
    }
    for name, layer in found.items():
        if isinstance(layer, nn.Conv2d) and (
            layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str)
        ):
            raise ConfigError(
                f"{name} is a convolution of groups={layer.groups}, padding={layer.padding!r} ({layer.padding_mode}); "
                f"only ungrouped ones with a number of zeros as padding can be treated as matrices"
            )
    return found


def width(layer: Layer) -> int:
    """Return I of a layer: values per input row, the 1 of the bias included."""
    return layer.weight.shape[1:].numel() + (layer.bias is not None)


def matrix(layer: Layer) -> Tensor:
    """Return [W | b] `[O, I]` of a layer; gradients flow."""
    return joined(layer.weight, layer.bias)


def joined(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return [W | b] `[O, I]` of a weight `[O, ...]` and a bias `[O]` or None."""
    flat = weight.reshape(len(weight), weight.shape[1:].numel())
    return flat if bias is None else torch.cat([flat, bias.unsqueeze(1)], 1)


def parts(layer: Layer, matrix_OI: Tensor) -> dict[str, Tensor]:
    """Return `weight` (and `bias`) of a layer like this whose [W | b] is `matrix_OI`; O may be another."""
    shape = (-1, *layer.weight.shape[1:])
    if layer.bias is None:
        return {"weight": matrix_OI.reshape(shape)}
    return {"weight": matrix_OI[:, :-1].reshape(shape), "bias": matrix_OI[:, -1]}


def gradient(layer: Layer) -> Tensor:
    """Return the gradient of [W | b] `[O, I]` that is there now; zeros where there is none."""
    weight, bias = layer.weight, layer.bias
    return joined(
        torch.zeros_like(weight) if weight.grad is None else weight.grad,
        bias if bias is None else torch.zeros_like(bias) if bias.grad is None else bias.grad,
    )


def rows(layer: Layer, x: Tensor) -> Tensor:
    """Return the inputs of a layer as rows `[n, I]`: samples of `[N, ..., I]`, or patches of `[N, C, H, W]`.

    Patches come in the order sample, row, column; values within one in the order of the weight.
    """
    if isinstance(layer, nn.Conv2d):
        assert not isinstance(layer.padding, str)
        patches = nn.Unfold(layer.kernel_size, layer.dilation, layer.padding, layer.stride)(x)
        flat = patches.transpose(1, 2).reshape(-1, patches.shape[1])
    else:
        flat = x.reshape(-1, x.shape[-1])
    return flat if layer.bias is None else torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
