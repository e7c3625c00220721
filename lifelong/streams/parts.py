"""Data that scenarios can cut: training and test samples, in memory or behind any `(x, y)` data.

Batches are cut into batches. Map-style data stays where it is: a part of it is a `Subset`, which reads an item when
it is asked for. In both, `y` indexes `classes`, and a sample keeps one id through every cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from lifelong.batching import stack
from lifelong.data import DataSet
from lifelong.errors import DataError
from lifelong.labels import Label, LabelMap
from lifelong.types import Batch

Transform: TypeAlias = Callable[[Tensor], Tensor]  # [N, ...] -> [N, ...]


@final
class Subset:
    """Chosen items of map-style data, read lazily; an item is `(x, class index)`.

    Args:
        data: Anything with `__getitem__` whose items start with an input.
        y: Class indices of the chosen items `[N]` i64.
        rows: Where the chosen items are in `data` `[N]` i64.
        ids: Their stable sample ids `[N]` i64.
        transform: Applied to the inputs `[N, ...]`; None keeps them.
    """

    def __init__(
        self,
        data: Any,  # noqa: ANN401 - whatever a user has
        y: Tensor,
        rows: Tensor,
        ids: Tensor,
        transform: Transform | None = None,
    ) -> None:
        self.data, self.y, self.rows, self.ids, self.transform = data, y, rows, ids, transform

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        x = self.data[int(self.rows[index])][0]
        if self.transform is not None:
            x = self.transform(stack([x]))[0]
        return x, int(self.y[index])

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return (self[index] for index in range(len(self)))

    def sample_id(self, index: int) -> int:
        """Return the stable id of item `index`."""
        return int(self.ids[index])

    def take(self, rows: Tensor) -> Subset:
        """Return the subset of this subset at `rows` `[M]` i64."""
        return Subset(self.data, self.y[rows], self.rows[rows], self.ids[rows], self.transform)


Samples: TypeAlias = Batch | Subset


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """What a scenario is cut from.

    Args:
        name: Of the data.
        train: Training samples; `y` indexes `classes`.
        test: Test samples, likewise, with ids of their own; None where nothing is held out.
        classes: All labels, in order.
        sha256: Of the data, where it is known.
    """

    name: str
    train: Samples
    test: Samples | None
    classes: tuple[Label, ...]
    sha256: str = ""

    @property
    def stride(self) -> int:
        """Return a number above all ids: what a changed copy of all samples adds to have ids of its own."""
        parts = [self.train] if self.test is None else [self.train, self.test]
        return 1 + max((int(part.ids.max()) for part in parts if len(part)), default=0)

    @classmethod
    def of(cls, data: Data) -> Parts:
        """Return `data` as parts; the task ids of its samples are dropped, for the scenario decides on them.

        Raises:
            DataError: It is neither a data set nor `(train, test)`, or there is nothing to train on.
        """
        if isinstance(data, Parts):
            return data
        if isinstance(data, DataSet):
            test = None if data.test is None else _without_task(data.test)
            return cls(data.name, _without_task(data.train), test, data.classes, data.sha256)
        if not isinstance(data, tuple) or len(data) != 2:
            raise DataError(f"need a DataSet or (train, test), got {type(data).__name__}; see from_data")
        return from_data(*data)


Data: TypeAlias = DataSet | Parts | tuple[Any, Any]


def from_data(
    train: Batch | Iterable[Any],
    test: Batch | Iterable[Any] | None = None,
    *,
    name: str = "data",
    classes: Sequence[Label] | None = None,
    labels: Sequence[object] | None = None,
    test_labels: Sequence[object] | None = None,
) -> Parts:
    """Return any `(x, y)` data in a form that scenarios can cut; no `.targets` attribute is asked for.

    Args:
        train: A `Batch` (its `y` are the labels), map-style data (stays where it is), or a finite iterable
            (is read into a list). Items are `(x, y)` or longer; labels are strings or integers.
        test: Test samples, likewise.
        name: Of the data, for names and signatures.
        classes: All labels in order; None takes integers ascending, and strings as they first appear.
        labels: The label of each item of `train`, which spares reading all items once to see them.
        test_labels: Likewise for `test`.

    Raises:
        DataError: There is nothing to train on, or a label is not among `classes`.
    """
    train, train_labels = _labelled(train, labels)
    tested, tested_labels = (None, []) if test is None else _labelled(test, test_labels)
    if not train_labels:
        raise DataError(f"{name} holds no training sample; give at least one (x, y)")
    known = LabelMap(train_labels + tested_labels if classes is None else classes)
    numbers = [label for label in known.tolist() if isinstance(label, int)]
    if classes is None and len(numbers) == len(known):
        known = LabelMap(sorted(numbers))
    whole = _samples(train, train_labels, known, 0)
    if tested is None:
        return Parts(name, whole, None, tuple(known.tolist()))
    first = 1 + int(whole.ids.max())
    return Parts(name, whole, _samples(tested, tested_labels, known, first), tuple(known.tolist()))


def _labelled(data: Batch | Iterable[Any], labels: Sequence[object] | None) -> tuple[Any, list[object]]:
    """Return `data` with random access, and the label of each sample."""
    if isinstance(data, Batch):
        return data, data.y.tolist()
    items: Any = data if hasattr(data, "__getitem__") and hasattr(data, "__len__") else list(data)
    found = [items[i][1] for i in range(len(items))] if labels is None else list(labels)
    if len(found) != len(items):
        raise DataError(f"need one label per sample, got {len(found)} labels for {len(items)} samples")
    return items, found


def _samples(data: Any, labels: list[object], known: LabelMap, first: int) -> Samples:  # noqa: ANN401
    y = known.encode(labels)
    if (y < 0).any():
        label = labels[int((y < 0).nonzero()[0])]
        raise DataError(f"label {label!r} is not among the classes {known.tolist()[:10]}; add it there")
    if isinstance(data, Batch):
        ids = data.ids if not len(data) or int(data.ids.min()) >= first else data.ids + first
        return _without_task(Batch(data.x, y, ids, data.task))
    rows = torch.arange(len(y))
    return Subset(data, y, rows, rows + first)


def _without_task(batch: Batch) -> Batch:
    return Batch(batch.x, batch.y, batch.ids, torch.full_like(batch.y, -1))


def changed(samples: Samples, transform: Transform, offset: int) -> Samples:
    """Return `samples` with other inputs, and `offset` added to the ids, for they are other samples now."""
    if isinstance(samples, Batch):
        return Batch(transform(samples.x), samples.y, samples.ids + offset, samples.task)
    old = samples.transform
    both = transform if old is None else (lambda x: transform(old(x)))
    return Subset(samples.data, samples.y, samples.rows, samples.ids + offset, both)


def of_classes(samples: Samples, wanted: Tensor) -> Samples:
    """Return the samples whose class index is `wanted` `[C]` i64, in order."""
    return samples.take(torch.isin(samples.y, wanted).nonzero().flatten())


def spread(rows: Tensor, share: float) -> Tensor:
    """Return about `share` (0..1) of `rows` `[N]`, N >= 2, at equal distances: at least one, and not all."""
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    return rows[torch.linspace(0, len(rows) - 1, count + 1)[1:].long()]
