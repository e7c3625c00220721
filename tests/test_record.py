"""A record is what was written, or a clear refusal; never a guess."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong.errors import DataError, TooLarge
from lifelong.sources.record import KINDS, decode, encode

labels = st.one_of(st.integers(-(2**62), 2**62), st.text(max_size=8))


@given(
    kind=st.sampled_from(sorted(KINDS)),
    shape=st.lists(st.integers(0, 4), max_size=3),
    y=labels,
    task=st.integers(-1, 9),
)
def test_what_was_written_is_read_bit_for_bit(kind, shape, y, task):
    x = (np.random.default_rng(0).normal(size=shape) * 50).astype(kind)
    found = decode(encode(x, y, task))

    assert found.x.dtype == getattr(torch, kind)
    assert found.x.numpy().tobytes() == x.tobytes()
    assert (tuple(found.x.shape), found.y, found.task) == (x.shape, y, task)


def test_the_layout_is_the_one_of_the_page():
    """Written by hand, as another program would."""
    header = b'{"dtype":"float32","shape":[2],"y":"cat"}'
    record = b"LLR1" + len(header).to_bytes(4, "little") + header + np.array([1.5, -2], "<f4").tobytes()
    found = decode(record)
    assert (found.x.tolist(), found.y, found.task) == ([1.5, -2.0], "cat", -1)


GOOD = encode(np.float32([1, 2]), 3)


@given(st.data())
def test_damaged_bytes_are_refused_or_say_something_valid(data):
    """Cut short or altered anywhere: a DataError, or another well-formed sample; never another error."""
    cut = data.draw(st.integers(0, len(GOOD)))
    at, bit = data.draw(st.integers(0, len(GOOD) - 1)), data.draw(st.integers(1, 255))
    altered = bytearray(GOOD)
    altered[at] ^= bit
    for record in (GOOD[:cut], bytes(altered), GOOD + b"x"):
        if record != GOOD:
            with contextlib.suppress(DataError):
                assert decode(record).x.dtype in {getattr(torch, kind) for kind in KINDS}
    for record in (GOOD[: len(GOOD) - 1], GOOD + b"x"):
        with pytest.raises(DataError, match="bytes of values"):
            decode(record)


@pytest.mark.parametrize(
    "header",
    [b"[]", b"{}", b'{"dtype":"object","shape":[2],"y":1}', b'{"dtype":"float32","shape":[-2],"y":1}',
     b'{"dtype":"float32","shape":[2],"y":1.5}', b'{"dtype":"float32","shape":[2],"y":null}',
     b'{"dtype":"float32","shape":[2],"y":1,"task":"a"}', b'{"dtype":"float32","shape":[2],"y":1,"more":1}',
     b'{"dtype":"float32","shape":[true,2],"y":1}', b'{"dtype":"float32","shape":[99999999999999999999],"y":1}'],
)  # fmt: skip
def test_a_header_that_says_something_else_is_refused(header):
    with pytest.raises(DataError):
        decode(b"LLR1" + len(header).to_bytes(4, "little") + header + bytes(8))


def test_a_record_over_the_limit_is_refused_on_both_sides():
    with pytest.raises(TooLarge, match="over the limit of 100"):
        encode(np.zeros(100, np.float32), 1, limit=100)
    with pytest.raises(TooLarge, match="over the limit of 100"):
        decode(encode(np.zeros(100, np.float32), 1), limit=100)


def test_what_no_record_can_hold_is_refused():
    with pytest.raises(DataError, match="convert them first"):
        encode(np.array(["a"]), 1)
    with pytest.raises(DataError, match="label"):
        encode(np.float32([1]), 1.5)
