"""What changed between the weights of two versions, row by row: a small update need not ship the rest.

A method that touches few rows (the key-value bottleneck) changes a small part of a large tensor. The rows that differ
and the weights before give the weights after, bit for bit; a tensor that changed nearly everywhere is shipped whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lifelong.errors import ArtifactError

Weights = Mapping[str, Tensor]


@final
@dataclass(frozen=True, eq=False)
class Delta:
    """From one version's weights to another's.

    Args:
        shapes: Of every tensor of the new weights, by name; what is not named is gone.
        rows: Of tensors that changed in part: row numbers `[R]` and rows `[R, w]`, the tensor being cut into rows of w
            values in memory order.
        whole: Tensors that are new, of another type, or changed in so many rows that this is smaller.
    """

    shapes: Mapping[str, tuple[int, ...]]
    rows: Mapping[str, tuple[Tensor, Tensor]]
    whole: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all row numbers, rows and whole tensors."""
        return sum(map(_size, self.rows.values())) + sum(tensor.nbytes for tensor in self.whole.values())


def changed_rows(old: Weights, new: Weights) -> Delta:
    """Return what leads from `old` to `new`, in copies on the CPU; equal means equal bits, so NaN and -0.0 are kept.

    A tensor is cut into rows along its last axis, or into single values, whichever is smaller. Where it has grown, the
    rows are compared with what growing alone would have made of them (see `_grown`).

    >>> before = {"values": torch.zeros(100, 8)}
    >>> after = {"values": torch.zeros(100, 8).index_fill(0, torch.tensor([3, 70]), 1.0)}
    >>> delta = changed_rows(before, after)
    >>> delta.rows["values"][0].tolist(), delta.nbytes, after["values"].nbytes
    ([3, 70], 72, 3200)
    """
    rows: dict[str, tuple[Tensor, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in new.items():
        tensor = tensor.detach().cpu()
        was = _grown(old.get(name), tuple(tensor.shape), tensor.dtype)
        widths = {1, tensor.shape[-1] if tensor.dim() and tensor.numel() else 1}
        found = None if was is None else min((_differing(was, tensor, width) for width in widths), key=_size)
        if found is None or (_size(found) >= tensor.nbytes and len(found[0])):
            whole[name] = tensor.clone()
        elif len(found[0]):
            rows[name] = found
    return Delta({name: tuple(tensor.shape) for name, tensor in new.items()}, rows, whole)


def apply(old: Weights, delta: Delta) -> dict[str, Tensor]:
    """Return the new weights, in tensors of their own; `old` stays as it is.

    Raises:
        ArtifactError: The delta was made from other weights (by names, types or shapes; the same shapes with other
            numbers are not noticed: compare digests first).
    """
    new: dict[str, Tensor] = {}
    for name, shape in delta.shapes.items():
        if name in delta.whole:
            new[name] = delta.whole[name].clone()
            continue
        numbers, rows = delta.rows.get(name, (None, None))
        was = old.get(name)
        grown = _grown(was, shape, was.dtype if was is not None and rows is None else getattr(rows, "dtype", None))
        if grown is None:
            have = "nothing" if was is None else f"{was.dtype} {list(was.shape)}"
            raise ArtifactError(f"{name!r} cannot be made from {have}; the delta is of other weights, ship them whole")
        new[name] = grown.clone()
        if numbers is not None and rows is not None:
            new[name].view(-1, rows.shape[1])[numbers.long()] = rows
    return new


def _grown(old: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype | None) -> Tensor | None:
    """Return what to expect of a tensor before any row of it has changed; None if it is no successor of `old`.

    More columns repeat the last one (so the bottleneck grows: its last column is that of classes to come), more rows
    are zero.
    """
    if old is None or old.dtype != dtype or old.dim() != len(shape):
        return None
    old = old.detach().cpu().contiguous()
    if old.shape == shape:
        return old
    if old.numel() and old.shape[:-1] == shape[:-1] and old.shape[-1] < shape[-1]:
        more = old[..., -1:].expand(*shape[:-1], shape[-1] - old.shape[-1])
        return torch.cat([old, more], -1)
    if old.shape[1:] == shape[1:] and len(old) < shape[0]:
        return torch.cat([old, old.new_zeros(shape[0] - len(old), *shape[1:])])
    return None


def _differing(was: Tensor, now: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the numbers `[R]` and contents `[R, width]` of the rows of `now` that have other bits than in `was`."""
    before, after = (tensor.contiguous().view(-1, width) for tensor in (was, now))
    if not len(after):
        return torch.zeros(0, dtype=torch.int32), after
    numbers = (before.view(torch.uint8) != after.view(torch.uint8)).any(1).nonzero()[:, 0]
    return numbers.int() if len(after) < 1 << 31 else numbers, after[numbers]


def _size(found: tuple[Tensor, Tensor]) -> int:
    return found[0].nbytes + found[1].nbytes
