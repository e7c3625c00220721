"""Task-incremental streams whose tasks share classes: each task has a head of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.streams.parts import Data, Parts, Samples, changed, of_classes
from lifelong.streams.scenario import Cut, Scenario, Steps, assemble, newest

RING = ((0, 1, 2, 3), (2, 3, 4, 5), (4, 5, 6, 7), (6, 7, 8, 9), (8, 9, 0, 1))  # each of ten classes comes twice


def overlapping(
    data: Data, groups: Sequence[Sequence[int]] = RING, *, per_class: int | None = None, seed: int = 0
) -> Scenario:
    """Return tasks whose classes overlap; a class that comes again brings other images of it.

    A class is another label in each of its tasks, `t2:Coat` for the Coat of task 2: as in papers with one head per
    task, each task has columns of its own and training and prediction choose among them. A training sample occurs
    in one task only. Each task is tested on all test samples of its classes. (Overlapping Split-CIFAR-100 of Lin et
    al. 2022, "Beyond Not-Forgetting", in small.)

    Args:
        data: What to cut.
        groups: Class indices of each task; a class may be in several.
        per_class: Training samples per class and task; None spreads all samples of a class evenly over its tasks.
        seed: Of which samples go where.

    Raises:
        ConfigError: A task has no class, one twice, or one that is not there.
        DataError: A class has too few training samples.
    """
    parts = Parts.of(data)
    cut = _shares(parts, [list(group) for group in groups], per_class, seed)
    train = newest(lambda index: parts.train.take(cut[index]))

    def tested(index: int, held_out: Samples) -> Samples:
        own = of_classes(held_out, torch.tensor(list(groups[index])))
        return changed(own, _same, index * parts.stride)  # under another label it is another sample

    def make(index: int) -> Cut:
        names = [f"t{index}:{label}" for label in parts.classes]
        test = None if parts.test is None else partial(tested, index, parts.test)
        own = [names[c] for c in groups[index]]
        return Cut(index, f"group-{index}", own, partial(train, index), test, task=index, names=names)

    steps, listed = Steps(len(groups), make), [list(group) for group in groups]
    labels = [label for experience in steps for label in experience.classes]
    return assemble("task-il", parts, steps, seed=seed, classes=labels, groups=listed, per_class=per_class)


def _shares(parts: Parts, groups: Sequence[Sequence[int]], per_class: int | None, seed: int) -> list[Tensor]:
    """Return the rows of the training samples of each task, ascending; no row occurs twice."""
    for group in groups:
        if not group or len(set(group)) < len(group) or not all(0 <= c < len(parts.classes) for c in group):
            raise ConfigError(f"a task lists distinct classes out of 0..{len(parts.classes) - 1}, got {list(group)}")
    if not groups or (per_class is not None and per_class < 1):
        raise ConfigError(f"need at least one task and per_class >= 1, got {len(groups)} and {per_class}")
    order = torch.randperm(len(parts.train), generator=torch.Generator().manual_seed(seed))
    found: list[list[Tensor]] = [[] for _ in groups]
    for c in sorted({c for group in groups for c in group}):
        places = [index for index, group in enumerate(groups) if c in group]
        rows = order[parts.train.y[order] == c]
        share = len(rows) // len(places) if per_class is None else per_class
        if not 0 < share * len(places) <= len(rows):
            raise DataError(
                f"class {parts.classes[c]!r} of {parts.name} has {len(rows)} training samples, too few for "
                f"{len(places)} tasks of {max(share, 1)}; lower per_class"
            )
        for place, piece in zip(places, rows.split(share), strict=False):
            found[place].append(piece)
    return [torch.cat(pieces).sort().values for pieces in found]


def _same(x: Tensor) -> Tensor:
    return x
