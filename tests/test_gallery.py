"""The embedded gallery: what is written stays as it was, and search equals an exact reference in numpy."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifelong import plugins
from lifelong.errors import ArtifactError, ConfigError, DataError, Locked, NotFound, SpaceError, Unavailable
from lifelong.gallery import memory, parts, view
from lifelong.gallery.base import Gallery, Hit, View
from lifelong.gallery.embedded import FILE, EmbeddedGallery
from lifelong.types import Space

A = Space("a", 4, family="f")
B = Space("b", 6, frozenset({"a"}), family="f")


def draw(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def numbered(start: int, stop: int) -> list[str]:
    return [str(i) for i in range(start, stop)]


def found(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


class Reference:
    """The slow truth: a dict of rows, in float64, by as many coordinates as they have; unit rows are float32."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, str, np.ndarray, dict]] = {}
        self.clock = 0

    def add(self, ids, vectors, space, payload=None):
        for i, name in enumerate(ids):
            self.clock += 1
            self.rows[str(name)] = (self.clock, space.id, vectors[i].copy(), payload[i] if payload else {})

    def remove(self, ids):
        gone = [name for name in dict.fromkeys(map(str, ids)) if self.rows.pop(name, None) is not None]
        self.clock += len(gone)
        return len(gone)

    def ranking(self, query, space, where=None):
        """Return ids and float32 scores of all rows that may be found, best first, older before younger."""
        keep = [
            (name, seq, vector)
            for name, (seq, made, vector, payload) in self.rows.items()
            if made in space.reads and all(equal(payload, key, value) for key, value in (where or {}).items())
        ]
        if not keep:
            return [], np.empty(0)
        width = max(len(query), *(len(vector) for *_, vector in keep), 0)
        padded = np.zeros((len(keep), width))
        for i, (*_, vector) in enumerate(keep):
            padded[i, : len(vector)] = vector
        padded = (padded / np.linalg.norm(padded, axis=1)[:, None]).astype(np.float32).astype(np.float64)
        wide = np.pad(query.astype(np.float64), (0, width - len(query)))
        lengths = np.array([np.linalg.norm(query[: len(vector)].astype(np.float64)) for *_, vector in keep])
        scores = ((padded * wide).sum(axis=1) / lengths).clip(-1, 1).astype(np.float32)
        order = np.lexsort(([seq for _, seq, _ in keep], -scores))
        return [keep[i][0] for i in order], scores[order].astype(np.float64)


def equal(payload: dict, key: str, value: object) -> bool:
    return key in payload and payload[key] == value and (payload[key] is True) == (value is True)


@pytest.fixture
def gallery(tmp_path):
    with EmbeddedGallery(tmp_path / "g") as opened:
        yield opened


def same(hits: list[list[Hit]], reference: Reference, queries, space, k, where=None) -> None:
    """Scores agree to float32's last digit, and ids wherever the reference itself can tell rows apart."""
    for query, got in zip(queries, hits, strict=True):
        names, scores = reference.ranking(query, space, where)
        np.testing.assert_allclose([h.score for h in got], scores[:k], rtol=0, atol=2.5e-7)
        of = dict(zip(names, scores, strict=True))
        assert all(abs(of[h.id] - h.score) < 2.5e-7 for h in got)
        gaps = -np.diff(np.concatenate([[2.0], scores, [-2.0]]))
        for at, (name, hit) in enumerate(zip(names[:k], got, strict=True)):
            assert hit.id == name or min(gaps[at], gaps[at + 1]) < 5e-7
        for one, two in pairwise(got):
            assert (-one.score, reference.rows[one.id][0]) < (-two.score, reference.rows[two.id][0])


# --- search ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [10, 5000, 20000])
@pytest.mark.slow
def test_search_equals_the_reference_in_buffer_parts_and_merged_parts(gallery, rows):
    reference, vectors, queries = Reference(), draw(rows, 4), draw(5, 4, seed=1)
    gallery.add(numbered(0, rows), vectors, A)
    reference.add(numbered(0, rows), vectors, A)

    same(gallery.search(queries, A, 10), reference, queries, A, 10)


def test_a_pure_float64_cosine_agrees_to_one_in_a_million(gallery):
    """A second reference that knows nothing of float32 unit vectors."""
    vectors, queries = draw(6000, 64), draw(40, 64, seed=1)
    gallery.add(numbered(0, 6000), vectors, Space("w", 64))
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    cosine = (q @ x.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    best = np.argsort(-cosine, axis=1)[:, :10]

    hits = gallery.search(queries, Space("w", 64), 10)

    assert [found(row) for row in hits] == [[str(i) for i in row] for row in best]
    np.testing.assert_allclose([[h.score for h in row] for row in hits], np.take_along_axis(cosine, best, 1), atol=1e-6)


def test_a_narrow_row_is_compared_with_as_many_coordinates_of_the_query(gallery):
    """Both at length 1 there: what the query has beyond them does not count against it."""
    gallery.add(["old"], np.array([[3, 4, 0, 0]], np.float32), A)
    gallery.add(["new"], np.array([[0, 0, 0, 0, 0, 2]], np.float32), B)

    (hits,) = gallery.search(np.array([[2, 0, 0, 0, 0, 2]], np.float32), B)

    assert found(hits) == ["new", "old"]
    assert [hit.space for hit in hits] == ["b", "a"]
    np.testing.assert_allclose([hit.score for hit in hits], [1 / 2**0.5, 0.6], rtol=1e-6)


def test_a_narrow_query_reads_only_the_leading_coordinates_of_a_wide_row(gallery):
    gallery.add(["wide"], np.array([[3, 0, 0, 0, 0, 4]], np.float32), B)

    ((hit,),) = gallery.search(np.array([[1, 0, 0, 0]], np.float32), Space("c", 4, frozenset({"b"}), "f"))

    assert hit.score == pytest.approx(0.6, abs=1e-6)  # the row keeps its whole norm


@pytest.mark.slow
def test_rows_of_a_space_that_is_not_read_are_never_returned(gallery):
    """Also not where most of a part is unreadable, and where two spaces share a width."""
    twin = Space("a2", 4)
    reference = Reference()
    for start, space in ((0, A), (3000, twin), (6000, A), (9000, twin), (9500, B)):
        vectors = draw(3000, space.dim, seed=start)
        gallery.add(numbered(start, start + 3000), vectors, space)
        reference.add(numbered(start, start + 3000), vectors, space)
    for space in (A, twin, B, Space("a3", 4, frozenset({"b"}), "f")):
        queries = draw(3, space.dim, seed=7)
        hits = gallery.search(queries, space, 7)
        assert {hit.space for row in hits for hit in row} <= space.reads
        same(hits, reference, queries, space, 7)


def test_no_readable_rows_give_empty_lists(gallery):
    assert gallery.search(draw(2, 4), A) == [[], []]
    gallery.add(["x"], draw(1, 6), B)
    assert gallery.search(draw(2, 4), A) == [[], []]
    assert gallery.search(np.empty((0, 4), np.float32), A) == []


@pytest.mark.parametrize("rows", [300, 9000])
def test_equal_vectors_come_back_oldest_first(gallery, rows):
    """Thousands of ties around the k-th place: whatever FAISS keeps, the oldest must win."""
    vectors = np.tile(np.array([[0.1, 0.7, -0.3, 0.2]], np.float32), (rows, 1))
    vectors[::2] *= 4  # another length, the same direction
    names = [str(i) for i in np.random.default_rng(0).permutation(rows)]
    gallery.add(names, vectors, A)
    gallery.add(names[:5], vectors[:5], A)  # written anew: now the youngest
    gallery.remove(names[10:13])

    expected = names[5:10] + names[13:] + names[:5]
    for hits in gallery.search(draw(9, 4), A, 20):
        assert found(hits) == expected[:20]
    assert found(gallery.search(draw(1, 4), A, rows)[0]) == expected


def test_a_gallery_with_few_distinct_vectors_equals_the_reference(gallery):
    """Small whole numbers: exact ties all over the ranking, across parts."""
    vectors = np.random.default_rng(0).integers(-1, 2, size=(9000, 4)).astype(np.float32)
    vectors[~vectors.any(axis=1)] = 1
    reference = Reference()
    reference.add(numbered(0, 9000), vectors, A)
    gallery.add(numbered(0, 9000), vectors, A)
    queries = draw(4, 4, seed=3)

    hits = gallery.search(queries, A, 500)

    for query, got in zip(queries, hits, strict=True):
        names, scores = reference.ranking(query, A)
        assert found(got) == names[:500]
        assert [h.score for h in got] == scores[:500].tolist()


def test_a_huge_k_returns_what_there_is(gallery):
    gallery.add(numbered(0, 5000), draw(5000, 4), A)
    gallery.remove(numbered(0, 10))
    (hits,) = gallery.search(draw(1, 4, seed=1), A, 10**12)
    assert sorted(map(int, found(hits))) == list(range(10, 5000))
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)


def test_many_queries_are_answered_as_each_one_alone(gallery):
    gallery.add(numbered(0, 5000), draw(5000, 4), A)
    queries = draw(2 * view.BLOCK + 3, 4, seed=2)
    assert gallery.search(queries, A, 3) == [gallery.search(query[None], A, 3)[0] for query in queries]


def test_where_matches_equal_values_and_tells_true_from_one(gallery):
    payload = [{"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"n": None}, {}, {"n": [1]}, {"n": 1, "m": "x"}]
    gallery.add(numbered(0, 8), np.ones((8, 4), np.float32), A, payload)
    query = np.ones((1, 4), np.float32)

    def match(**where):
        return found(gallery.search(query, A, where=where)[0])

    assert match(n=1) == match(n=1.0) == ["0", "1", "7"]
    assert match(n=True) == ["2"]
    assert match(n="1") == ["3"]
    assert match(n=None) == ["4"]
    assert match(n=1, m="x") == ["7"]
    assert match(absent=None) == match(n=2) == []
    assert len(match()) == 8


@pytest.mark.parametrize("share", [2, pytest.param(50, marks=pytest.mark.slow), 4000])
@pytest.mark.slow
def test_where_is_exact_at_every_selectivity(gallery, share):
    """Gathered rows, FAISS selectors, scans and the buffer all give the reference's answer."""
    rows = 17000
    vectors, queries, reference = draw(rows, 4), draw(3, 4, seed=5), Reference()
    payload = [{"label": i % share} for i in range(rows)]
    for store in (gallery, reference):
        store.add(numbered(0, rows), vectors, A, payload)
        store.remove(numbered(0, rows)[:: share * 3])

    for _ in range(2):  # the second time, from the kept column
        same(gallery.search(queries, A, 9, {"label": 1}), reference, queries, A, 9, {"label": 1})
    assert share < 4000 or len(gallery.search(queries, A, 9, {"label": 1})[0]) < 9  # fewer rows than hits wanted


@pytest.mark.parametrize("dead", [pytest.param(1, marks=pytest.mark.slow), parts.SPARE, parts.SPARE + 1, 7000])
@pytest.mark.slow
def test_removed_rows_never_return_whatever_way_they_are_filtered(gallery, dead, monkeypatch):
    """Few dead rows are fetched and dropped, more go by a selector or, for a batch, a scan; most are swept out."""
    monkeypatch.setattr(parts, "CELLS", 3 * 16384)  # a scan in two blocks
    vectors, reference = draw(16384, 4), Reference()
    queries = vectors[:4]
    for store in (gallery, reference):
        store.add(numbered(0, 16384), vectors, A)
        assert store.remove(numbered(0, dead)) == dead

    hits = gallery.search(queries, A, 5)

    assert hits == [gallery.search(query[None], A, 5)[0] for query in queries]
    assert not {h.id for row in hits for h in row} & set(numbered(0, dead))
    same(hits, reference, queries, A, 5)


def test_where_on_two_keys_is_exact_in_sealed_parts(gallery):
    payload = [{"a": i % 7, "b": i % 5, "c": [i]} for i in range(5000)]
    gallery.add(numbered(0, 5000), draw(5000, 4), A, payload)
    for where in ({"a": 3, "b": 3}, {"b": 3, "a": 3}, {"b": 3}, {"a": 6, "b": 6}, {"c": 1}):
        expected = {str(i) for i, row in enumerate(payload) if all(row[key] == value for key, value in where.items())}
        assert set(found(gallery.search(draw(1, 4), A, 9999, where)[0])) == expected


operations = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "remove", "reopen"]),
        st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True),
        st.sampled_from([A, B]),
        st.integers(0, 2**31),
    ),
    max_size=25,
)


@given(steps=operations)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.slow
def test_any_history_equals_the_reference(tmp_path_factory, steps):
    """Adds, overwrites across spaces, removals and reopenings, with tiny parts so that all of them merge."""
    folder = tmp_path_factory.mktemp("history")
    gallery, reference = EmbeddedGallery(folder, seal=4), Reference()
    follower = EmbeddedGallery(folder, readonly=True, seal=3)
    for kind, ids, space, seed in steps:
        if kind == "add":
            vectors = np.random.default_rng(seed).integers(1, 9, size=(len(ids), space.dim)).astype(np.float32)
            payload = [{"even": i % 2 == 0} for i in ids]
            reference.add(ids, vectors, space, payload)
            assert gallery.add(ids, vectors, space, payload) == reference.clock
        elif kind == "remove":
            assert gallery.remove(ids) == reference.remove(ids)
        else:
            gallery.close()
            gallery = EmbeddedGallery(folder, seal=4)
    follower.refresh()
    for reader in (gallery, follower):
        assert reader.stats().rows == len(reference.rows)
        assert reader.view().sequence == reference.clock
        for where in (None, {"even": True}):
            queries = draw(2, 6, seed=1)
            same(reader.search(queries, B, 4, where), reference, queries, B, 4, where)
        reader.close()


# --- what is stored -------------------------------------------------------------------------------------------------


def test_vectors_are_stored_bit_for_bit_and_never_change(gallery):
    vectors = draw(50, 4) * np.float32(1e-20)
    gallery.add(numbered(0, 50), vectors, A)
    gallery.add(numbered(50, 9000), draw(8950, 4), A)
    gallery.close()
    with EmbeddedGallery(gallery.path) as again:
        rows = again.get(numbered(0, 50))
    assert b"".join(row.vector.tobytes() for row in rows) == vectors.tobytes()
    assert {row.space for row in rows} == {"a"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_every_float_type_are_taken(gallery, dtype):
    vectors = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    gallery.add(range(3), vectors, A)
    np.testing.assert_array_equal(gallery.get(["1"])[0].vector, vectors[1].detach().float().numpy())
    assert [found(h)[0] for h in gallery.search(vectors, A)] == ["0", "1", "2"]


def test_ids_are_text_and_integers_are_their_decimals(gallery):
    gallery.add([7, np.int64(-8), "ünï", torch.tensor(9)], draw(4, 4), A)
    assert [row.id for row in gallery.get(["7", -8, "ünï", 9])] == ["7", "-8", "ünï", "9"]
    assert gallery.get(["07"]) == [None]
    assert gallery.remove([7, "7", "none"]) == 1


def test_payloads_come_back_as_copies(gallery):
    payload = {"label": "boot", "deep": {"list": [1, None, "x"]}, "ü": 0.5}
    gallery.add(["a"], draw(1, 4), A, [payload])
    (first,) = gallery.search(draw(1, 4), A)[0]
    first.payload["deep"]["list"].clear()
    assert gallery.search(draw(1, 4), A)[0][0].payload == payload
    assert gallery.get(["a"])[0].payload == payload


def test_the_sequence_rises_with_every_change_and_survives(gallery):
    assert gallery.commit() == 0
    assert gallery.add(["a", "b"], draw(2, 4), A) == 2
    assert gallery.add(["a"], draw(1, 4), A) == 3
    assert gallery.remove(["a"]) == 1
    assert gallery.add([], np.empty((0, 4), np.float32), A) == 4
    gallery.close()
    with EmbeddedGallery(gallery.path) as again:
        assert again.commit() == again.refresh() == 4
        assert again.add(["c"], draw(1, 4), A) == 5


def test_rows_are_paged_in_order_of_age_without_the_removed(gallery):
    gallery.add(numbered(0, 10), draw(10, 4), A)
    gallery.add(["3"], draw(1, 4), A)
    gallery.remove(["5"])
    seen, after = [], 0
    while page := gallery.rows(after, limit=4):
        seen += [row.id for row in page]
        after = page[-1].seq
    assert seen == ["0", "1", "2", "4", "6", "7", "8", "9", "3"]


def test_stats_count_living_rows_by_space(gallery):
    gallery.add(numbered(0, 10), draw(10, 4), A)
    gallery.add(numbered(8, 12), draw(4, 6), B)
    gallery.remove(["0"])
    stats = gallery.stats()
    assert (stats.rows, stats.by_space, stats.sequence) == (11, {"a": 7, "b": 4}, 15)
    assert stats.bytes == 10 * 4 * 4 + 4 * 6 * 4
    gallery.remove(numbered(0, 8))
    assert gallery.stats().by_space == {"b": 4}
    assert gallery.view().spaces == {"b"}


@pytest.mark.slow
def test_memory_stays_bounded_when_the_same_ids_are_written_again_and_again(tmp_path):
    with EmbeddedGallery(tmp_path, seal=16) as gallery:
        for turn in range(200):
            gallery.add(numbered(0, 10), draw(10, 4, seed=turn), A)
        assert gallery.stats().rows == 10
        assert gallery.stats().bytes <= (2 * 10 + 16) * 4 * 4 * 2


def test_a_part_that_is_mostly_dead_is_swept_out(gallery):
    gallery.add(numbered(0, 4096), draw(4096, 4), A)
    gallery.remove(numbered(0, 2048))
    assert gallery.stats().bytes == 4096 * 16
    gallery.remove(["3000"])
    assert gallery.stats().bytes == 2047 * 16
    gallery.remove(numbered(0, 4096))
    assert (gallery.stats().bytes, gallery.view().search(draw(1, 4), A)) == (0, [[]])


# --- views, threads, followers --------------------------------------------------------------------------------------


def test_a_view_never_changes(gallery):
    """Not by overwriting, removing, sealing, merging or closing."""
    vectors, queries = draw(6000, 4), draw(3, 4, seed=1)
    gallery.add(numbered(0, 6000), vectors, A)
    view = gallery.view()
    before = view.search(queries, A, 50)
    gallery.add(numbered(0, 3000), draw(3000, 4, seed=2), A)
    gallery.remove(numbered(2000, 5900))
    gallery.add(numbered(7000, 24000), draw(17000, 4, seed=3), A)
    gallery.close()

    assert view.search(queries, A, 50) == before
    assert (view.sequence, view.spaces) == (6000, frozenset({"a"}))
    with pytest.raises(FrozenInstanceError):
        view.sequence = 1


@pytest.mark.slow
def test_readers_never_see_half_an_add_nor_a_wrong_row(tmp_path):
    """Each add overwrites all five members of a group; a reader finds five of one age, at their own vectors."""
    groups, corners = 40, np.eye(8, dtype=np.float32)
    space = Space("s", 8)
    stop, problems = threading.Event(), []

    def read(gallery: EmbeddedGallery, seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            try:
                view = gallery.view()
                group = int(random.integers(groups))
                (hits,) = view.search(corners[group % 8][None], space, 50, {"group": group})
                ages = {hit.payload["age"] for hit in hits}
                if len(hits) not in (0, 5) or len(ages) > 1:
                    problems.append((group, hits))
                if any(hit.id.split("-")[0] != str(group) or abs(hit.score - 1) > 1e-6 for hit in hits):
                    problems.append((group, hits))
                total = view.search(corners[:1], space, 10**6)[0]
                if len(total) % 5 or len(total) != view.stats().rows:
                    problems.append(("total", len(total)))
            except Exception as error:  # noqa: BLE001 - a thread's error would be lost
                problems.append(error)
                return

    with EmbeddedGallery(tmp_path, seal=64) as gallery:
        readers = [threading.Thread(target=read, args=(gallery, seed)) for seed in range(3)]
        for reader in readers:
            reader.start()
        random = np.random.default_rng(9)
        age = 0
        while age < 150 and not problems:
            group, age = int(random.integers(groups)), age + 1
            names = [f"{group}-{i}" for i in range(5)]
            if random.random() < 0.2:
                gallery.remove(names)
            else:
                payload = [{"group": group, "age": age}] * 5
                gallery.add(names, np.repeat(corners[group % 8][None], 5, 0), space, payload)
        stop.set()
        for reader in readers:
            reader.join()
    assert not problems, problems[:3]


def test_a_follower_sees_everything_after_refresh_and_nothing_before(gallery):
    gallery.add(numbered(0, 5), draw(5, 4), A)
    with EmbeddedGallery(gallery.path, readonly=True) as follower:
        gallery.add(["new", "0"], draw(2, 6), B)
        gallery.remove(["1"])
        assert follower.stats().rows == 5
        assert follower.refresh() == gallery.commit() == 8
        assert follower.view().stats() == gallery.stats()
        queries = draw(2, 6, seed=1)
        assert follower.search(queries, B) == gallery.search(queries, B)
        with pytest.raises(ConfigError, match="readonly"):
            follower.add(["x"], draw(1, 4), A)
        with pytest.raises(ConfigError, match="readonly"):
            follower.remove(["0"])


def test_a_change_interrupted_in_memory_is_taken_from_the_file(gallery, monkeypatch):
    """Committed but not shown (an interrupt, no memory): the next reader sees it whole."""
    gallery.add(["old"], draw(1, 4), A)

    def put(self, *args):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(memory.Memory, "put", put)
    with pytest.raises(KeyboardInterrupt):
        gallery.add(["new"], draw(1, 4), A)
    assert sorted(found(gallery.search(draw(1, 4), A)[0])) == ["new", "old"]


# --- refusals -------------------------------------------------------------------------------------------------------

good = draw(2, 4)
BAD_ADDS = {
    "shape": (["x", "y"], draw(2, 5), None, "shape .N, 4."),
    "rank": (["x"], draw(1, 4)[0], None, "shape .N, 4."),
    "whole numbers": (["x", "y"], good.astype(int), None, "floating point"),
    "nan": (["x", "y"], np.array([[1, 2, 3, 4], [1, np.nan, 3, 4]], np.float32), None, "row 1"),
    "too large for float32": (["x", "y"], np.full((2, 4), 1e300), None, "finite"),
    "zero": (["x", "y"], np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32), None, "row 1"),
    "ragged": (["x", "y"], [[1.0], [1.0, 2.0]], None, "lengths"),
    "twice": (["x", "x"], good, None, "'x' twice"),
    "twice as text": ([1, "1"], good, None, "'1' twice"),
    "more ids": (["x", "y", "z"], good, None, "3 ids and 2 vectors"),
    "bare string": ("xy", good, None, "list"),
    "no sequence": (7, good, None, "list"),
    "boolean id": ([True, "y"], good, None, "True"),
    "float id": ([1.0, "y"], good, None, "1.0"),
    "empty id": (["", "y"], good, None, "''"),
    "surrogate id": (["\ud800", "y"], good, None, "surrogates"),
    "payload count": (["x", "y"], good, [{}], "got 1"),
    "one payload": (["x", "y"], good, {"a": 1}, "single dict"),
    "payload type": (["x", "y"], good, [{}, 3], "'y'"),
    "payload keys": (["x", "y"], good, [{}, {1: 2}], "string keys"),
    "payload value": (["x", "y"], good, [{}, {"a": object()}], "JSON"),
    "payload nan": (["x", "y"], good, [{}, {"a": float("nan")}], "JSON"),
}


@pytest.mark.parametrize("case", BAD_ADDS)
def test_a_bad_add_says_why_and_stores_nothing(gallery, case):
    ids, vectors, payload, why = BAD_ADDS[case]
    gallery.add(["x"], draw(1, 4, seed=3), A)
    before = gallery.get(["x"])[0]

    with pytest.raises(DataError, match=why) as caught:
        gallery.add(ids, vectors, A, payload)

    assert "\n" not in str(caught.value)
    after = gallery.get(["x"])[0]
    assert (gallery.stats().rows, gallery.commit(), after.seq) == (1, 1, before.seq)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"queries": draw(1, 6)}, "queries"),
        ({"queries": np.full((1, 4), np.inf, np.float32)}, "finite"),
        ({"queries": np.zeros((1, 4), np.float32)}, "zeros"),
        ({"k": 0}, "k must be"),
        ({"k": -1}, "k must be"),
        ({"k": 1.5}, "k must be"),
        ({"k": True}, "k must be"),
        ({"where": [("a", 1)]}, "where must map"),
        ({"where": {"a": [1]}}, "where takes"),
        ({"where": {1: 1}}, "where takes"),
        ({"where": {"a": float("nan")}}, "where takes"),
    ],
)
def test_a_bad_search_says_why(gallery, change, why):
    """Also in an empty gallery, so that a mistake shows before the first row."""
    with pytest.raises(DataError, match=why):
        gallery.search(**{"queries": draw(1, 4), "space": A, "k": 3, "where": None, **change})


def test_a_space_that_changed_is_refused(gallery):
    gallery.add(["x"], draw(1, 4), A)
    gallery.remove(["x"])
    for _ in range(2):
        with pytest.raises(SpaceError, match="dim=4"):
            gallery.add(["y"], draw(1, 5), Space("a", 5, family="f"))
        with pytest.raises(SpaceError, match="family='f'"):
            gallery.add(["y"], draw(1, 4), Space("a", 4, family="other"))
        with pytest.raises(SpaceError, match="dim=4"):
            gallery.search(draw(1, 5), Space("a", 5))
        with pytest.raises(SpaceError, match=r"lifelong\.types\.Space"):
            gallery.search(draw(1, 4), "a")
        gallery.close()
        gallery = EmbeddedGallery(gallery.path)
    assert gallery.stats().rows == 0
    gallery.close()


def test_a_closed_gallery_says_so(gallery):
    gallery.add(["x"], draw(1, 4), A)
    gallery.close()
    gallery.close()
    for call in (
        lambda: gallery.add(["x"], draw(1, 4), A),
        lambda: gallery.remove(["x"]),
        lambda: gallery.get(["x"]),
        lambda: gallery.rows(),
        lambda: gallery.search(draw(1, 4), A),
        gallery.view,
        gallery.stats,
        gallery.commit,
        gallery.refresh,
    ):
        with pytest.raises(Unavailable, match="closed"):
            call()


def test_only_one_writer_and_the_error_names_it(gallery):
    with pytest.raises(Locked, match=f"process {os.getpid()}; stop it, or open readonly"):
        EmbeddedGallery(gallery.path)
    gallery.close()
    EmbeddedGallery(gallery.path).close()


def test_there_must_be_something_to_follow(tmp_path):
    with pytest.raises(NotFound, match="writer"):
        EmbeddedGallery(tmp_path / "none", readonly=True)
    (tmp_path / FILE).touch()  # a writer that was killed before its first commit
    with pytest.raises(NotFound, match="empty"):
        EmbeddedGallery(tmp_path, readonly=True)
    with EmbeddedGallery(tmp_path) as gallery:
        assert gallery.stats().rows == 0
    with EmbeddedGallery(tmp_path, readonly=True) as follower:
        assert follower.stats().rows == 0


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE items (id)")
    base.close()


def newer(path: Path) -> None:
    EmbeddedGallery(path.parent).close()
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 99")
    base.close()


def filled(path: Path) -> bytes:
    with EmbeddedGallery(path.parent) as gallery:
        gallery.add(numbered(0, 500), draw(500, 4), A)
    return path.read_bytes()


def truncated(path: Path) -> None:
    path.write_bytes(filled(path)[: 4096 * 5 + 17])


def scribbled(path: Path) -> None:
    content = bytearray(filled(path))
    content[4096 * 4 :] = bytes(range(256)) * (len(content[4096 * 4 :]) // 256)
    path.write_bytes(content)


def unindexed(path: Path) -> None:
    """The index of ids only: every row can still be read, but the next write would go wrong."""
    content = bytearray(filled(path))
    base = sqlite3.connect(path)
    page, size = (base.execute(query).fetchone()[0] for query in ("SELECT rootpage FROM sqlite_master WHERE name LIKE "
                  "'sqlite_autoindex_items%'", "PRAGMA page_size"))  # fmt: skip
    base.close()
    content[(page - 1) * size : page * size] = bytes(size)
    path.write_bytes(content)


def spoilt(path: Path) -> None:
    filled(path)
    base = sqlite3.connect(path)
    base.execute("UPDATE items SET vector = x'0000c07f' WHERE id = '77'")  # too short, and NaN
    base.commit()
    base.close()


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(
    "damage",
    [foreign, newer, truncated, scribbled, unindexed, spoilt, lambda path: path.write_text("no database, " * 999)],
)
def test_a_foreign_or_damaged_file_is_refused_by_name_and_left_alone(tmp_path, damage, readonly):
    path = tmp_path / FILE
    damage(path)
    before = path.read_bytes()
    with pytest.raises(ArtifactError) as caught:
        EmbeddedGallery(tmp_path, readonly=readonly)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    path.unlink()
    EmbeddedGallery(tmp_path).close()  # the lock was let go


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="check the path"):
        EmbeddedGallery(tmp_path / "file" / "g")
    with pytest.raises(ConfigError, match="threads"):
        EmbeddedGallery(tmp_path / "g", threads=0)


# --- fit ------------------------------------------------------------------------------------------------------------


def test_the_file_can_be_read_without_this_library(gallery):
    """The documented layout: little-endian float32, JSON, and which change ended which row."""
    vectors = draw(3, 4)
    gallery.add(["a", "b", "c"], vectors, A, [{"n": 1}, {}, {}])
    gallery.remove(["b"])
    gallery.add(["c"], vectors[:1], A)
    base = sqlite3.connect(gallery.path / FILE)
    rows = base.execute("SELECT id, seq, space, dim, vector, payload FROM items ORDER BY seq").fetchall()
    spaces = base.execute("SELECT id, dim, family FROM spaces").fetchall()
    dead = base.execute("SELECT seq, row FROM dead ORDER BY seq").fetchall()
    modes = [base.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "user_version")]
    base.close()
    assert [row[:4] for row in rows] == [("a", 1, "a", 4), ("c", 5, "a", 4)]
    assert rows[0][4] == vectors[0].astype("<f4").tobytes()
    assert json.loads(rows[0][5]) == {"n": 1}
    assert dead == [(4, 2), (5, 3)]
    assert spaces == [("a", 4, "f")]
    assert modes == ["wal", 2]
    assert gallery._store._base.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL; not kept in the file


def test_it_is_installed_and_keeps_the_interface(gallery):
    assert plugins.find("gallery", "faiss") is EmbeddedGallery
    contract: Gallery = gallery
    view: View = contract.view()
    for protocol, thing in ((Gallery, gallery), (View, view)):
        assert all(hasattr(thing, name) for name in vars(protocol) if not name.startswith("_"))


def test_opening_tells_faiss_when_blas_is_worth_it(gallery):
    """Four queries: FAISS's own threshold (128000) makes batches several times slower."""
    faiss.cvar.distance_compute_blas_threshold = 128000
    gallery.add(["x"], draw(1, 4), A)
    assert faiss.cvar.distance_compute_blas_threshold == 16
    gallery.add(["y"], draw(1, 6), B)
    assert faiss.cvar.distance_compute_blas_threshold == 24


def test_threads_are_left_alone_unless_asked_for(tmp_path):
    before = faiss.omp_get_max_threads()
    try:
        EmbeddedGallery(tmp_path).close()
        assert faiss.omp_get_max_threads() == before
        EmbeddedGallery(tmp_path, threads=1).close()
        assert faiss.omp_get_max_threads() == 1
    finally:
        faiss.omp_set_num_threads(before)
