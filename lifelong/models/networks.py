"""Backbones: inputs `[N, ...]` in, features `[N, D]` out; each knows its input shape and its own spec."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, final

from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError


def positive(**sizes: Sequence[int] | int) -> None:
    """Raise `ConfigError` unless every size, or every item of it, is an integer >= 1."""
    for name, value in sizes.items():
        items = [value] if isinstance(value, int) else list(value)
        if not items or any(not isinstance(i, int) or i < 1 for i in items):
            raise ConfigError(f"{name} must be integers >= 1, got {value!r}")


@final
class Identity(nn.Module):
    """Features are the inputs themselves: for vectors that a frozen encoder has made already.

    Args:
        inputs: Shape of one sample.
        pool: Samples are tokens `(T, D)`, and features their mean; False takes all values side by side.
    """

    def __init__(self, inputs: Sequence[int], pool: bool = False) -> None:
        super().__init__()
        positive(inputs=inputs)
        if pool and len(inputs) != 2:
            raise ConfigError(f"identity pools inputs of shape (tokens, width), got {tuple(inputs)}")
        self.input_shape, self.dim, self.pool = tuple(inputs), inputs[-1] if pool else prod(inputs), pool

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        pooled = {"pool": True} if self.pool else {}  # left out where it says nothing: a space is named by its spec
        return {"name": "identity", "inputs": list(self.input_shape), **pooled}

    def tokens(self, x: Tensor) -> Tensor:
        """Return `x` as tokens `[N, T, D]`; without pooling there is one."""
        return x.reshape(len(x), -1, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, D]`."""
        return self.tokens(x).mean(1) if self.pool else x.flatten(1)


@final
class MLP(nn.Module):
    """Linear layers with ReLU between them; the features are the last layer's output.

    Args:
        inputs: Shape of one sample; it is flattened.
        hidden: Widths of the hidden layers; may be empty.
        features: Width D of the features; None ends after the last hidden layer's ReLU.
    """

    def __init__(self, inputs: Sequence[int], hidden: Sequence[int] = (256,), features: int | None = None) -> None:
        super().__init__()
        positive(inputs=inputs, hidden=hidden or 1, features=1 if features is None else features)
        if not hidden and features is None:
            raise ConfigError("an mlp needs hidden layers, features, or both; got neither")
        self.input_shape, self.hidden, self.features = tuple(inputs), tuple(hidden), features
        widths = [prod(inputs), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        if features:
            layers.append(nn.Linear(widths[-1], features))
        self.layers = nn.Sequential(*layers)
        self.dim = features or widths[-1]

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        return {
            "name": "mlp",
            "inputs": list(self.input_shape),
            "hidden": list(self.hidden),
            "features": self.features,
        }

    def linear(self) -> list[tuple[nn.Linear, bool]]:
        """Return the linear layers in order, and whether a ReLU follows each."""
        layers = list(self.layers)
        pairs = zip(layers, [*layers[1:], None], strict=True)
        return [(layer, type(after) is nn.ReLU) for layer, after in pairs if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, D]`."""
        x = x.flatten(1)
        for layer in self.layers:  # fewer module calls than calling the Sequential
            x = F.relu(x) if type(layer) is nn.ReLU else layer(x)
        return x


@final
class Conv(nn.Module):
    """3x3 convolutions, each with ReLU and 2x2 max pooling, then a linear layer to the features.

    No batch statistics: the answer to one sample never depends on its neighbours.

    Args:
        inputs: Shape of one sample, channels first: `(channels, height, width)`.
        channels: Output channels of each convolution.
        features: Width D of the features.
    """

    def __init__(self, inputs: Sequence[int], channels: Sequence[int] = (32, 64), features: int = 128) -> None:
        super().__init__()
        positive(inputs=inputs, channels=channels, features=features)
        if len(inputs) != 3 or min(inputs[1:]) < 2 ** len(channels):
            raise ConfigError(
                f"conv needs inputs (channels, height, width) of at least {2 ** len(channels)} pixels a side, "
                f"got {tuple(inputs)}; use fewer channels or an mlp"
            )
        self.input_shape, self.channels, self.dim = tuple(inputs), tuple(channels), features
        widths = [inputs[0], *channels]
        pairs = pairwise(widths)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs)
        side = [size // 2 ** len(channels) for size in inputs[1:]]
        self.out = nn.Linear(widths[-1] * prod(side), features)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        return {
            "name": "conv",
            "inputs": list(self.input_shape),
            "channels": list(self.channels),
            "features": self.dim,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, D]` of images `[N, channels, height, width]` (flat rows are reshaped)."""
        x = x.unflatten(1, self.input_shape) if x.dim() == 2 else x
        for convolution in self.convolutions:
            x = F.max_pool2d(F.relu(convolution(x)), 2)
        features: Tensor = self.out(x.flatten(1))
        return features
