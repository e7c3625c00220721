"""Optimizers by name, whose state follows parameters by name and survives their growth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning.rates import Rate

State = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Optim:
    """Which optimizer, and its settings.

    Args:
        name: `sgd`, `adam` or `adamw`.
        lr: Learning rate, > 0.
        momentum: Of SGD, 0..1.
        weight_decay: L2 factor, >= 0.
        rate: How the learning rate changes.
    """

    name: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    rate: Rate = field(default_factory=Rate)

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adam", "adamw"):
            raise UnknownName.among("optimizer", self.name, ["sgd", "adam", "adamw"])
        if not self.lr > 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ConfigError(f"need lr > 0, 0 <= momentum < 1 and weight_decay >= 0, got {asdict(self)}")

    def make(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        """Return the optimizer of `parameters`."""
        if self.name == "sgd":
            return SGD(parameters, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        kind = Adam if self.name == "adam" else AdamW
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def turn(self, optimizer: torch.optim.Optimizer, samples: int, size: int) -> None:
        """Set the learning rate of a step of `size` samples that follows `samples` others."""
        optimizer.param_groups[0]["lr"] = self.rate.at(samples, size, self.lr)


class Uncompiled(torch.optim.Optimizer):
    """Torch's own optimizers import its compiler, to tell it what not to compile: 900 modules, 2 s of a start.

    What they do is in the functions that they wrap; where a torch does not wrap them, they are called as they are.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does it."""
        plain = torch.optim.Optimizer.add_param_group
        getattr(plain, "__wrapped__", plain)(self, param_group)


@final
class SGD(Uncompiled, torch.optim.SGD):
    """SGD of torch."""

    def step(self, closure: Any = None) -> Any:  # noqa: ANN401 - nobody hands one in
        """As torch does it."""
        _step(torch.optim.SGD, self)


@final
class Adam(Uncompiled, torch.optim.Adam):
    """Adam of torch."""

    def step(self, closure: Any = None) -> Any:  # noqa: ANN401 - nobody hands one in
        """As torch does it."""
        _step(torch.optim.Adam, self)


@final
class AdamW(Uncompiled, torch.optim.AdamW):
    """AdamW of torch."""

    def step(self, closure: Any = None) -> Any:  # noqa: ANN401 - nobody hands one in
        """As torch does it."""
        _step(torch.optim.AdamW, self)


@torch.no_grad()
def _step(kind: type[torch.optim.Optimizer], optimizer: torch.optim.Optimizer) -> None:
    plain: Any = kind.step
    while hasattr(plain, "__wrapped__"):
        plain = plain.__wrapped__
    plain(optimizer)


def straight(optimizer: torch.optim.Optimizer) -> float | None:
    """Return r if the next step is w - r * gradient for each parameter, None if it is anything else."""
    group = optimizer.param_groups[0]
    if not isinstance(optimizer, torch.optim.SGD) or len(optimizer.param_groups) > 1:
        return None
    return None if group["momentum"] or group["weight_decay"] or group["maximize"] else float(group["lr"])


def advance(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take the optimizer's step; of plain SGD by hand: the same bits, without its bookkeeping."""
    rate = straight(optimizer)
    if rate is None:
        optimizer.step()
        return
    moved, slopes = list[Tensor](), list[Tensor]()
    for p in parameters:
        if p.grad is not None:
            moved.append(p)
            slopes.append(p.grad)
    with torch.no_grad():
        if moved:
            torch._foreach_add_(moved, slopes, alpha=-rate)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, by name, in the model's order."""
    found: dict[str, nn.Parameter] = {}
    _walk(model, "", found, set())
    return found


def named_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> State:
    """Return copies of the optimizer's state by parameter name (momenta, step counts)."""
    return {
        name: {k: v.clone() if isinstance(v, Tensor) else v for k, v in optimizer.state[p].items()}
        for name, p in parameters.items()
        if p in optimizer.state
    }


def load_named_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], state: State) -> None:
    """Give each parameter its saved state; where it has grown, the new entries start at zero."""
    for name, p in parameters.items():
        optimizer.state.pop(p, None)
        if name in state:
            optimizer.state[p] = {k: _fitted(v, p) for k, v in state[name].items()}


def _walk(module: nn.Module, path: str, found: dict[str, nn.Parameter], seen: set[int]) -> None:
    """Add what `named_parameters` would give, in half the time: this is asked in every experience."""
    for name, p in module._parameters.items():
        if p is not None and p.requires_grad and id(p) not in seen:
            seen.add(id(p))
            found[path + name] = p
    for name, child in module._modules.items():
        if child is not None and (child._parameters or child._modules):
            _walk(child, f"{path}{name}.", found, seen)


def _fitted(value: Any, p: Tensor) -> Any:  # noqa: ANN401 - tensors, numbers or None
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value.clone() if isinstance(value, Tensor) else value
    grown = torch.zeros_like(p)
    grown[tuple(slice(0, n) for n in value.shape)] = value.to(p)
    return grown
