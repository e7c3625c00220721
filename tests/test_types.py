"""Batches, spaces and experiences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from torch import Tensor

from lifelong.errors import DataError
from lifelong.labels import LabelMap
from lifelong.types import Batch, Experience, Space

X, Y = torch.arange(14.0).reshape(7, 2), torch.tensor([5, 3, 5, 5, 3, 5, 3])
NAMES = ["a", "b", "c", "boot", "d", "hat"]


class Endless:
    """Iterable, not map-style, of unknown length."""

    def __iter__(self) -> Iterator[tuple[Tensor, str]]:
        return zip(X, [NAMES[y] for y in Y], strict=True)


FORMS: dict[str, tuple[Any, Any]] = {
    "batch": (Batch.of(X, Y), NAMES),
    "pairs": (list(zip(X, Y.tolist(), strict=True)), NAMES),
    "strings": (list(zip(X, [NAMES[y] for y in Y], strict=True)), None),
    "iterable": (Endless(), None),
}


def cut(experience: Experience, size: int = 3, seed: int | None = None, **arguments: Any) -> tuple[Batch, LabelMap]:
    labels = LabelMap()
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = list(experience.batches(size, generator, labels, **arguments))
    assert [len(b) for b in batches] == [size] * (len(batches) - 1) + [len(batches[-1])]
    return Batch.cat(batches), labels


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_batches(form: str) -> None:
    data, names = FORMS[form]
    whole, labels = cut(Experience(0, "e", ["boot", "hat"], data, names=names, task=4))

    assert torch.equal(whole.x, X)
    assert labels.tolist() == ["boot", "hat"]
    assert labels.decode(whole.y) == [NAMES[y] for y in Y]
    assert whole.ids.tolist() == list(range(7))
    assert whole.task.tolist() == [4] * 7


@pytest.mark.parametrize("form", ["batch", "pairs", "strings"])
def test_a_generator_draws_the_order_and_every_sample_comes_once(form: str) -> None:
    data, names = FORMS[form]
    experience = Experience(0, "e", ["boot", "hat"], data, names=names)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(5))

    whole, labels = cut(experience, seed=5)

    assert whole.ids.tolist() == order.tolist()
    assert torch.equal(whole.x, X[order])
    assert labels.decode(whole.y) == [NAMES[y] for y in Y[order]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("skip", [1, 2])
def test_skipping_leaves_out_whole_batches_of_the_same_order(form: str, skip: int) -> None:
    data, names = FORMS[form]
    experience = Experience(0, "e", ["boot", "hat"], data, names=names)

    assert torch.equal(cut(experience, seed=1, skip=skip)[0].ids, cut(experience, seed=1)[0].ids[3 * skip :])


@pytest.mark.parametrize("form", FORMS)
def test_held_out_labels_that_never_appeared_are_unknown_and_get_no_index(form: str) -> None:
    data, names = FORMS[form]
    experience = Experience(0, "e", ["hat"], data, data, names=names)
    labels = LabelMap(["hat"])
    whole = Batch.cat(list(experience.batches(9, None, labels, test=True)))

    assert whole.y.tolist() == [0 if y == 5 else -1 for y in Y]
    assert labels.tolist() == ["hat"]


def test_a_sample_keeps_the_task_that_it_carries() -> None:
    tasks = torch.tensor([1, -1, 2, -1, -1, -1, -1])
    triples = [(x, y, t) for x, y, t in zip(X, Y.tolist(), tasks.tolist(), strict=True)]
    expected = [1, 9, 2, 9, 9, 9, 9]

    for data in (Batch.of(X, Y, task=tasks), triples):
        assert cut(Experience(0, "e", [3, 5], data, task=9))[0].task.tolist() == expected


def test_inputs_can_be_refused_before_their_labels_get_an_index() -> None:
    def refuse(x: Tensor) -> None:
        raise DataError("no")

    labels = LabelMap()
    with pytest.raises(DataError, match="no"):
        next(Experience(0, "e", [], FORMS["strings"][0]).batches(2, None, labels, check=refuse))

    assert labels.tolist() == []


@pytest.mark.parametrize("form", ["batch", "pairs"])
def test_a_label_outside_of_the_names_is_refused(form: str) -> None:
    """-1 must not mean the last name."""
    y = torch.tensor([-1])
    data: Any = Batch.of(X[:1], y) if form == "batch" else [(X[0], -1)]
    with pytest.raises(DataError, match="got -1"):
        cut(Experience(0, "e", ["a"], data, names=NAMES))


def test_an_experience_refuses_what_it_cannot_do() -> None:
    with pytest.raises(DataError, match="counts from 0"):
        Experience(-1, "e", [], [])
    with pytest.raises(DataError, match="holds nothing out"):
        cut(Experience(0, "e", [], FORMS["pairs"][0]), test=True)
    with pytest.raises(DataError, match="at least 1 sample"):
        cut(Experience(0, "e", [], FORMS["pairs"][0]), size=0)
    assert "train=7" in repr(Experience(0, "e", [3], FORMS["batch"][0]))
    assert "train=?" in repr(Experience(0, "e", [3], Endless()))


@pytest.mark.parametrize(
    ("x", "y", "more"),
    [
        (X, Y[:6], {}),
        (X, Y.reshape(7, 1), {}),
        (X, Y.float(), {}),
        (torch.tensor(1.0), Y[:1], {}),
        (X, Y, {"ids": torch.arange(6)}),
        (X, Y, {"ids": torch.arange(7.0)}),
        (X, Y, {"task": torch.arange(3)}),
    ],
)
def test_a_batch_refuses_parts_that_do_not_belong_together(x: Tensor, y: Tensor, more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="need"):
        Batch.of(x, y, **more)


def test_batches_are_cut_taken_and_joined_row_by_row() -> None:
    batch = Batch.of(X, Y, ids=torch.arange(10, 17), task=2)
    rows = torch.tensor([4, 0, 4])
    taken = batch.take(rows)

    assert torch.equal(Batch.cat([batch[:3], batch[3:]]).x, X)
    for name, tensor in taken.state().items():
        assert torch.equal(tensor, batch.state()[name][rows])
    taken.x.zero_()
    assert torch.equal(batch.x, torch.arange(14.0).reshape(7, 2))  # taken is a copy
    assert Batch.cat([batch]) is batch
    with pytest.raises(FrozenInstanceError):
        batch.x = X  # type: ignore[misc]


def test_a_space_always_reads_itself() -> None:
    assert Space("b", 3, frozenset({"a"})).reads == {"a", "b"}
    assert Space("b", 3) == Space("b", 3, frozenset({"b"}))


@pytest.mark.parametrize(("name", "dim"), [("", 3), ("a", 0)])
def test_a_space_has_an_id_and_a_width(name: str, dim: int) -> None:
    with pytest.raises(DataError, match="a space needs an id"):
        Space(name, dim)
