"""Backbones one after the other: a frozen encoder, and what is trained on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any, final

from torch import Tensor, nn

from lifelong import plugins
from lifelong.errors import ConfigError


def part(spec: Mapping[str, Any], **more: Any) -> Any:  # noqa: ANN401 - a backbone, or with its `dim` a head
    """Return the part of a model that `spec` names; its weights are drawn by who builds the whole model.

    Raises:
        UnknownName: No such part.
        ConfigError: The spec names none, or has arguments that it does not take.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ConfigError(f"a part of a model needs a 'name', got {spec!r}")
    config = {key: value for key, value in spec.items() if key != "name"} | more
    try:
        return plugins.find("model", spec["name"])(**config)
    except TypeError as error:
        raise ConfigError(f"the model {spec['name']!r} does not take {config}: {error}") from error


def widened(spec: Mapping[str, Any], features: int) -> dict[str, Any]:
    """Return `spec` with another number of `features`; of a stack, its last part has them.

    Raises:
        ConfigError: The backbone's width is not an argument (a frozen encoder: put an mlp on top, in a stack).
    """
    if spec.get("name") == "stack":
        *first, last = spec["parts"]
        return {**spec, "parts": [*first, widened(last, features)]}
    if "features" not in spec:
        raise ConfigError(
            f"the backbone {spec.get('name')!r} has no features to widen; put an mlp on top of it, in a stack"
        )
    return {**spec, "features": features}


@final
class Columns(nn.Module):
    """Some neighbouring columns of vector inputs: for what several encoders have made of the same image, side by side.

    Args:
        inputs: Shape of one sample, `[width]`.
        first: The first column.
        count: How many.
    """

    def __init__(self, inputs: Sequence[int], first: int, count: int) -> None:
        super().__init__()
        if len(inputs) != 1 or first < 0 or count < 1 or first + count > inputs[0]:
            raise ConfigError(f"columns {first} to {first + count} are not among those of inputs {list(inputs)}")
        self.input_shape, self.first, self.dim = tuple(inputs), first, count

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        return {"name": "columns", "inputs": list(self.input_shape), "first": self.first, "count": self.dim}

    def forward(self, x: Tensor) -> Tensor:
        """Return `[N, count]` of `[N, width]`."""
        return x[:, self.first : self.first + self.dim]


@final
class Stack(nn.Module):
    """Each part maps the features of the one before; the first maps inputs, the last gives the features.

    What a frozen encoder does to its images is part of the network here, not preprocessing: that a stack on one
    encoder reads what a stack on another wrote is nothing to rule out beforehand, but to measure.

    Args:
        parts: Specs of backbones; each but the first has as many inputs as the one before has features.
    """

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        if not parts:
            raise ConfigError("a stack needs at least one part, got none")
        made = [part(one) for one in parts]
        for before, after in pairwise(made):
            if prod(after.input_shape) != before.dim:
                raise ConfigError(f"a part of {after.input_shape} inputs cannot follow one of {before.dim} features")
        self.parts = nn.ModuleList(made)
        self.input_shape, self.dim = tuple(made[0].input_shape), int(made[-1].dim)

    def spec(self) -> dict[str, Any]:
        """Return the arguments that rebuild this backbone."""
        parts: list[Any] = list(self.parts)
        return {"name": "stack", "parts": [one.spec() for one in parts]}

    def forward(self, x: Tensor) -> Tensor:
        """Return features `[N, D]`."""
        for one in self.parts:
            x = one(x)
        return x
