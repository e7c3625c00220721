"""An open set of labels and their stable indices: what a head's column 7 means, for ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from lifelong.errors import DataError

Label = str | int
TABLE = 1 << 16  # labels below this are looked up in a table
FEW = 64  # as many labels are looked up one by one: less than the calls that a table takes


def plain_label(label: object) -> Label:
    """Return `label` as a plain `str` or `int`.

    Raises:
        DataError: The label is neither (a float, None, a vector ...).
    """
    if isinstance(label, np.generic) or (isinstance(label, Tensor) and label.dim() == 0):
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise DataError(f"a label must be a string or an integer, got {label!r}; convert it first")
    return label


def named(values: Sequence[int], names: Sequence[Label] | None) -> list[Label]:
    """Return what integers stand for: `i` means `names[i]`; without names they stand for themselves.

    Raises:
        DataError: An integer has no name.
    """
    if names is None:
        return list(values)
    if odd := [v for v in values if not 0 <= v < len(names)]:
        raise DataError(f"integer labels with names run from 0 to {len(names) - 1}, got {odd[0]}")
    return [names[v] for v in values]


def distinct(labels: Tensor) -> list[int]:
    """Return the different values of integer labels `[N]`, ascending; small ones are counted, not sorted."""
    if len(labels) <= FEW:
        return sorted({int(v) for v in labels.tolist()})
    if len(labels) and int(labels.min()) >= 0 and int(labels.max()) < TABLE:
        return [int(v) for v in labels.long().bincount().nonzero().flatten().tolist()]
    return [int(v) for v in labels.unique().tolist()]


class LabelMap:
    """Labels in the order in which they first appeared; an index, once given, never changes.

    Args:
        labels: Labels known from the start, in index order.

    >>> labels = LabelMap()
    >>> labels.register(["shirt", "boot"])
    2
    >>> labels.index("boot"), labels[1], labels.index("hat")
    (1, 'boot', -1)
    """

    def __init__(self, labels: Iterable[object] = ()) -> None:
        self._labels: list[Label] = []
        self._index: dict[Label, int] = {}
        self.register(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Label:
        return self._labels[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelMap) and self._labels == other._labels

    __hash__ = None  # type: ignore[assignment]

    def register(self, labels: Iterable[object]) -> int:
        """Give an index to each label that has none; return how many labels there are now."""
        for label in [plain_label(label) for label in labels]:  # all of them are looked at before any gets an index
            if label not in self._index:
                self._index[label] = len(self._labels)
                self._labels.append(label)
        return len(self._labels)

    def index(self, label: object) -> int:
        """Return the index of `label`, or -1 if it never appeared."""
        return self._index.get(plain_label(label), -1)

    def encode(self, labels: Tensor | Sequence[object], names: Sequence[Label] | None = None) -> Tensor:
        """Return indices `[N]` i64 of `labels`; -1 for a label that never appeared.

        Args:
            labels: Integer labels `[N]` as a tensor, or any sequence of labels.
            names: What integer labels stand for: label `i` means `names[i]`.
        """
        if not isinstance(labels, Tensor):
            return torch.tensor([self.index(label) for label in labels], dtype=torch.int64)
        if labels.is_floating_point() or labels.dim() != 1:
            raise DataError(f"labels must be integers of shape [N], got {labels.dtype} of shape {list(labels.shape)}")
        if len(labels) <= FEW:
            few = [self._index.get(label, -1) for label in named([int(v) for v in labels.tolist()], names)]
            return torch.tensor(few, dtype=torch.int64, device=labels.device)
        values = distinct(labels)
        found = torch.tensor([self.index(label) for label in named(values, names)], dtype=torch.int64)
        found = found.to(labels.device)
        if values and values[0] >= 0 and values[-1] < TABLE:  # a table look-up: no sorting of all labels
            table = found.new_full((values[-1] + 1,), -1)
            table[torch.tensor(values, device=labels.device)] = found
            return table[labels.long()]
        return found[labels.unique(return_inverse=True)[1]]

    def decode(self, indices: Tensor | Sequence[int]) -> list[Label]:
        """Return the labels of `indices` `[N]`.

        Raises:
            DataError: An index has no label.
        """
        listed = indices.tolist() if isinstance(indices, Tensor) else indices
        return named(listed, self._labels)

    def tolist(self) -> list[Label]:
        """Return all labels in index order."""
        return list(self._labels)
