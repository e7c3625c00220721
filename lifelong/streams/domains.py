"""Domain-incremental streams: the labels stay, the inputs change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lifelong.batching import stack
from lifelong.errors import ConfigError, DataError
from lifelong.labels import LabelMap
from lifelong.streams import transforms
from lifelong.streams.parts import Data, Parts, Samples, Transform, changed, spread
from lifelong.streams.scenario import TESTS, Cut, Scenario, Steps, assemble, labels_in, newest
from lifelong.types import Batch

MOST_DOMAINS = 1000  # more values than this in a column are measurements, not domains


def permuted(data: Data, experiences: int = 5, *, task_ids: bool = False, seed: int = 0) -> Scenario:
    """Return the same samples under another order of their values in each experience; the first keeps them.

    A permuted sample is another sample: each experience has ids of its own. (Goodfellow et al. 2013, arXiv:1312.6211)

    Args:
        data: What to cut; any shape of samples.
        experiences: How many orders.
        task_ids: Every sample tells which order it is in, 0, 1, ...; the stream stays domain-incremental.
        seed: Of the orders.
    """
    parts = Parts.of(data)
    random = torch.Generator().manual_seed(seed)
    size = _first_input(parts).numel()
    orders = [torch.arange(size)]
    orders += [torch.randperm(size, generator=random) for _ in range(_at_least_one(experiences) - 1)]
    steps = [partial(transforms.permuted, order=order) for order in orders]
    names = [f"permutation-{i}" for i in range(experiences)]
    made = _changing(parts, steps, names, task_ids)
    return assemble("domain-il", parts, made, seed=seed, change="permuted", **_told(task_ids))


def rotated(
    data: Data,
    experiences: int = 5,
    *,
    angles: Sequence[float] | None = None,
    task_ids: bool = False,
    seed: int = 0,
) -> Scenario:
    """Return the same images turned by another angle in each experience.

    A turned image is another sample: each experience has ids of its own.

    Args:
        data: What to cut; images `[N, ..., height, width]`.
        experiences: How many angles to draw: 0, then one from each equal part of 0..180 degrees, ascending
            (Lopez-Paz and Ranzato 2017, arXiv:1706.08840).
        angles: Degrees counter-clockwise, instead of drawn ones.
        task_ids: Every sample tells which angle it is at, 0, 1, ...; the stream stays domain-incremental.
        seed: Of the drawn angles.
    """
    parts = Parts.of(data)
    if _first_input(parts).dim() < 2:
        raise DataError(f"only images turn, got samples of shape {list(_first_input(parts).shape)} in {parts.name}")
    if angles is None:
        count = _at_least_one(experiences)
        drawn = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        angles = [0.0, *((torch.arange(count) + drawn) * 180 / count).tolist()[1:]]
    _at_least_one(len(angles))
    steps = [partial(transforms.rotated, degrees=float(angle)) for angle in angles]
    names = [f"rotation-{angle:.1f}" for angle in angles]
    turned, listed = _changing(parts, steps, names, task_ids), [float(a) for a in angles]
    return assemble("domain-il", parts, turned, seed=seed, change="rotated", angles=listed, **_told(task_ids))


def domains(
    data: Data | Sequence[Data], *, column: int | Sequence[int] | None = None, held_out: float = 0.0
) -> Scenario:
    """Return one experience per domain: per data set of a list, or per value of a column of one table.

    Args:
        data: Data sets whose samples share a shape, in order; or one table `[N, columns]`.
        column: Of the table: its values, ascending, are the domains. Several columns are a one-hot code:
            the largest of them names the domain, in the order given.
        held_out: Share (0..1) of each domain of a table without test samples to test on, spread evenly over it.
    """
    if column is not None:
        parts = Parts.of(data)  # type: ignore[arg-type]
        return _by_column(_held(parts, column, held_out) if held_out else parts, column)
    if not isinstance(data, list):
        raise ConfigError(f"need a list of data sets, or a table and column=, got {type(data).__name__} alone")
    _at_least_one(len(data))
    return _by_set([Parts.of(one) for one in data])


def _by_set(sets: Sequence[Parts]) -> Scenario:
    shapes = {tuple(_first_input(parts).shape) for parts in sets}
    if len(shapes) > 1:
        raise DataError(f"domains must share the shape of a sample, got {sorted(shapes)}; resize them first")
    offsets = [0]
    for parts in sets:
        offsets.append(offsets[-1] + parts.stride)

    def cut(index: int, samples: Samples) -> Samples:
        return changed(samples, _same, offsets[index])

    def make(index: int) -> Cut:
        parts = sets[index]
        test = None if parts.test is None else partial(cut, index, parts.test)
        labels = labels_in(parts, parts.train)
        return Cut(index, parts.name, labels, partial(cut, index, parts.train), test, names=parts.classes)

    name = "+".join(parts.name for parts in sets)
    classes = tuple(LabelMap(label for parts in sets for label in parts.classes).tolist())
    counts = {
        "experiences": len(sets),
        "classes": len(classes),
        "train": sum(len(parts.train) for parts in sets),
        "test": sum(len(parts.test) for parts in sets if parts.test is not None),
    }
    data = {"name": name, "sha256": "+".join(parts.sha256 for parts in sets)}
    steps = Steps(len(sets), make)
    return Scenario(f"domain-il-{name}", "domain-il", steps, classes, 0, counts, data, {"change": "data sets"})


def _by_column(parts: Parts, column: int | Sequence[int]) -> Scenario:
    train = _domain_of(parts.train, column)
    test = None if parts.test is None else _domain_of(parts.test, column)
    values = train.unique().tolist()
    if len(values) > MOST_DOMAINS:
        raise DataError(f"column {column} of {parts.name} has {len(values)} values, at most {MOST_DOMAINS} are domains")

    def cut(samples: Samples, found: Tensor, index: int) -> Samples:
        return samples.take((found == values[index]).nonzero().flatten())

    part = newest(partial(cut, parts.train, train))

    def make(index: int) -> Cut:
        held_out = None if parts.test is None or test is None else partial(cut, parts.test, test, index)
        present = parts.train.y[train == values[index]].unique().tolist()
        labels = [parts.classes[i] for i in present]
        return Cut(index, f"domain-{values[index]:g}", labels, partial(part, index), held_out, names=parts.classes)

    listed = column if isinstance(column, int) else list(column)
    return assemble("domain-il", parts, Steps(len(values), make), seed=0, change="column", column=listed)


def _held(parts: Parts, column: int | Sequence[int], share: float) -> Parts:
    """Return `parts` with `share` of each domain's samples, of which there must be two, as test samples."""
    if not 0 < share < 1 or parts.test is not None:
        raise ConfigError(
            f"a share between 0 and 1 is held out of data without a test part, got {share} of {parts.name}"
        )
    found = _domain_of(parts.train, column)
    rows = [(found == value).nonzero().flatten() for value in found.unique()]
    test = torch.cat([spread(own, share) for own in rows if len(own) > 1]).sort().values
    kept = torch.ones(len(found), dtype=torch.bool)
    kept[test] = False
    train = parts.train.take(kept.nonzero().flatten())
    return Parts(parts.name, train, parts.train.take(test), parts.classes, parts.sha256)


def _told(task_ids: bool) -> dict[str, Any]:
    """Return the option that makes a scenario provide task ids; streams without them keep their signatures."""
    return {"task_ids": True} if task_ids else {}


def _changing(parts: Parts, steps: Sequence[Transform], names: Sequence[str], task_ids: bool) -> Steps:
    """Return one experience per transform, of all samples, computed when it is asked for."""
    stride = parts.stride

    def cut(samples: Samples, index: int) -> Samples:
        return changed(samples, steps[index], index * stride)

    train = newest(partial(cut, parts.train))
    test = None if parts.test is None else newest(partial(cut, parts.test), TESTS)
    labels = labels_in(parts, parts.train)

    def make(index: int) -> Cut:
        held_out = None if test is None else partial(test, index)
        task = index if task_ids else -1
        return Cut(index, names[index], labels, partial(train, index), held_out, task=task, names=parts.classes)

    return Steps(len(steps), make)


def _domain_of(samples: Samples, column: int | Sequence[int]) -> Tensor:
    """Return the domain of each sample `[N]`: a value of the column, or the place of the largest column."""
    if not isinstance(samples, Batch) or samples.x.dim() != 2:
        raise DataError("only a table in memory [N, columns] has domains in a column; give a list of data sets instead")
    width = samples.x.shape[1]
    columns = [column] if isinstance(column, int) else list(column)
    if not columns or not all(0 <= c < width for c in columns):
        raise ConfigError(f"columns count from 0 to {width - 1}, got {column}")
    return samples.x[:, column] if isinstance(column, int) else samples.x[:, columns].argmax(1)


def _first_input(parts: Parts) -> Tensor:
    if isinstance(parts.train, Batch):
        return parts.train.x[0]
    return stack([parts.train[0][0]])[0]


def _at_least_one(experiences: int) -> int:
    if experiences < 1:
        raise ConfigError(f"a scenario needs at least 1 experience, got {experiences}")
    return experiences


def _same(x: Tensor) -> Tensor:
    return x
