"""Books of keys: what is found in them, and where they are placed."""

from __future__ import annotations

import faiss
import pytest
import torch
from bottlenecks import BOOKS, PAIRS, WIDTH, generator, head, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from speed.dkvb import largest
from torch import Tensor

from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.models.codebooks import BLOCK, EPSILON, ROUNDS, Codebooks, nearest

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


@pytest.mark.parametrize(("books", "count", "pairs"), [(600, 1, 4096), (64, 256, 4096), (200, 1000, 64)])
@pytest.mark.slow
def test_no_search_makes_a_tensor_larger_than_a_block(books: int, count: int, pairs: int) -> None:
    """Neither for many samples nor for many books; all scores together would be 2 to 64 times as much."""
    queries, keys = normal(books, count, 6, dtype=torch.float32), normal(books, pairs, 6, dtype=torch.float32)
    open_to_all = torch.zeros(books, pairs, dtype=torch.bool)

    assert 4 * books * count * pairs > 8 * BLOCK
    assert largest(lambda: nearest(queries, keys), queries, keys) <= 4 * BLOCK
    assert largest(lambda: nearest(queries, keys, hidden=open_to_all), queries, keys, open_to_all) <= 4 * BLOCK


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


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
@pytest.mark.slow
def test_what_a_sample_finds_does_not_depend_on_its_batch(rows: int) -> None:
    """The search gives the same queries the same keys whatever stands beside them.

    Queries of features may differ in their last bits (few rows are multiplied by other code than many), so a sample
    may find another key than alone only where two keys are equally near to rounding.
    """
    made, z = Codebooks(64, 16, 256, 8), normal(200, 64, dtype=torch.float32)
    made.reset(generator())
    queries = made.queries(z)
    whole = made.nearest(queries)
    parts = torch.cat([made.nearest(part) for part in queries.split(rows, 1)])
    alone = torch.cat([made.nearest(made.queries(part)) for part in z.split(rows)])
    distance = (queries[:, :, None].double() - made.keys[:, None]).square().sum(3).transpose(0, 1)
    gap = distance.gather(2, alone) - distance.gather(2, whole)

    assert torch.equal(parts, whole)
    assert gap.abs().max() < 1e-4
    assert (alone == whole).double().mean() > 0.999


def test_chunks_are_the_values_of_a_feature_in_their_order() -> None:
    made, z = Codebooks(6, 3, 4, 2, "chunk"), normal(5, 6, dtype=torch.float32)
    made.reset(generator())

    assert torch.equal(made.queries(z), torch.stack([z[:, :2], z[:, 2:4], z[:, 4:]]))
    assert "projection" not in made.state_dict()


def test_chunks_that_do_not_make_up_a_feature_are_refused() -> None:
    with pytest.raises(ConfigError, match="width 8, got 6"):
        Codebooks(6, 4, 4, 2, "chunk")
    with pytest.raises(UnknownName, match="did you mean 'chunk'"):
        Codebooks(6, 3, 4, 2, "chunks")


def test_projections_have_columns_of_unit_norm() -> None:
    made = head().codebooks.projection
    assert made is not None

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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_keys_of_kmeans_are_those_of_another_library(seed: int) -> None:
    """From the same first centres, in as many rounds; scikit-learn moves empty centres, so none may be empty."""
    made, queries = head(seed=seed).codebooks, normal(BOOKS, 300, 4, seed=seed)
    made.cluster(queries, 0.01, generator(seed))
    drawn = torch.rand(BOOKS, 300, generator=generator(seed)).argsort(1)[:, :PAIRS]
    for book in range(BOOKS):
        assert made.weight[book].min() >= 1
        theirs = KMeans(PAIRS, init=queries[book][drawn[book]].numpy(), n_init=1, max_iter=ROUNDS, tol=0.0)
        theirs.fit(queries[book].numpy())
        torch.testing.assert_close(made.keys[book], torch.from_numpy(theirs.cluster_centers_), rtol=0, atol=1e-9)
        counts = made.nearest(queries)[:, book, 0].bincount(minlength=PAIRS)
        assert made.weight[book].sum() == 300
        assert (made.weight[book] - counts).abs().sum() < 60  # of the round before


def test_centres_of_fewer_samples_than_keys_stay_at_samples() -> None:
    made, queries = head().codebooks, normal(BOOKS, 5, 4)
    made.cluster(queries, 0.01, generator())

    assert torch.cdist(made.keys, queries).min(2).values.max() < 1e-9
    assert sorted(made.weight[0].tolist()) == [0.01] * (PAIRS - 5) + [1.0] * 5


def test_keys_that_start_at_centres_are_nearer_to_the_data_after_one_pass() -> None:
    z = normal(400, WIDTH)
    error = {}
    for start in ("normal", "kmeans"):
        made = Codebooks(WIDTH, BOOKS, 40, 4).double()
        made.reset(generator())
        made.fit(z, epochs=1, size=256, decay=0.95, threshold=0.1, generator=generator(), start=start)
        error[start] = torch.cdist(made.queries(z), made.keys).min(2).values.mean()

    assert error["kmeans"] < 0.9 * error["normal"]


def test_a_token_counts_like_a_sample_where_keys_are_placed() -> None:
    """20 samples of 3 tokens in one step are 60 queries: the same threshold, averages and keys as 60 samples."""
    tokens, found = normal(20, 3, WIDTH), []
    for z, size in ((tokens, 20), (tokens.flatten(0, 1), 60)):
        made = head().codebooks
        made.park = lambda: None  # type: ignore[method-assign]
        asked: list[float] = []
        made.refresh = lambda queries, least, random, asked=asked: asked.append(least)  # type: ignore[method-assign]
        made.fit(z, epochs=1, size=size, decay=0.9, threshold=0.5, generator=generator())
        found.append((asked, made.weight.clone(), made.keys.clone()))

    assert found[0][0] == found[1][0] == [0.5 * 60 / PAIRS]
    torch.testing.assert_close(found[0][1:], found[1][1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", ["normal", "kmeans"])
def test_of_keys_that_lie_upon_each_other_one_can_be_found(start: str) -> None:
    """More keys than samples, so some share one. The others are out of reach, and no answer hangs on rounding."""
    z = normal(30, 64, dtype=torch.float32) + 3
    made = Codebooks(64, 8, 128, 4)
    made.reset(generator())
    made.fit(z, epochs=5, size=16, decay=0.95, threshold=0.1, generator=generator(), start=start)
    queries = made.queries(z)
    reach = 10 * queries.norm(dim=2).max()
    for book in range(8):
        kept = made.keys[book][made.keys[book].norm(dim=1) < reach]
        apart = torch.cdist(kept, kept, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        assert 10 <= len(kept) < 128
        assert (apart.min(1).values > 1e-3 * kept.norm(dim=1).min()).all()
    assert made.keys.isfinite().all()
    assert torch.equal(torch.cat([made.nearest(made.queries(one[None])) for one in z]), made.nearest(queries))


def test_keys_that_stand_apart_stay_where_they_are() -> None:
    made = head().codebooks
    before = made.keys.clone()
    made.park()

    assert torch.equal(made.keys, before)


def test_keys_are_not_placed_by_nothing_or_nan() -> None:
    made, before = head(), head().codebooks.keys
    for z in (torch.zeros(0, WIDTH), torch.full((3, WIDTH), torch.nan)):
        with pytest.raises(DataError, match="finite features"):
            made.place(z.double(), epochs=1, size=4, decay=0.9, threshold=0.1, generator=generator())

    assert torch.equal(made.codebooks.keys, before)
