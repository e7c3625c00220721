"""Rows of several widths in one gallery: each is compared with as many first coordinates of the query."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.gallery import indexes
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.transient import MemoryGallery
from lifelong.release.compat import recall_at_1
from lifelong.types import Space


def draw(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize("index", ["flat", "ivf", "hnsw", "fp16"])
@pytest.mark.slow
def test_rows_of_all_widths_compete_by_their_own_cosine(tmp_path, index, monkeypatch):
    """Against numpy, one width after the other; with most of the query in its last coordinates padding would fail."""
    monkeypatch.setattr(indexes, "SMALL", 200)
    widths, rows = (12, 16, 20), {}
    spaces = [Space(f"s{width}", width, frozenset(f"s{w}" for w in widths)) for width in widths]
    with EmbeddedGallery(tmp_path, index=index, background=False) as gallery:
        for at, space in enumerate(spaces):
            names, vectors = [f"{at}-{i}" for i in range(600)], draw(600, space.dim, seed=at)
            gallery.add(names, vectors, space)
            rows |= dict(zip(names, vectors.astype(np.float64), strict=True))
        gallery.compact()
        queries = draw(40, 20, seed=9) * np.array([1.0] * 12 + [3.0] * 8, np.float32)
        hits = gallery.search(queries, spaces[-1], 10)
        exact = gallery.search(queries, spaces[-1], 10, exact=True)
    assert len({hit.space for some in exact for hit in some}) == len(widths)
    shares = []
    for query, some, all_of_them in zip(queries.astype(np.float64), hits, exact, strict=True):
        scores = {
            name: query[: len(row)] @ row / np.linalg.norm(query[: len(row)]) / np.linalg.norm(row)
            for name, row in rows.items()
        }
        best = sorted(scores, key=lambda name: -scores[name])[:10]
        assert [hit.id for hit in all_of_them] == best
        assert all(hit.score == pytest.approx(scores[hit.id], abs=1e-6) for hit in some)
        shares.append(len({hit.id for hit in some} & set(best)) / 10)
    assert np.mean(shares) >= (1.0 if index == "flat" else 0.97)


@settings(deadline=None, max_examples=20)
@given(wide=st.integers(3, 12), narrow=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_what_a_search_finds_is_what_the_gate_measured(wide, narrow, seed):
    """First hits of new queries in the rows of a narrower (or as wide) old version: `compat.recall_at_1`."""
    narrow = min(narrow, wide)
    queries, rows = draw(30, wide, seed=seed), draw(40, narrow, seed=seed + 1)
    y, labels = np.arange(30) % 3, np.arange(40) % 3
    old, new = Space("old", narrow), Space("new", wide, frozenset({"old"}))
    gallery = MemoryGallery()
    gallery.add(range(40), rows, old)
    hits = gallery.search(queries, new, 1)
    found = np.mean([labels[int(some[0].id)] == label for some, label in zip(hits, y, strict=True)])
    assert found == pytest.approx(recall_at_1(*(torch.from_numpy(a) for a in (queries, y, rows, labels))))


def test_a_query_with_nothing_in_the_coordinates_of_a_row_resembles_it_in_nothing():
    """Score 0, and no NaN."""
    gallery = MemoryGallery()
    gallery.add(["old"], draw(1, 2), Space("old", 2))
    (hits,) = gallery.search(np.array([[0, 0, 1]], np.float32), Space("new", 3, frozenset({"old"})))
    assert [(hit.id, hit.score) for hit in hits] == [("old", 0.0)]


def test_a_query_far_from_the_average_finds_the_rows_of_every_width_all_the_same(tmp_path, monkeypatch):
    """One search of the mixed index would list wide rows only; it is noticed, and each width is searched for itself."""
    monkeypatch.setattr(indexes, "SMALL", 200)
    old, new = Space("old", 8), Space("new", 16, frozenset({"old"}))
    with EmbeddedGallery(tmp_path, index="ivf", background=False) as gallery:
        for at, space in enumerate((old, new)):
            gallery.add([f"{at}-{i}" for i in range(3000)], draw(3000, space.dim, seed=at), space)
        gallery.compact()
        assert len(gallery.view().parts) == 1
        queries = draw(50, 16, seed=7) * np.array([0.02] * 8 + [1.0] * 8, np.float32)
        hits, best = (gallery.search(queries, new, 10, exact=exact) for exact in (False, True))
    assert {hit.space for some in best for hit in some} == {"old", "new"}
    shares = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(hits, best, strict=True)]
    assert np.mean(shares) >= 0.97


def test_rows_under_a_mixed_index_that_die_are_found_no_more(tmp_path, monkeypatch):
    """Width, removal and filter together: all three bar rows."""
    monkeypatch.setattr(indexes, "SMALL", 200)
    old, new = Space("old", 8), Space("new", 10, frozenset({"old"}))
    with EmbeddedGallery(tmp_path, index="ivf", background=False) as gallery:
        for at, space in enumerate((old, new)):
            payload = [{"even": not i % 2} for i in range(500)]
            gallery.add([f"{at}-{i}" for i in range(500)], draw(500, space.dim, seed=at), space, payload)
        gallery.compact()
        assert len(gallery.view().parts) == 1
        gallery.remove([f"{at}-{i}" for at in (0, 1) for i in range(250)])
        (hits,) = gallery.search(draw(1, 10, seed=5), new, 500, {"even": True})
    assert sorted(hit.id for hit in hits) == sorted(f"{at}-{i}" for at in (0, 1) for i in range(250, 500, 2))


@pytest.mark.parametrize("widths", [(16,), (8, 16)])
def test_what_an_index_finds_has_the_scores_of_a_full_comparison_bit_for_bit(tmp_path, widths, monkeypatch):
    """Asked alone or in a batch; rows with one vector, which share a score, come oldest first."""
    monkeypatch.setattr(indexes, "SMALL", 200)
    monkeypatch.setattr(indexes, "TARGET", 2.0)  # never reached: every list is looked into
    spaces = [Space(f"s{width}", width, frozenset(f"s{w}" for w in widths)) for width in widths]
    with EmbeddedGallery(tmp_path, index="ivf", background=False) as gallery:
        for at, space in enumerate(spaces):
            gallery.add([f"{at}-{i}" for i in range(600)], np.tile(draw(200, space.dim, seed=at), (3, 1)), space)
        gallery.compact()
        queries = draw(40, 16, seed=9)
        hits, best = (gallery.search(queries, spaces[-1], 9, exact=exact) for exact in (False, True))
        alone = [gallery.search(query[None], spaces[-1], 9)[0] for query in queries]
        pages = [gallery.search(queries, spaces[-1], 3, offset=offset) for offset in (0, 3, 6)]
        assert gallery.view().parts[0].quick is not None
    assert hits == best == alone == [[*a, *b, *c] for a, b, c in zip(*pages, strict=True)]
    ages = [[int(hit.id[2:]) for hit in some] for some in hits]
    assert all(age[at] + 200 == age[at + 1] == age[at + 2] - 200 for age in ages for at in (0, 3, 6))
