"""Streams that cut samples in pieces, whatever their classes: i.i.d., by time, a few at a time, with soft borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.streams.orders import Order, class_order
from lifelong.streams.parts import Data, Parts, Samples, spread
from lifelong.streams.scenario import Cut, Scenario, Steps, assemble, newest
from lifelong.types import Batch

FURTHEST = 5.0  # standard deviations; a value that was never seen before would be any number of them away


def data_incremental(data: Data, experiences: int = 5, *, seed: int = 0) -> Scenario:
    """Return the training samples in i.i.d. parts of equal size, each tested on the whole test set."""
    parts = Parts.of(data)
    if not 1 <= experiences <= len(parts.train):
        raise ConfigError(f"cut {len(parts.train)} samples into 1 to {len(parts.train)} parts, got {experiences}")
    order = torch.randperm(len(parts.train), generator=torch.Generator().manual_seed(seed))
    steps = _pieces(parts, order.tensor_split(experiences), "part", test=True)
    return assemble("data-il", parts, steps, seed=seed)


def periods(data: Data, experiences: int = 5, *, held_out: float = 0.2) -> Scenario:
    """Return a stream in the order of its time, in parts of equal length, each tested on samples of its own time.

    Args:
        data: What to cut, in the order of its time; test samples that it has are not used.
        experiences: How many parts.
        held_out: Share (0..1, both excluded) of each part that is tested on, spread evenly over it.
    """
    parts = Parts.of(data)
    if not 0 < held_out < 1 or not 1 <= experiences <= len(parts.train) // 2:
        raise ConfigError(
            f"need a share to hold out between 0 and 1 and at least 2 samples in each part, "
            f"got held_out={held_out} and {experiences} parts of {len(parts.train)} samples"
        )
    pieces = torch.arange(len(parts.train)).tensor_split(experiences)
    tested = [spread(piece, held_out) for piece in pieces]
    learned = [piece[~torch.isin(piece, test)] for piece, test in zip(pieces, tested, strict=True)]
    train = newest(lambda index: parts.train.take(learned[index]))

    def make(index: int) -> Cut:
        labels = [parts.classes[i] for i in parts.train.y[learned[index]].unique().tolist()]
        test = partial(parts.train.take, tested[index])
        return Cut(index, f"period-{index}", labels, partial(train, index), test, names=parts.classes)

    made = assemble("domain-il", parts, Steps(experiences, make), seed=0, change="time", held_out=held_out)
    return replace(made, counts={**made.counts, "train": sum(map(len, learned)), "test": sum(map(len, tested))})


def online(
    data: Data, size: int = 10, *, order: str = "shuffled", scale: bool = False, seed: int = 0, test: bool = True
) -> Scenario:
    """Return a stream of a few samples at a time, each seen once, without boundaries or task ids.

    Args:
        data: What to stream.
        size: Samples per experience; the last may be smaller.
        order: "shuffled" (i.i.d.), "file" (as stored), or "classes" (class after class, shuffled within).
        scale: Bring each value to mean 0 and deviation 1 by what was seen of it up to its experience, clipped at
            5; nothing of the future is used. Of samples in memory, and then nothing is held out.
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
    if not scale:
        steps = _pieces(parts, rows.split(size), "step", test=test)
        return assemble("online", parts, steps, seed=seed, size=size, order=order)
    parts, rows = _scaled(parts, rows, size), torch.arange(len(rows))
    steps = _pieces(parts, rows.split(size), "step", test=False)
    return assemble("online", parts, steps, seed=seed, size=size, order=order, scale=True)


def blurry(
    data: Data, experiences: int = 5, size: int = 10, *, width: float = 0.5, order: Order = None, seed: int = 0
) -> Scenario:
    """Return classes in groups, as `class_incremental`, whose borders are soft; a few samples at a time, each once.

    Around a border the share of the later group grows as sigmoid(4 t / w), t being the distance from it and w the
    `width`, both in samples. A stream without boundaries: what is tested is each sample before it is learned.
    (The sigmoid is that of gradual drift in Bifet et al. 2010, "MOA".)

    Args:
        data: What to stream.
        experiences: Groups of classes.
        size: Samples per experience; the last may be smaller.
        width: Of a border, as a share of an average group's samples, > 0.
        order: Of the classes, see `lifelong.streams.orders`.
        seed: Of what is drawn.
    """
    parts = Parts.of(data)
    if size < 1 or not width > 0 or not 1 <= experiences <= len(parts.classes):
        raise ConfigError(
            f"need size >= 1, width > 0 and 1 to {len(parts.classes)} experiences, "
            f"got size={size}, width={width}, experiences={experiences}"
        )
    random = torch.Generator().manual_seed(seed)
    classes = class_order(parts, order, seed)
    group = torch.empty(len(classes), dtype=torch.int64)
    for index, own in enumerate(classes.tensor_split(experiences)):
        group[own] = index
    rows = torch.randperm(len(parts.train), generator=random)
    rows = rows[group[parts.train.y[rows]].argsort(stable=True)]
    even = torch.rand(len(rows), generator=random, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    late = even.logit() * width * len(rows) / experiences / 4  # logistic noise: its distribution is the sigmoid
    rows = rows[(torch.arange(len(rows)) + late).argsort(stable=True)]
    steps = _pieces(parts, rows.split(size), "step", test=False)
    listed = [parts.classes[i] for i in classes.tolist()]
    told = {"size": size, "groups": experiences, "width": width, "order": listed}
    return assemble("online", parts, steps, seed=seed, classes=listed, **told)


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


def _scaled(parts: Parts, rows: Tensor, size: int) -> Parts:
    """Return the samples at `rows` as one part, each scaled by the mean and deviation of all up to its piece."""
    if not isinstance(parts.train, Batch):
        raise DataError(f"only samples in memory are scaled, got {type(parts.train).__name__} of {parts.name}")
    batch = parts.train.take(rows)
    x = batch.x.flatten(1).double()
    pieces = x.split(size)
    count = torch.tensor([len(piece) for piece in pieces]).cumsum(0)[:, None]
    mean = torch.stack([piece.sum(0) for piece in pieces]).cumsum(0) / count
    square = torch.stack([piece.square().sum(0) for piece in pieces]).cumsum(0) / count
    spread = (square - mean.square()).clamp(min=0).sqrt()
    piece_of = torch.arange(len(x)) // size
    spread = torch.where(spread > 1e-6 * mean.abs() + 1e-12, spread, torch.inf)  # what never changed stays at 0
    x = ((x - mean[piece_of]) / spread[piece_of]).clamp(-FURTHEST, FURTHEST)
    scaled = Batch(x.float().view_as(batch.x), batch.y, batch.ids, batch.task)
    return Parts(parts.name, scaled, None, parts.classes, parts.sha256)
