"""Rows that an old version wrote: which of them a new feature is compared with, and by what."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lifelong.learning.neighbours import OldRows


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=1, keepdim=True)


def shares(z: Tensor, y: list[int], ids: list[int], rows: Tensor, of: list[int], known: list[int]) -> list[float]:
    """Return, one by one, how much of the sum over other samples' rows belongs to the class of each z that has any."""
    found = []
    for i, query in enumerate(unit(z)):
        weights = {j: math.exp(7.0 * float(query @ row)) for j, row in enumerate(unit(rows)) if known[j] != ids[i]}
        right = sum(weight for j, weight in weights.items() if of[j] == y[i])
        found += [right / sum(weights.values())] if right else []
    return found


def test_old_rows_are_the_last_ones_and_no_sample_meets_its_own() -> None:
    """Twelve rows in three batches into room for eight; sample 5 comes twice, class 3 has one row only: its own."""
    random = torch.Generator().manual_seed(0)
    rows, z = torch.randn(12, 5, generator=random), torch.randn(4, 5, generator=random)
    of, known = [0, 0, 0, 0, 1, 2, 1, 2, 1, 2, 3, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 10, 11]
    found = OldRows(8)
    for part in (slice(0, 4), slice(4, 9), slice(9, 12)):
        found.add(rows[part], torch.tensor(of[part]), torch.tensor(known[part]))
    y, ids = [1, 2, 3, 2], [8, 5, 10, 99]
    expected = [-math.log(share) for share in shares(z, y, ids, rows[4:], of[4:], known[4:])]
    assert len(expected) == 3
    loss = found.loss(z, torch.tensor(y), torch.tensor(ids), 7.0)
    assert loss.item() == pytest.approx(sum(expected) / 3, rel=1e-5)

    again = OldRows(8)
    again.restore(found.state())
    assert torch.equal(again.loss(z, torch.tensor(y), torch.tensor(ids), 7.0), loss)
    again.clear()
    assert again.state() == {}


def test_a_sample_that_is_alone_with_itself_adds_nothing() -> None:
    z, one = torch.randn(1, 5, requires_grad=True), torch.tensor([1])
    found = OldRows(8)
    found.add(z, one, one)
    loss = found.loss(z, one, one, 7.0)
    loss.backward()
    assert loss == 0 and z.grad is not None and not z.grad.any()
