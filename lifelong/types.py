"""The values that flow through the house: frozen, small, and known to every part.

Shapes use this legend: N samples, D embedding width, C classes, T experiences, K nearest or
pre-allocated, P parameters; `[N, ...]` is a tensor whose first axis counts samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong import batching
from lifelong.errors import DataError
from lifelong.labels import Label, LabelMap, distinct, named


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples in memory.

    Args:
        x: Inputs `[N, ...]`.
        y: Class indices `[N]` i64 (in an `Experience`: the integer labels of its data).
        ids: Stable sample ids `[N]` i64; the same sample keeps its id for ever.
        task: Task of each sample `[N]` i64; -1 is unknown.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    task: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor, ids: Tensor | None = None, task: int | Tensor = -1) -> Batch:
        """Return a batch; ids count from 0 and the task is unknown unless given.

        Raises:
            DataError: `x` and `y` do not belong together.
        """
        if y.dim() != 1 or x.dim() < 1 or len(x) != len(y):
            raise DataError(f"need x [N, ...] and y [N], got shapes {list(x.shape)} and {list(y.shape)}")
        ids = torch.arange(len(y)) if ids is None else ids
        task = torch.full((len(y),), task) if isinstance(task, int) else task
        for name, numbers in (("y", y), ("ids", ids), ("task", task)):
            if numbers.shape != y.shape or numbers.is_floating_point():
                raise DataError(f"need {name} as {len(y)} integers, got {numbers.dtype} of shape {list(numbers.shape)}")
        return cls(x, y.long(), ids.long(), task.long())

    @classmethod
    def cat(cls, batches: Sequence[Batch]) -> Batch:
        """Return all samples of `batches`, in order."""
        if len(batches) == 1:
            return batches[0]
        return cls(
            torch.cat([b.x for b in batches]),
            torch.cat([b.y for b in batches]),
            torch.cat([b.ids for b in batches]),
            torch.cat([b.task for b in batches]),
        )

    def __len__(self) -> int:
        return self.y.shape[0]  # len of a tensor is a Python function

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return Batch(self.x[index], self.y[index], self.ids[index], self.task[index])

    def take(self, rows: Tensor) -> Batch:
        """Return a copy of the samples at `rows` `[M]` i64."""
        pick = torch.index_select
        return Batch(pick(self.x, 0, rows), pick(self.y, 0, rows), pick(self.ids, 0, rows), pick(self.task, 0, rows))

    def to(self, device: torch.device | str) -> Batch:
        """Return this batch on `device`."""
        return Batch(self.x.to(device), self.y.to(device), self.ids.to(device), self.task.to(device))

    def state(self) -> dict[str, Tensor]:
        """Return the four tensors by name."""
        return {"x": self.x, "y": self.y, "ids": self.ids, "task": self.task}


@dataclass(frozen=True, slots=True)
class Output:
    """What a model says of N inputs.

    Args:
        features: `[N, D]`.
        logits: `[N, C]`.
        tokens: `[N, T, D]`, one feature per position, where the head reads them; `features` are their mean.
    """

    features: Tensor
    logits: Tensor
    tokens: Tensor | None = None

    def __getitem__(self, rows: slice) -> Output:
        tokens = None if self.tokens is None else self.tokens[rows]
        return Output(self.features[rows], self.logits[rows], tokens)


@dataclass(frozen=True, slots=True)
class Space:
    """Whose vectors a model's queries may be compared with.

    Args:
        id: Name of the space that this model writes into.
        dim: Width D of its vectors.
        reads: Ids of the spaces whose vectors its queries may be compared with (measured; its own included).
        family: What has to agree before comparing is even worth measuring (method, K, preprocessing).
    """

    id: str
    dim: int
    reads: frozenset[str] = frozenset()
    family: str = ""

    def __post_init__(self) -> None:
        if not self.id or self.dim < 1:
            raise DataError(f"a space needs an id and dim >= 1, got id={self.id!r} and dim={self.dim}")
        object.__setattr__(self, "reads", frozenset(self.reads) | {self.id})


class Experience:
    """One step of a stream: what arrives together, and what to test on.

    Args:
        index: Position in the stream, from 0.
        name: For people.
        classes: The labels that occur in `train`; new ones get the next free class indices, in this order.
        train: Samples to learn from: a `Batch` (batched by indexing), or any map-style or iterable
            data of `(x, y)` or `(x, y, task)`; no `.targets` attribute is asked for.
        test: Held-out samples, likewise; None where nothing is held out (an endless stream).
        task: Task id of all samples that carry none; -1 is unknown.
        names: What integer labels stand for: label `i` means `names[i]`; None keeps integers.
    """

    def __init__(
        self,
        index: int,
        name: str,
        classes: Sequence[Label],
        train: Batch | Iterable[Any],
        test: Batch | Iterable[Any] | None = None,
        *,
        task: int = -1,
        names: Sequence[Label] | None = None,
    ) -> None:
        if index < 0:
            raise DataError(f"an experience's index counts from 0, got {index}")
        self.index, self.name, self.classes = index, name, tuple(classes)
        self.train, self.test, self.task, self.names = train, test, task, names

    def __repr__(self) -> str:
        size = len(self.train) if isinstance(self.train, Sized) else "?"
        return f"Experience({self.index}, {self.name!r}, classes={list(self.classes)}, train={size})"

    def batches(
        self,
        size: int,
        generator: torch.Generator | None,
        labels: LabelMap,
        *,
        skip: int = 0,
        test: bool = False,
        check: Callable[[Tensor], None] | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of at most `size` samples with class indices, in the order `generator` draws.

        Args:
            size: Samples per batch; the last batch may be smaller.
            generator: Draws a new order; None keeps the order of the data. Iterables keep theirs.
            labels: Turns labels into class indices; labels that first appear in training data get new ones.
            skip: Batches to leave out at the front (for a resume in the middle).
            test: Yield the held-out samples.
            check: Called with inputs before their labels get new indices; may refuse them by raising.
        """
        data = self.test if test else self.train
        if data is None:
            raise DataError(f"experience {self.name!r} holds nothing out; score it while it arrives instead")
        if size < 1:
            raise DataError(f"a batch needs at least 1 sample, got size={size}")
        if not test:
            labels.register(self.classes)
        if isinstance(data, Batch):
            known = self.encoded(data, labels)
            if not test and len(known) and int(known.y.min()) < 0:  # labels that the classes do not name
                self.register(labels)
                known = self.encoded(data, labels)
            yield from _indexed(known, size, generator, skip)
            return
        rows = batching.rows(data, generator, skip * size)
        for x, found, ids, tasks in batching.chunks(rows, size):
            found = found if self.names is None else named([int(i) for i in found], self.names)
            if check:
                check(x)
            if not test:
                labels.register(found)
            y = labels.encode(found)
            own = torch.tensor([-1] * len(y) if tasks is None else tasks)
            yield Batch(x, y, ids, torch.where(own < 0, self.task, own))

    def register(self, labels: LabelMap) -> int:
        """Give indices to this experience's classes, then to any other label of its data in memory."""
        labels.register(self.classes)
        if isinstance(self.train, Batch):
            labels.register(named(distinct(self.train.y), self.names))
        return len(labels)

    def encoded(self, data: Batch, labels: LabelMap) -> Batch:
        """Return in-memory `data` with class indices for labels, and this experience's task where it has none."""
        task = data.task if self.task < 0 else torch.where(data.task < 0, self.task, data.task)
        return Batch(data.x, labels.encode(data.y, self.names), data.ids, task)


def _indexed(known: Batch, size: int, generator: torch.Generator | None, skip: int) -> Iterator[Batch]:
    if generator is None:
        for start in range(skip * size, len(known), size):
            yield known[start : start + size]
        return
    order = torch.randperm(len(known), generator=generator).to(known.y.device)
    for start in range(skip * size, len(known), size):
        yield known.take(order[start : start + size])
