"""What changed from one version to another: weights, labels, memories, settings, data and the gate's word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lifelong.labels import Label
from lifelong.release.registry import Registry
from lifelong.release.report import Report

PLACES = ("data", "memory", "position")  # of `training`, which are told apart from settings


def difference(registry: Registry, one: int, other: int) -> dict[str, Any]:
    """Return what changed from version `one` to version `other`, as plain values.

    Raises:
        NotFound: One of them is not there.
        ArtifactError: One of them is damaged.
    """
    a, b = registry.load(one), registry.load(other)
    before, after = a.training, b.training
    settings = {"model": a.model, "input": a.input, "preprocessing": a.preprocessing, **_settings(before)}
    return {
        "versions": [one, other],
        "tensors": list(tensors(a.weights, b.weights)),
        "labels": {
            "new": _without(b.labels, a.labels),
            "gone": _without(a.labels, b.labels),
        },
        "memory": changed(before.get("memory", {}), after.get("memory", {})),
        "settings": changed(
            settings, {"model": b.model, "input": b.input, "preprocessing": b.preprocessing, **_settings(after)}
        ),
        "data": changed(before.get("data", {}), after.get("data", {})),
        "position": changed(before.get("position", {}), after.get("position", {})),
        "space": [a.space.id, b.space.id],
        "level": [a.level, b.level],
        "metrics": changed(a.metrics, b.metrics),
        "gate": changed(_checks(registry.report(one)), _checks(registry.report(other))),
    }


def tensors(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
    """Yield for each tensor by name what became of it: `same`, `changed`, `grown`, `new` or `gone`.

    `relative` is the norm of the change over the norm before, of what both have where it has grown (None where there is
    nothing to compare), and `values` the share of its values that have other bits.

    >>> list(tensors({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 4.5])}))
    [{'name': 'w', 'outcome': 'changed', 'shape': [2], 'relative': 0.1, 'values': 0.5}]
    """
    for name in sorted({*one, *other}):
        a, b = one.get(name), other.get(name)
        relative: float | None = None
        values: float | None = None
        if a is None or b is None:
            outcome = "new" if a is None else "gone"
        elif a.shape == b.shape:
            relative, values = _change(a, b)
            outcome = "changed" if values or a.dtype != b.dtype else "same"
        else:
            outcome = "grown"
            if a.dim() == b.dim():
                both = tuple(slice(min(m, n)) for m, n in zip(a.shape, b.shape, strict=True))
                relative, values = _change(a[both], b[both])
        shape = list((one if b is None else other)[name].shape)
        yield {"name": name, "outcome": outcome, "shape": shape, "relative": relative, "values": values}


def changed(one: Mapping[str, Any], other: Mapping[str, Any], path: str = "") -> dict[str, list[Any]]:
    """Return by path the values `[before, after]` that differ; None is that there is none.

    >>> changed({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3, "d": 4}})
    {'b.c': [2, 3], 'b.d': [None, 4]}
    """
    found: dict[str, list[Any]] = {}
    for key in sorted({*one, *other}):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= changed(a, b, f"{path}{key}.")
        elif a != b:
            found[f"{path}{key}"] = [a, b]
    return found


def _settings(training: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in training.items() if key not in PLACES and key != "model"}


def _without(some: Sequence[Label], others: Sequence[Label]) -> list[Label]:
    return [label for label in some if label not in others]


def _checks(report: Report | None) -> dict[str, Any]:
    """Return the gate's checks by name; of several with one name each gets a number."""
    found: dict[str, Any] = {}
    for check in report.checks if report else ():
        count = sum(key.split(" ")[0] == check.name for key in found)
        name = f"{check.name} {count + 1}" if count else check.name
        found[name] = {"passed": check.passed, "value": check.value, "detail": check.detail}
    return found


def _change(a: Tensor, b: Tensor) -> tuple[float | None, float]:
    """Return the relative norm of b - a (None where a is zero and b is not), and the share of other bits."""
    if not a.numel():
        return 0.0, 0.0
    one, other = a.contiguous().view(-1, 1), b.contiguous().view(-1, 1)
    different = (one.view(torch.uint8) != other.view(torch.uint8)).any(1) if a.dtype == b.dtype else one != other
    share = float(different.double().mean())
    x, y = a.double(), b.double()
    both = x.isfinite() & y.isfinite()
    moved, size = float((y - x)[both].norm()), float(x[both].norm())
    return (moved / size if size else None if moved else 0.0), share
