"""A quadratic pull towards earlier weights, one stiffness per weight: what EWC, SI and MAS add to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

State = dict[str, Any]


def padded(value: Tensor, like: Tensor) -> Tensor:
    """Return a copy of `like` whose leading entries are `value`: for parameters that have grown."""
    full = like.detach().clone()
    full[tuple(slice(0, n) for n in value.shape)] = value
    return full


@final
class Quadratic:
    """sum of stiffness * (w - anchor)^2 over all weights that have an anchor; weights that came later are free.

    Several pulls on one weight are one pull: their stiffnesses add up, and the anchor is their weighted mean (up to a
    constant that has no gradient). So memory is two numbers per weight, however many experiences there were.
    """

    def __init__(self) -> None:
        self.stiffness: dict[str, Tensor] = {}
        self.anchor: dict[str, Tensor] = {}
        self._flat: tuple[Tensor, Tensor] | None = None  # both as one vector, made when they are needed

    def __bool__(self) -> bool:
        return bool(self.anchor)

    def energy(self, model: nn.Module) -> Tensor:
        """Return the sum for the weights that `model` has now."""
        stiffness, off = self._off(dict(model.named_parameters()))
        return torch.dot(stiffness * off, off)

    @torch.no_grad()
    def pulling(self, weights: Mapping[str, Tensor], factor: float) -> tuple[Tensor, Mapping[str, Tensor]] | None:
        """Return `factor` times the sum and its gradients by name, with the bits that autograd gives.

        None if there is no pull yet, or one on other weights than these, which are those that train.
        """
        if not self.anchor or not self.stiffness.keys() <= weights.keys():
            return None
        stiffness, off = self._off(weights)
        pull = stiffness * off
        slope = (off * factor).mul_(stiffness).add_(pull * factor)
        parts = slope.split([k.numel() for k in self.stiffness.values()])
        slopes = {name: part.view_as(k) for part, (name, k) in zip(parts, self.stiffness.items(), strict=True)}
        grown = {name: g for name, g in slopes.items() if g.shape != weights[name].shape}
        slopes |= {name: padded(g, torch.zeros_like(weights[name])) for name, g in grown.items()}
        return factor * torch.dot(pull, off), slopes

    def slope(self, name: str, value: Tensor) -> Tensor:
        """Return d energy / d w at the weight `name` of value `value`, zero where it has no anchor."""
        slope = torch.zeros_like(value)
        if name in self.anchor:
            k = self.stiffness[name]
            _head(slope, k).copy_(2 * k * (_head(value, k) - self.anchor[name]))
        return slope

    def add(self, weights: Mapping[str, Tensor], stiffness: Mapping[str, Tensor], *, keep: float = 1.0) -> None:
        """Add a pull towards `weights`; earlier pulls are scaled by `keep` and stay where they are."""
        for name, k in stiffness.items():
            w = weights[name].detach()
            old = padded(self.stiffness[name], torch.zeros_like(w)) * keep if name in self.stiffness else 0 * w
            centre = padded(self.anchor[name], w) if name in self.anchor else w
            total = old + k
            self.anchor[name] = torch.where(total > 0, centre + (w - centre) * (k / total.clamp(min=1e-38)), w)
            self.stiffness[name] = total
        self._flat = None

    def move(self, weights: Mapping[str, Tensor], stiffness: Mapping[str, Tensor], *, keep: float = 1.0) -> None:
        """Add stiffness and move every pull to `weights`: one anchor, where the last experience ended."""
        for name, k in stiffness.items():
            w = weights[name].detach()
            old = self.stiffness.get(name)
            if old is not None and old.shape != k.shape:
                old = padded(old, torch.zeros_like(w))
            self.stiffness[name] = k.clone() if old is None else torch.add(k, old, alpha=keep)
            self.anchor[name] = w.clone()  # an alias would follow the weight
        self._flat = None

    def state(self) -> State:
        """Return both tables (no call changes their tensors in place)."""
        return {"stiffness": dict(self.stiffness), "anchor": dict(self.anchor)}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.stiffness, self.anchor, self._flat = dict(state["stiffness"]), dict(state["anchor"]), None

    def _off(self, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return stiffness and distance of all weights that have an anchor, each as one vector."""
        if self._flat is None:
            every = (self.stiffness.values(), [self.anchor[name] for name in self.stiffness])
            k, a = (torch.cat([t.flatten() for t in one]) for one in every)
            self._flat = (k, a)
        stiffness, anchor = self._flat
        return stiffness, torch.cat([_head(weights[n], k).flatten() for n, k in self.stiffness.items()]) - anchor


def _head(value: Tensor, like: Tensor) -> Tensor:
    return value if value.shape == like.shape else value[tuple(slice(0, n) for n in like.shape)]
