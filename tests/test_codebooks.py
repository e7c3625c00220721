"""Books of keys: what is found in them, and where they are placed."""

from __future__ import annotations

import faiss
import pytest
import torch
from bottlenecks import BOOKS, PAIRS, WIDTH, generator, head, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.errors import DataError
from lifelong.models.codebooks import BLOCK, EPSILON, Codebooks, nearest

seeds = st.integers(0, 2**31)


def brute(queries: Tensor, keys: Tensor, top_k: int = 1) -> Tensor:
    """The definition, one distance at a time in float64."""
    distance = (queries.double()[:, :, None] - keys.double()[:, None]).square().sum(3)
    return distance.argsort(dim=2, stable=True)[:, :, :top_k].transpose(0, 1)


# ---- search


@settings(max_examples=40)
@given(count=st.integers(1, 40), books=st.integers(1, 6), pairs=st.integers(1, 40), k=st.integers(1, 9), seed=seeds)
def test_the_blocked_search_finds_what_brute_force_finds(count: int, books: int, pairs: int, k: int, seed: int) -> None:
    """All of `top_k`, nearest first."""
    queries, keys = normal(books, count, k, seed=seed), normal(books, pairs, k, seed=seed + 1)
    top = min(3, pairs)

    assert torch.equal(nearest(queries, keys), brute(queries, keys))
    assert torch.equal(nearest(queries, keys, top), brute(queries, keys, top))


@pytest.mark.parametrize(("books", "count", "pairs"), [(3, 300, 4096), (40, 7, 4096), (2, 5, BLOCK + 3), (300, 600, 2)])
def test_blocks_of_every_shape_agree_with_faiss(books: int, count: int, pairs: int) -> None:
    """Many queries, many books, and one book that is larger than a block; equally near keys may be exchanged."""
    queries, keys = normal(books, count, 2, dtype=torch.float32), normal(books, pairs, 2, seed=1, dtype=torch.float32)
    found = nearest(queries, keys)[:, :, 0]
    for book in range(0, books, max(1, books // 4)):
        index = faiss.IndexFlatL2(2)
        index.add(keys[book].numpy())
        _, theirs = index.search(queries[book].numpy(), 1)
        ours = (queries[book] - keys[book][found[:, book]]).double().norm(dim=1)
        best = (queries[book] - keys[book][torch.from_numpy(theirs[:, 0])]).double().norm(dim=1)
        torch.testing.assert_close(ours, best, rtol=0, atol=2e-3)
        if pairs < BLOCK:
            assert (found[:, book] == torch.from_numpy(theirs[:, 0])).double().mean() > 0.99


def test_a_tie_goes_to_the_lower_number() -> None:
    keys = torch.ones(1, 4, 2)

    assert nearest(torch.zeros(1, 3, 2), keys).flatten().tolist() == [0, 0, 0]


@given(seed=seeds)
def test_moving_features_and_keys_together_moves_no_choice(seed: int) -> None:
    """A constant added to features is its projection added to keys."""
    made, z, shift = head(seed=seed), normal(9, WIDTH, seed=seed), normal(1, WIDTH, seed=seed + 5)
    before = made.found(z)
    made.codebooks.keys += made.codebooks.queries(shift)

    assert torch.equal(made.found(z + shift), before)


def test_projections_have_columns_of_unit_norm() -> None:
    made = head().codebooks.projection

    torch.testing.assert_close(made.norm(dim=0), torch.ones(BOOKS * 4, dtype=torch.float64), rtol=0, atol=1e-6)


# ---- keys


@settings(max_examples=40)
@given(count=st.integers(1, 40), decay=st.floats(0.05, 0.99), steps=st.integers(1, 4), seed=seeds)
def test_averages_follow_their_definition(count: int, decay: float, steps: int, seed: int) -> None:
    """Written with loops; the sum of a book's weights obeys decay * sum + (1 - decay) * N."""
    made = head(seed=seed).codebooks
    made.weight.fill_(0.01)
    made.average.copy_(made.keys * 0.01)
    for step in range(steps):
        queries = made.queries(normal(count, WIDTH, seed=seed + step))
        found = made.nearest(queries)[:, :, 0]
        weight, average = made.weight.clone() * decay, made.average.clone() * decay
        total = decay * made.weight.sum(1) + (1 - decay) * count
        for n in range(count):
            for book in range(BOOKS):
                weight[book, found[n, book]] += 1 - decay
                average[book, found[n, book]] += (1 - decay) * queries[book, n]
        made.move(queries, found, decay)

        torch.testing.assert_close(made.weight, weight, rtol=0, atol=1e-12)
        torch.testing.assert_close(made.average, average, rtol=0, atol=1e-12)
        torch.testing.assert_close(made.weight.sum(1), total, rtol=0, atol=1e-9)
        smooth = (weight + EPSILON) / (total[:, None] + PAIRS * EPSILON) * total[:, None]
        torch.testing.assert_close(made.keys, average / smooth[:, :, None], rtol=1e-9, atol=1e-12)


def test_a_key_goes_to_the_mean_of_its_samples_whatever_their_number() -> None:
    """Not to their decayed sum: averages are divided by their weights."""
    for count in (1, 4, 1000):
        made = Codebooks(2, 1, 1, 2)
        made.reset(generator())
        z = normal(count, 2, dtype=torch.float32) + 7
        for _ in range(200):
            made.move(made.queries(z), torch.zeros(count, 1, dtype=torch.int64), 0.9)

        torch.testing.assert_close(made.keys[0, 0], made.queries(z)[0].mean(0), rtol=1e-4, atol=1e-4)


def test_a_replaced_key_is_not_put_back_by_the_next_step() -> None:
    """It takes its average and weight along: a step that finds it nowhere leaves it where it was put."""
    made = head().codebooks
    made.weight.fill_(1.0)
    made.average.copy_(made.keys)
    made.weight[2, 5] = 0.0
    old, others = made.keys[2, 5].clone(), made.keys.clone()
    queries = made.queries(normal(8, WIDTH, seed=3) + 5)
    made.refresh(queries, 0.25, generator())
    put = made.keys[2, 5].clone()

    assert (put - queries[2]).norm(dim=1).min() == 0
    assert (made.weight[2, 5], *made.average[2, 5]) == (0.25, *(put * 0.25))
    made.keys[2, 5] = others[2, 5]
    assert torch.equal(made.keys, others)
    made.keys[2, 5] = put
    found = torch.full((8, BOOKS), 4)
    made.move(queries, found, 0.5)
    assert (made.keys[2, 5] - put).norm() < 1e-3 * (old - put).norm()


def test_keys_are_placed_where_the_data_is_and_forget_where_they_started() -> None:
    """Four clusters far from the first keys: each has keys, and no key is far from all."""
    centres = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    z = centres.repeat(50, 1) + 0.1 * normal(200, 2, dtype=torch.float32)
    made = Codebooks(2, 3, 16, 2)
    made.reset(generator())
    made.fit(z, epochs=10, size=50, decay=0.9, threshold=0.1, generator=generator(1))
    apart = torch.cdist(made.queries(centres), made.keys)

    assert apart.min(1).values.max() < 1.0
    assert apart.min(2).values.max() < 0.5
    assert made.nearest(made.queries(z)).flatten().unique().numel() > 8


def test_keys_are_not_placed_by_nothing_or_nan() -> None:
    made, before = head(), head().codebooks.keys
    for z in (torch.zeros(0, WIDTH), torch.full((3, WIDTH), torch.nan)):
        with pytest.raises(DataError, match="finite features"):
            made.place(z.double(), epochs=1, size=4, decay=0.9, threshold=0.1, generator=generator())

    assert torch.equal(made.codebooks.keys, before)
