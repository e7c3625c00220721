"""Batches of data that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lifelong import batching
from lifelong.errors import DataError


class Numbered:
    """Map-style data whose samples come from elsewhere and know it."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[int, int]:
        return index, index

    def sample_id(self, index: int) -> int:
        return 100 + index


@given(count=st.integers(0, 20), skip=st.integers(0, 25), seed=st.none() | st.integers(0, 99))
def test_skipping_leaves_out_the_front_of_the_same_order(count: int, skip: int, seed: int | None) -> None:
    def listed(left_out: int) -> list[Any]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return list(batching.rows([f"item-{i}" for i in range(count)], generator, left_out))

    assert listed(skip) == listed(0)[skip:]
    assert sorted(listed(0)) == sorted((i, f"item-{i}") for i in range(count))


def test_an_iterable_keeps_its_order_and_counts_its_items() -> None:
    generator = torch.Generator().manual_seed(0)

    assert list(batching.rows((c for c in "abc"), generator, 1)) == [(1, "b"), (2, "c")]


def test_ids_are_what_the_data_says() -> None:
    assert [number for number, _ in batching.rows(Numbered(), None, 0)] == [100, 101, 102, 103, 104]


def test_chunks_hold_inputs_labels_ids_and_tasks() -> None:
    def source() -> Iterator[tuple[int, Any]]:
        yield from ((i, ([i, i], f"label-{i}", i % 2)) for i in range(3))

    first, last = batching.chunks(source(), 2)

    assert first[0].tolist() == [[0, 0], [1, 1]]
    assert (first[1], first[2].tolist(), first[3]) == (["label-0", "label-1"], [0, 1], [0, 1])
    assert (last[1], last[2].tolist(), last[3]) == (["label-2"], [2], [0])


@pytest.mark.parametrize("items", [[3], [(1,)], [(1, 2), (1, 2, 3)], [(1, 2, 3, 4)]])
def test_items_are_all_pairs_or_all_triples(items: list[Any]) -> None:
    with pytest.raises(DataError, match="data must yield"):
        list(batching.chunks(enumerate(items), 9))


def test_inputs_of_one_batch_share_a_shape() -> None:
    with pytest.raises(DataError, match="must share a shape"):
        batching.stack([torch.zeros(2), torch.zeros(3)])


@pytest.mark.parametrize("value", ["text", None, [object()]])
def test_inputs_are_numbers(value: object) -> None:
    with pytest.raises(DataError, match="inputs must be numeric"):
        batching.stack([value])


@pytest.mark.parametrize(
    "value", [[0.5, 1], np.array([0.5, 1]), np.array([0.5, 1], np.float32), torch.tensor([0.5, 1])]
)
def test_floats_of_any_kind_become_float32(value: object) -> None:
    found = batching.stack([value, value])

    assert found.dtype == torch.float32
    assert found.tolist() == [[0.5, 1.0]] * 2


def test_an_image_becomes_channels_first_in_0_to_1() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    colour, grey = batching.stack([Image.fromarray(pixels)]), batching.stack([Image.fromarray(pixels[:, :, 0])])

    np.testing.assert_allclose(colour[0].numpy(), pixels.transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_allclose(grey[0, 0].numpy(), pixels[:, :, 0] / 255, rtol=1e-6)


def test_a_stacked_array_shares_no_memory_with_its_source() -> None:
    source = np.zeros(2, np.float32)
    found = batching.stack([source])
    source[:] = 9

    assert found.tolist() == [[0.0, 0.0]]
