"""Labels keep the index they were given first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong.errors import DataError
from lifelong.labels import Label, LabelMap, plain_label

anything = st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=5))


@given(batches=st.lists(st.lists(anything, max_size=6), max_size=6))
def test_an_index_once_given_never_changes(batches: list[list[Label]]) -> None:
    """Indices are positions of first appearance, by the naive definition."""
    labels, expected = LabelMap(), []
    for batch in batches:
        before = labels.tolist()
        expected += [label for i, label in enumerate(batch) if label not in expected and label not in batch[:i]]

        assert labels.register(batch) == len(expected)
        assert labels.tolist()[: len(before)] == before
    assert labels.tolist() == expected
    assert labels.decode(labels.encode(expected)) == expected
    assert LabelMap(labels.tolist()) == labels


@given(known=st.lists(st.integers(0, 9), unique=True), asked=st.lists(st.integers(0, 12)))
def test_a_tensor_and_a_list_of_labels_encode_alike(known: list[int], asked: list[int]) -> None:
    labels = LabelMap(known)
    expected = [known.index(a) if a in known else -1 for a in asked]

    assert labels.encode(torch.tensor(asked, dtype=torch.int64)).tolist() == expected
    assert labels.encode(asked).tolist() == expected


def test_integers_with_names_encode_as_what_they_stand_for() -> None:
    labels = LabelMap(["boot", "hat"])

    assert labels.encode(torch.tensor([1, 0, 2]), names=["hat", "boot", "glove"]).tolist() == [0, 1, -1]


@pytest.mark.parametrize("odd", [-1, 2])
def test_an_integer_without_a_name_is_refused(odd: int) -> None:
    """-1 must not mean the last name."""
    with pytest.raises(DataError, match=f"from 0 to 1, got {odd}"):
        LabelMap(["a", "b"]).encode(torch.tensor([0, odd]), names=["a", "b"])
    with pytest.raises(DataError, match=f"from 0 to 1, got {odd}"):
        LabelMap(["a", "b"]).decode([0, odd])


def test_strings_and_integers_are_different_labels() -> None:
    labels = LabelMap([1, "1"])

    assert (labels.index(1), labels.index("1")) == (0, 1)


@pytest.mark.parametrize("label", [1.5, None, True, np.float64(1.0), np.bool_(True), b"x", (1,), torch.tensor([1])])
def test_a_label_is_a_string_or_an_integer(label: object) -> None:
    with pytest.raises(DataError, match="a label must be a string or an integer"):
        plain_label(label)


@pytest.mark.parametrize(
    ("label", "expected"), [(np.int32(3), 3), (np.str_("a"), "a"), (torch.tensor(4), 4), (7, 7), ("b", "b")]
)
def test_scalars_of_numpy_and_torch_become_plain(label: object, expected: Label) -> None:
    found = plain_label(label)

    assert found == expected
    assert type(found) in (int, str)


def test_of_labels_with_a_bad_one_none_is_registered() -> None:
    labels = LabelMap(["a"])
    with pytest.raises(DataError):
        labels.register(["b", 1.5])

    assert labels.tolist() == ["a"]


@pytest.mark.parametrize("labels", [torch.tensor([0.0]), torch.zeros(2, 2, dtype=torch.int64)])
def test_a_tensor_of_labels_is_a_row_of_integers(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="labels must be integers of shape"):
        LabelMap([0]).encode(labels)
