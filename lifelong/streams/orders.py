"""In which order classes come: as they stand, drawn, given, or by what is known of the samples.

Source: Prabhu et al. 2024, "FoMo-in-Flux", for the orders (random, easy to hard, by similarity, by time).
Differs: easy and similar are told by class means of the raw training samples, so an order costs nothing and needs no
model; test samples are never looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.labels import Label
from lifelong.streams.parts import Parts
from lifelong.types import Batch

Order: TypeAlias = str | Sequence[Label] | None
NAMED = ("seed", "easy", "similar", "time")
ROWS = 4096  # samples compared at a time


def class_order(parts: Parts, order: Order, seed: int) -> Tensor:
    """Return all class indices `[C]` in the `order` that was asked for.

    Args:
        parts: Whose classes.
        order: None takes the data's own; `seed` draws it; `easy` begins with the classes that the nearest class mean
            recognises best; `similar` goes on from each class to the nearest that is left, from the data's first;
            `time` is that in which they first occur; or all labels in order.
        seed: Of a drawn order.

    Raises:
        ConfigError: There is no such order, or the labels are not each class once.
        DataError: Classes are to be compared whose samples are not in memory.
    """
    classes = parts.classes
    if order is None:
        return torch.arange(len(classes))
    if order == "seed":
        return torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    if order == "time":
        return torch.tensor(list(dict.fromkeys(parts.train.y.tolist())))
    if order == "easy":
        return _recall(parts).argsort(descending=True, stable=True)
    if order == "similar":
        return _chain(_means(parts))
    if isinstance(order, str) or sorted(map(repr, order)) != sorted(map(repr, classes)):
        raise ConfigError(
            f"order is None, {', '.join(map(repr, NAMED))} or each class exactly once, "
            f"got {order!r} for {list(classes)[:10]}"
        )
    return torch.tensor([classes.index(label) for label in order])


def _train(parts: Parts) -> Batch:
    if not isinstance(parts.train, Batch):
        raise DataError(f"classes of {parts.name} are compared in memory; give a Batch, or name the order of labels")
    return parts.train


def _means(parts: Parts) -> Tensor:
    """Return the mean training sample of each class, float64 `[C, values]`."""
    batch = _train(parts)
    found = [batch.x[batch.y == c].flatten(1).double().mean(0) for c in range(len(parts.classes))]
    return torch.stack(found)


def _recall(parts: Parts) -> Tensor:
    """Return the share `[C]` of the training samples of each class that are nearest to its own mean."""
    batch, means = _train(parts), _means(parts)
    said = torch.cat([torch.cdist(x.flatten(1).double(), means).argmin(1) for x in batch.x.split(ROWS)])
    count = batch.y.bincount(minlength=len(means))
    return batch.y[said == batch.y].bincount(minlength=len(means)) / count


def _chain(means: Tensor) -> Tensor:
    """Return the classes `[C]`, each followed by the nearest that is left."""
    apart = torch.cdist(means, means)
    found = [0]
    while len(found) < len(means):
        left = apart[found[-1]].clone()
        left[found] = torch.inf
        found.append(int(left.argmin()))
    return torch.tensor(found)
