"""Streams that bring classes: each once, each as a task of its own, a few samples at a time, or again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.streams.orders import Order, class_order
from lifelong.streams.parts import Data, Parts, Samples, of_classes
from lifelong.streams.scenario import Cut, Scenario, Steps, assemble, newest


def class_incremental(
    data: Data, experiences: int | Sequence[int] = 5, *, order: Order = None, seed: int = 0
) -> Scenario:
    """Return a stream that brings new classes with each experience, and tests each on its own classes.

    Args:
        data: What to cut.
        experiences: How many, the classes spread evenly (the first get one more); or the number of classes of each.
        order: Of the classes: None, "seed", "easy", "similar", "time" or all labels, see `lifelong.streams.orders`.
        seed: Of a drawn order.
    """
    return _by_class("class-il", data, experiences, order, seed)


def task_incremental(
    data: Data, experiences: int | Sequence[int] = 5, *, order: Order = None, seed: int = 0
) -> Scenario:
    """Return `class_incremental` with a task id on every sample, 0, 1, ... in order; labels stay as they are."""
    return _by_class("task-il", data, experiences, order, seed)


def _by_class(kind: str, data: Data, experiences: int | Sequence[int], order: Order, seed: int) -> Scenario:
    parts = Parts.of(data)
    absent = set(range(len(parts.classes))) - set(parts.train.y.unique().tolist())
    if absent:
        raise DataError(f"class {parts.classes[min(absent)]!r} of {parts.name} has no training sample; leave it out")
    classes = class_order(parts, order, seed)
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


def _sizes(classes: int, experiences: int | Sequence[int]) -> list[int]:
    if isinstance(experiences, bool) or not isinstance(experiences, int | Sequence) or isinstance(experiences, str):
        raise ConfigError(f"experiences are a number, or the number of classes of each, got {experiences!r}")
    if isinstance(experiences, int):
        if not 1 <= experiences <= classes:
            raise ConfigError(f"{classes} classes make 1 to {classes} experiences, got {experiences}")
        return [len(part) for part in torch.arange(classes).tensor_split(experiences)]
    if sum(experiences) != classes or min(experiences) < 1:
        raise ConfigError(f"the classes of all experiences must add up to {classes}, got {list(experiences)}")
    return list(experiences)


def few_shot(
    data: Data, base: int = 6, ways: int = 1, shots: int = 5, *, order: Order = None, seed: int = 0
) -> Scenario:
    """Return a stream that begins with `base` classes in full and then brings few samples of a few classes at a time.

    Each experience is tested on all test samples of its own classes. (Tao et al. 2020, "Few-Shot Class-Incremental
    Learning".)

    Args:
        data: What to cut.
        base: Classes of the first experience, with all their training samples.
        ways: New classes in each experience after it; the last may bring fewer.
        shots: Training samples of each of those, drawn.
        order: Of the classes, as in `class_incremental`.
        seed: Of what is drawn.

    Raises:
        ConfigError: The numbers do not fit the classes.
    """
    parts = Parts.of(data)
    later = len(parts.classes) - base
    if base < 1 or ways < 1 or shots < 1 or later < 0:
        raise ConfigError(
            f"need base, ways and shots >= 1 and at most {len(parts.classes)} classes in the base, "
            f"got base={base}, ways={ways}, shots={shots}"
        )
    split = [base, *([ways] * (later // ways)), *([later % ways] if later % ways else [])]
    whole = _by_class("class-il", parts, split, order, seed)
    drawn = torch.randperm(len(parts.train), generator=torch.Generator().manual_seed(seed))
    groups = [torch.tensor([parts.classes.index(label) for label in e.classes]) for e in whole]

    def few(index: int) -> Samples:
        if index == 0:
            return of_classes(parts.train, groups[0])
        rows = [drawn[parts.train.y[drawn] == c][:shots] for c in groups[index]]
        return parts.train.take(torch.cat(rows).sort().values)

    train = newest(few)

    def make(index: int) -> Cut:
        test = None if parts.test is None else partial(of_classes, parts.test, groups[index])
        return Cut(index, f"session-{index}", whole[index].classes, partial(train, index), test, names=parts.classes)

    options = {**whole.options, "shots": shots}
    return replace(whole, experiences=Steps(len(split), make), options=options)


def recurring(data: Data, experiences: int = 100, classes: int = 2, *, seed: int = 0) -> Scenario:
    """Return a long stream in which classes come back: each experience brings new samples of a few drawn classes.

    No training or test sample occurs twice: those of a class are spread evenly over its experiences, and an
    experience is tested on its own share, so that a long stream is not tested on everything a hundred times over.
    (Hemati et al. 2023, "Class-Incremental Learning with Repetition".)

    Args:
        data: What to cut; it needs test samples.
        experiences: How many.
        classes: In each experience. Each class gets its turn before one comes again.
        seed: Of which classes come when, and of which samples go where.

    Raises:
        ConfigError: There are fewer classes than that.
        DataError: A class has fewer samples than experiences.
    """
    parts = Parts.of(data)
    if not 1 <= classes <= len(parts.classes) or experiences < 1 or parts.test is None:
        raise ConfigError(
            f"need test samples, 1 to {len(parts.classes)} classes and at least 1 experience, "
            f"got classes={classes}, experiences={experiences}"
        )
    random = torch.Generator().manual_seed(seed)
    groups = _turns(len(parts.classes), experiences, classes, random)
    train, test = (_shared(part, groups, random, parts) for part in (parts.train, parts.test))
    tested, trained = parts.test, newest(lambda index: parts.train.take(train[index]))

    def make(index: int) -> Cut:
        labels = [parts.classes[c] for c in groups[index]]
        held_out = partial(tested.take, test[index])
        return Cut(index, f"visit-{index}", labels, partial(trained, index), held_out, names=parts.classes)

    order = list(dict.fromkeys(c for group in groups for c in group))
    seen = [parts.classes[c] for c in order]
    return assemble("class-il", parts, Steps(experiences, make), seed=seed, classes=seen, each=classes)


def _turns(classes: int, experiences: int, each: int, random: torch.Generator) -> list[list[int]]:
    """Return the classes of each experience: drawn orders of all classes, one after the other, cut in pieces."""
    found: list[list[int]] = []
    waiting: list[int] = []
    while len(found) < experiences:
        group: list[int] = []
        while len(group) < each:
            waiting = waiting or torch.randperm(classes, generator=random).tolist()
            fits = next((c for c in waiting if c not in group), None)
            if fits is None:  # only classes of this very group are left of the round
                waiting += torch.randperm(classes, generator=random).tolist()
                continue
            waiting.remove(fits)
            group.append(fits)
        found.append(sorted(group))
    return found


def _shared(samples: Samples, groups: Sequence[Sequence[int]], random: torch.Generator, parts: Parts) -> list[Tensor]:
    """Return the rows of `samples` for each group, ascending; no row occurs twice."""
    order = torch.randperm(len(samples), generator=random)
    found: list[list[Tensor]] = [[] for _ in groups]
    for c in sorted({c for group in groups for c in group}):
        visits = [index for index, group in enumerate(groups) if c in group]
        rows = order[samples.y[order] == c]
        if len(rows) < len(visits):
            raise DataError(
                f"class {parts.classes[c]!r} of {parts.name} has {len(rows)} samples, too few for {len(visits)} "
                "experiences; ask for fewer"
            )
        for index, piece in zip(visits, rows.tensor_split(len(visits)), strict=True):
            found[index].append(piece)
    return [torch.cat(pieces).sort().values for pieces in found]
