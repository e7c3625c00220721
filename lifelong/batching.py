"""Batches of data that is not ours: any map-style or iterable source of (x, y) or (x, y, task)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.errors import DataError

Row = tuple[int, Any]  # stable id, item


def rows(data: Iterable[Any], generator: torch.Generator | None, skip: int) -> Iterator[Row]:
    """Yield `(id, item)` of `data`; in a drawn order where items can be reached by index.

    Args:
        data: Map-style (`__getitem__` and `__len__`) or iterable; ids count its items from 0, or are
            what its method `sample_id(i)` says (a part of larger data knows where its items came from).
        generator: Draws the order of map-style data; None keeps it.
        skip: Items to leave out at the front of that order.
    """
    if hasattr(data, "__getitem__") and isinstance(data, Sized):
        order = range(len(data)) if generator is None else torch.randperm(len(data), generator=generator).tolist()
        identify = getattr(data, "sample_id", int)
        return ((identify(i), data[i]) for i in order[skip:])
    return islice(enumerate(data), skip, None)


def chunks(source: Iterator[Row], size: int) -> Iterator[tuple[Tensor, list[Any], Tensor, list[int] | None]]:
    """Yield `(x [N, ...], labels, ids [N], tasks or None)` of at most `size` rows each.

    Raises:
        DataError: Items are not pairs or triples, or inputs of one batch differ in shape.
    """
    while chunk := list(islice(source, size)):
        ids, items = zip(*chunk, strict=True)
        widths = {len(item) if isinstance(item, tuple | list) else 0 for item in items}
        if widths not in ({2}, {3}):
            raise DataError(f"data must yield (x, y) or (x, y, task), got an item like {type(items[0]).__name__}")
        yield (
            stack([item[0] for item in items]),
            [item[1] for item in items],
            torch.tensor(ids, dtype=torch.int64),
            [int(item[2]) for item in items] if widths == {3} else None,
        )


def stack(inputs: list[Any]) -> Tensor:
    """Return inputs as one tensor `[N, ...]`: tensors, arrays, numbers, lists and PIL images (as float 0..1)."""
    tensors = [_tensor(x) for x in inputs]
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) != 1:
        raise DataError(f"inputs of one batch must share a shape, got {sorted(shapes)}; resize or pad them first")
    return torch.stack(tensors)


def _tensor(x: Any) -> Tensor:  # noqa: ANN401 - whatever a data set yields
    if isinstance(x, Tensor):
        return x
    image = hasattr(x, "getbands")  # PIL, without importing it
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise DataError(f"inputs must be numeric, got {array.dtype} from a {type(x).__name__}; encode them first")
    tensor = torch.from_numpy(np.array(array))
    if image:
        return (tensor.movedim(-1, 0) if tensor.dim() == 3 else tensor.unsqueeze(0)).float() / 255
    return tensor.float() if tensor.dtype == torch.float64 else tensor
