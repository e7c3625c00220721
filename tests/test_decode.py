"""Decoding: whatever a client sends becomes either checked values or one short sentence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lifelong.errors import DataError
from serving import decode

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.just(2), st.just(3)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_numbers_come_through_exactly(x):
    """Nested, flat, or a single sample: the same float32 numbers arrive."""
    for sent in (x.tolist(), x.reshape(len(x), 6).tolist()):
        np.testing.assert_array_equal(decode.samples(sent, (2, 3), 4), x)
    for sent in (x[0].tolist(), x[0].reshape(6).tolist()):
        np.testing.assert_array_equal(decode.samples(sent, (2, 3), 4), x[:1])


@given(anything)
def test_anything_else_is_a_short_data_error(x):
    """No value of JSON makes anything but samples or a DataError of one line."""
    try:
        rows = decode.samples(x, (3,), 4)
    except DataError as error:
        assert len(str(error)) < 300
        assert "\n" not in str(error)
    else:
        assert rows.dtype == np.float32
        assert rows.shape[1:] == (3,)
        assert np.isfinite(rows).all()


@pytest.mark.parametrize(
    ("x", "hint"),
    [
        (None, "got null"),
        (1, "got a number"),
        ("1", "got a string"),
        ({}, "got an object"),
        ([], "empty"),
        ([[]], "at least one number"),
        ([[], []], "at least one number"),
        ([[1, 2, 3], [1, 2]], "rectangular"),
        ([[1, 2, 3], 4], "rectangular"),
        ([1, [2], 3], "rectangular"),
        ([[1, "2", 3]], "a string"),
        ([[1, True, 3]], "true or false"),
        ([[1, None, 3]], "null"),
        ([[1, {}, 3]], "an object"),
        ([[1, math.inf, 3]], "finite"),
        ([[1, math.nan, 3]], "finite"),
        ([[1, 1e39, 3]], "finite"),
        ([[1, 10**400, 3]], "beyond the range"),
        ([1, 2], "shape [3]"),
        ([[1, 2, 3, 4]], "shape [3], got [1, 4]"),
        ([[[1, 2, 3]]], "got [1, 1, 3]"),
        ([[1, 2, 3]] * 5, "at most 4"),
    ],
)
def test_each_fault_is_named(x, hint):
    """What is wrong, and what was got."""
    with pytest.raises(DataError) as caught:
        decode.samples(x, (3,), 4)

    assert hint in str(caught.value)


def test_another_layout_of_the_same_size_is_refused():
    """[3, 2] is not [2, 3], however many numbers it has."""
    with pytest.raises(DataError, match=r"\[2, 3\] \(or flat, \[6\]\)"):
        decode.samples(np.zeros((1, 3, 2)).tolist(), (2, 3), 4)


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**60), 2**60) | st.text(max_size=5), max_size=4))
def test_documents_are_read_as_json_says(value):
    """The fast parser agrees with the standard library."""
    assert decode.document(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b"null", b'"x"', b"{'x': 1}", b'{"x": NaN}', b'{"x": Infinity}', b'{"x": 01}',
             b'{"x": "\xff"}', b"[" * 100000, b'{"x": ' * 5000, b'{"x": ' + b"9" * 10000 + b"}", b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(body):
    """One DataError, quickly; no RecursionError, no traceback."""
    with pytest.raises(DataError) as caught:
        decode.document(body)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [0, 11, -1, 10**30, 1.0, True, "1", None, [], math.nan])
def test_a_wrong_k_is_refused(value):
    """A whole number within its limits, and not something that looks like one."""
    with pytest.raises(DataError, match=r"k must be a whole number in 1\.\.10, got"):
        decode.integer(value, "k", 1, 10)


@pytest.mark.parametrize("value", [1, 10])
def test_limits_are_inclusive(value):
    """1..10 means 1 and 10 too."""
    assert decode.integer(value, "k", 1, 10) == value


@pytest.mark.parametrize(
    ("ids", "hint"),
    [
        (None, "null"),
        ("a", "a string"),
        ([], "0 entries"),
        (["a"] * 5, "5 entries"),
        ([1.5], "ids[0]"),
        ([True], "ids[0]"),
        (["a", None], "ids[1]"),
        ([[]], "ids[0]"),
        ([""], "1..256"),
        (["x" * 257], "1..256"),
        ([2**63], "64 bits"),
        ([10**5000], "64 bits"),
        (["a", "b", "a"], "ids[2] is there twice"),
        ([1, "1"], "twice"),
    ],
)
def test_wrong_ids_are_named_by_position(ids, hint):
    """The first wrong entry, by its index."""
    with pytest.raises(DataError) as caught:
        decode.identifiers(ids, 4)

    assert hint in str(caught.value)


def test_ids_come_through():
    """Strings and integers, in order."""
    assert decode.identifiers(["a", 1, "ü", -(2**63)], 4) == ["a", 1, "ü", -(2**63)]


@pytest.mark.parametrize(
    ("payload", "hint"),
    [
        ({}, "got an object"),
        ([{}], "got 1"),
        ([{}, 1], "payload[1]"),
        ([{}, {"a": math.inf}], "payload[1]"),
        ([{"a": "x" * 20000}, {}], "16384 bytes"),
    ],
)
def test_wrong_payloads_are_refused(payload, hint):
    """One plain, small object per id."""
    with pytest.raises(DataError) as caught:
        decode.payloads(payload, 2)

    assert hint in str(caught.value)


def test_payloads_come_through():
    """As they are; none is none."""
    assert decode.payloads([{"a": [1]}, {}], 2) == [{"a": [1]}, {}]
    assert decode.payloads(None, 2) is None


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        ([], "got a list"),
        ("a", "got a string"),
        ({"a": []}, "where['a']"),
        ({"a": {}}, "where['a']"),
        ({"a": math.inf}, "where['a']"),
        ({str(i): 1 for i in range(17)}, "at most 16"),
    ],
)
def test_wrong_conditions_are_refused(where, hint):
    """Plain values only."""
    with pytest.raises(DataError) as caught:
        decode.conditions(where)

    assert hint in str(caught.value)


def test_conditions_come_through():
    """All kinds of plain values; none is none."""
    where = {"a": "x", "b": 1, "c": 1.5, "d": True, "e": None}
    assert decode.conditions(where) == where
    assert decode.conditions(None) is None


@pytest.mark.parametrize("value", [None, "", 1, [], "x" * 257])
def test_a_wrong_text_is_refused(value):
    """A short string, by name."""
    with pytest.raises(DataError, match="space must be a string"):
        decode.text(value, "space")
