"""The scenarios: the ways to cut data into a stream, and the table of permanent ids.

Each draws from a generator of its own: the same seed gives the same stream, and global random state stays untouched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lifelong.data import load
from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.labels import Label
from lifelong.streams.domains import domains, permuted, rotated
from lifelong.streams.overlaps import overlapping
from lifelong.streams.parts import Data, Parts, Samples, from_data, of_classes
from lifelong.streams.scenario import Cut, Scenario, Steps, assemble, newest
from lifelong.streams.validation import validation
from lifelong.types import Batch

__all__ = [
    "SCENARIOS", "Recipe", "Scenario", "class_incremental", "data_incremental", "domains", "from_data", "online",
    "overlapping", "permuted", "rotated", "scenario", "task_incremental", "validation",
]  # fmt: skip

Order = str | Sequence[Label] | None


def class_incremental(
    data: Data, experiences: int | Sequence[int] = 5, *, order: Order = None, seed: int = 0
) -> Scenario:
    """Return a stream that brings new classes with each experience, and tests each on its own classes.

    Args:
        data: What to cut.
        experiences: How many, the classes spread evenly (the first get one more); or the number of classes of each.
        order: Of the classes: None takes the data's, "seed" draws it, or all labels in order.
        seed: Of a drawn order.
    """
    return _by_class("class-il", data, experiences, order, seed)


def task_incremental(
    data: Data, experiences: int | Sequence[int] = 5, *, order: Order = None, seed: int = 0
) -> Scenario:
    """Return `class_incremental` with a task id on every sample, 0, 1, ... in order; labels stay as they are."""
    return _by_class("task-il", data, experiences, order, seed)


def data_incremental(data: Data, experiences: int = 5, *, seed: int = 0) -> Scenario:
    """Return the training samples in i.i.d. parts of equal size, each tested on the whole test set."""
    parts = Parts.of(data)
    if not 1 <= experiences <= len(parts.train):
        raise ConfigError(f"cut {len(parts.train)} samples into 1 to {len(parts.train)} parts, got {experiences}")
    order = torch.randperm(len(parts.train), generator=torch.Generator().manual_seed(seed))
    steps = _pieces(parts, order.tensor_split(experiences), "part", test=True)
    return assemble("data-il", parts, steps, seed=seed)


def online(data: Data, size: int = 10, *, order: str = "shuffled", seed: int = 0, test: bool = True) -> Scenario:
    """Return a stream of a few samples at a time, each seen once, without boundaries or task ids.

    Args:
        data: What to stream.
        size: Samples per experience; the last may be smaller.
        order: "shuffled" (i.i.d.), "file" (as stored), or "classes" (class after class, shuffled within).
        seed: Of the shuffling.
        test: Test on the whole test set, where there is one; False holds nothing out.
    """
    parts = Parts.of(data)
    if size < 1 or order not in ("shuffled", "file", "classes"):
        raise ConfigError(f"need size >= 1 and order shuffled, file or classes, got size={size} and order={order!r}")
    rows = torch.arange(len(parts.train))
    if order != "file":
        rows = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    if order == "classes":
        rows = rows[parts.train.y[rows].argsort(stable=True)]
    steps = _pieces(parts, rows.split(size), "step", test=test)
    return assemble("online", parts, steps, seed=seed, size=size, order=order)


def _by_class(kind: str, data: Data, experiences: int | Sequence[int], order: Order, seed: int) -> Scenario:
    parts = Parts.of(data)
    absent = set(range(len(parts.classes))) - set(parts.train.y.unique().tolist())
    if absent:
        raise DataError(f"class {parts.classes[min(absent)]!r} of {parts.name} has no training sample; leave it out")
    classes = _ordered(parts.classes, order, seed)
    groups = classes.split(_sizes(len(classes), experiences))
    train = newest(lambda index: of_classes(parts.train, groups[index]))

    def make(index: int) -> Cut:
        labels = [parts.classes[i] for i in groups[index].tolist()]
        test = None if parts.test is None else partial(of_classes, parts.test, groups[index])
        task = index if kind == "task-il" else -1
        return Cut(index, f"classes-{index}", labels, partial(train, index), test, task=task, names=parts.classes)

    listed = [parts.classes[i] for i in classes.tolist()]
    split = [len(group) for group in groups]
    return assemble(kind, parts, Steps(len(groups), make), seed=seed, classes=listed, order=listed, split=split)


def _ordered(classes: Sequence[Label], order: Order, seed: int) -> Tensor:
    if order is None:
        return torch.arange(len(classes))
    if order == "seed":
        return torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    if isinstance(order, str) or sorted(map(repr, order)) != sorted(map(repr, classes)):
        raise ConfigError(f"order is None, 'seed' or each class exactly once, got {order!r} for {list(classes)[:10]}")
    return torch.tensor([classes.index(label) for label in order])


def _sizes(classes: int, experiences: int | Sequence[int]) -> list[int]:
    if isinstance(experiences, int):
        if not 1 <= experiences <= classes:
            raise ConfigError(f"{classes} classes make 1 to {classes} experiences, got {experiences}")
        return [len(part) for part in torch.arange(classes).tensor_split(experiences)]
    if sum(experiences) != classes or min(experiences) < 1:
        raise ConfigError(f"the classes of all experiences must add up to {classes}, got {list(experiences)}")
    return list(experiences)


def _pieces(parts: Parts, rows: Sequence[Tensor], name: str, *, test: bool) -> Steps:
    """Return one experience per piece of `rows`; each is tested on the whole test set."""

    def cut(index: int) -> Samples:
        piece = rows[index]
        first, count = int(piece[0]), len(piece)
        if isinstance(parts.train, Batch) and torch.equal(piece, torch.arange(first, first + count)):
            return parts.train[first : first + count]  # neighbours: a view, not a copy
        return parts.train.take(piece)

    train = newest(cut)
    held_out = parts.test if test else None

    def make(index: int) -> Cut:
        tested = None if held_out is None else lambda: held_out
        labels = [parts.classes[i] for i in parts.train.y[rows[index]].unique().tolist()]
        return Cut(index, f"{name}-{index}", labels, partial(train, index), tested, names=parts.classes)

    return Steps(len(rows), make)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a permanent id is made: a data set, a maker, and what it is called with.

    Args:
        about: One line for people.
        data: Name of the data set.
        make: The maker; called with the data, `options` and the user's own options.
        options: What the id stands for; options of a caller go over them, and into the signature.
    """

    about: str
    data: str
    make: Callable[..., Scenario]
    options: Mapping[str, Any] = field(default_factory=dict)


_FMNIST = {
    "split-fmnist": Recipe("5 x 2 classes, no task id", "fashion-mnist", class_incremental, {"experiences": 5}),
    "task-fmnist": Recipe("5 x 2 classes, task id given", "fashion-mnist", task_incremental, {"experiences": 5}),
    "permuted-fmnist": Recipe("5 pixel orders", "fashion-mnist", permuted, {"experiences": 5}),
    "permuted-fmnist-tasks": Recipe("10 pixel orders, task id given", "fashion-mnist", permuted,
                                    {"experiences": 10, "task_ids": True}),
    "overlap-fmnist": Recipe("5 tasks of 4 classes, each class in two tasks, task id given", "fashion-mnist",
                             overlapping),
    "rotated-fmnist": Recipe("5 angles in 0..180 degrees", "fashion-mnist", rotated, {"experiences": 5}),
    "data-fmnist": Recipe("5 i.i.d. parts", "fashion-mnist", data_incremental, {"experiences": 5}),
    "online-fmnist": Recipe("10 samples at a time, once, class after class", "fashion-mnist", online,
                            {"size": 10, "order": "classes"}),
}  # fmt: skip

SCENARIOS: Mapping[str, Recipe] = {
    **_FMNIST,
    **{f"{name}-small": replace(recipe, data="fashion-mnist-small") for name, recipe in _FMNIST.items()},
    "split-digits": Recipe("5 x 2 classes of 8x8 digits", "digits", class_incremental, {"experiences": 5}),
    "split-mnist10k": Recipe("5 x 2 classes of 10,000 digits", "mnist10k", class_incremental, {"experiences": 5}),
    "permuted-mnist10k": Recipe("10 pixel orders", "mnist10k", permuted, {"experiences": 10}),
    "permuted-mnist10k-tasks": Recipe(
        "10 pixel orders, task id given", "mnist10k", permuted, {"experiences": 10, "task_ids": True}
    ),
    "split-cifar10": Recipe("5 x 2 classes", "cifar10", class_incremental, {"experiences": 5}),
    "split-cifar100": Recipe("10 x 10 classes", "cifar100", class_incremental, {"experiences": 10}),
    "online-elec": Recipe("10 rows at a time in file order", "elec", online, {"size": 10, "order": "file"}),
    "online-weather": Recipe("10 rows at a time in file order", "weather", online, {"size": 10, "order": "file"}),
    "online-covtype": Recipe("10 rows at a time in file order", "covtype", online, {"size": 10, "order": "file"}),
    "domain-covtype": Recipe("4 wilderness areas", "covtype", domains, {"column": (10, 11, 12, 13)}),
}


def scenario(name: str, root: Path | str | None = None, seed: int = 0, **options: Any) -> Scenario:  # noqa: ANN401
    """Return the scenario with the permanent id `name`.

    Where only the packaged part of Fashion-MNIST is there, the result is named `...-small`, for it is another stream.

    Args:
        name: A key of `SCENARIOS`.
        root: Data root, see `lifelong.data.load`.
        seed: Of everything that is drawn.
        options: Of the maker, e.g. `experiences=10`; they are quoted in the signature.

    Raises:
        UnknownName: No scenario, or no option of it, is called so.
    """
    if name not in SCENARIOS:
        raise UnknownName.among("scenario", name, SCENARIOS)
    recipe = SCENARIOS[name]
    known = set(inspect.signature(recipe.make).parameters) - {"data"}
    for option in options:
        if option not in known - {"seed"}:
            raise UnknownName.among(f"option of {name}", option, known - {"seed"})
    data = load(recipe.data, root=root)
    drawn = {"seed": seed} if "seed" in known else {}
    made = recipe.make(data, **{**recipe.options, **options, **drawn})
    own = name if data.name == recipe.data else f"{name}-small"
    return replace(made, name=own)
