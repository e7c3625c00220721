"""What every gallery backend promises, the same tests for each; expected values come from numpy.

A backend is a class here: `open()` gives the writer, `reopen()` closes it and opens it again, `reader()` is another
process's view of it. `can` says what it is able to do; a test that needs more is skipped.
"""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong import plugins
from lifelong.errors import DataError, NotFound, SpaceError, Unavailable
from lifelong.gallery import indexes
from lifelong.gallery.base import Gallery, Hit
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.pgvector import PgVectorGallery
from lifelong.gallery.transient import MemoryGallery
from lifelong.types import Space

pytestmark = pytest.mark.slow  # together too long for `make fast`

A = Space("a", 4, family="f")
B = Space("b", 6, frozenset({"a"}), family="f")
C = Space("c", 8, frozenset({"a", "b"}), family="f")
ALL = frozenset({"restart", "readers", "compaction"})


class Memory:
    """Gone with its process."""

    can: frozenset[str] = frozenset()

    def __init__(self, folder: Path) -> None:
        self.gallery: Gallery = MemoryGallery(seal=64)

    def open(self) -> Gallery:
        return self.gallery

    def close(self) -> None:
        self.gallery.close()


class Faiss:
    """Flat segments, made at whatever moment the thread gets to it."""

    can = ALL
    index = "flat"

    def __init__(self, folder: Path) -> None:
        self.folder, self.others = folder, []
        self.gallery = self._opened()

    def _opened(self) -> EmbeddedGallery:
        return EmbeddedGallery(self.folder, seal=64, index=self.index)

    def open(self) -> Gallery:
        return self.gallery

    def reopen(self) -> Gallery:
        self.gallery.close()
        self.gallery = self._opened()
        return self.gallery

    def reader(self) -> Gallery:
        self.others.append(EmbeddedGallery(self.folder, readonly=True, seal=48))
        return self.others[-1]

    def close(self) -> None:
        for one in (self.gallery, *self.others):
            one.close()


class FaissIVF(Faiss):
    """The same with inverted lists from 200 rows on; small ones look into every list, so that nothing is missed."""

    index = "ivf"


class PgVector:
    """A schema of its own in a real server; every space is compared row by row."""

    can = ALL
    large = 10**9

    def __init__(self, dsns: list[str], schema: str) -> None:
        self.place, self.others = {"dsn": dsns, "schema": schema, "large": self.large, "effort": 1000}, []
        self.gallery = PgVectorGallery(**self.place)

    def open(self) -> Gallery:
        return self.gallery

    def reopen(self) -> Gallery:
        self.gallery.close()
        self.gallery = PgVectorGallery(**self.place)
        return self.gallery

    def reader(self) -> Gallery:
        self.others.append(PgVectorGallery(**self.place, readonly=True))
        return self.others[-1]

    def close(self) -> None:
        for one in (self.gallery, *self.others):
            one.close()


class PgVectorHNSW(PgVector):
    """The same with an HNSW index for each space from 200 rows on, with a queue that misses nothing here."""

    large = 200


BACKENDS = {
    "memory": Memory,
    "faiss": Faiss,
    "faiss-ivf": FaissIVF,
    "pgvector": PgVector,
    "pgvector-hnsw": PgVectorHNSW,
}
STARTED = [pytest.param(name, marks=[pytest.mark.e2e] if name.startswith("pg") else []) for name in BACKENDS]


@pytest.fixture(params=STARTED)
def backend(request, tmp_path, monkeypatch):
    needs = set(getattr(request.node.get_closest_marker("usefixtures"), "args", ())) & ALL
    kind = BACKENDS[request.param]
    if missing := needs - kind.can:
        pytest.skip(f"{request.param} does not offer {', '.join(sorted(missing))}")
    monkeypatch.setattr(indexes, "SMALL", 200)
    monkeypatch.setattr(indexes, "TARGET", 2.0)  # never reached: every list is looked into
    if issubclass(kind, PgVector):
        made = kind([request.getfixturevalue("postgres").dsn()], f"g{uuid.uuid4().hex}")
    else:
        made = kind(tmp_path / "g")
    yield made
    made.close()


@pytest.fixture
def restart() -> None:
    """Named by tests whose backend has to survive its process."""


@pytest.fixture
def readers() -> None:
    """Named by tests whose backend has to be readable by other processes."""


@pytest.fixture
def compaction() -> None:
    """Named by tests that ask for compaction."""


def needs(*abilities: str) -> pytest.MarkDecorator:
    return pytest.mark.usefixtures(*abilities)


def draw(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def ids(start: int, stop: int) -> list[str]:
    return [f"i{i}" for i in range(start, stop)]


def found(hits: list[Hit]) -> list[str]:
    return [hit.id for hit in hits]


def ranking(queries: np.ndarray, rows: dict[str, np.ndarray]) -> tuple[list[list[str]], np.ndarray]:
    """Return all ids, best first, and scores by id: cosines with as many first coordinates of the query, in float64."""
    names = list(rows)
    scores = np.stack([[_cosine(query, rows[name]) for name in names] for query in queries.astype(np.float64)])
    order = np.argsort(-scores, axis=1, kind="stable")
    return [[names[i] for i in row] for row in order], np.take_along_axis(scores, order, 1)


def _cosine(query: np.ndarray, row: np.ndarray) -> float:
    """Return the cosine on the coordinates that both have; a row that is wider than the query keeps its length."""
    d = min(len(query), len(row))
    shared = query[:d] @ row[:d].astype(np.float64)
    return float(shared / np.linalg.norm(query[:d]) / np.linalg.norm(row.astype(np.float64)))


def agrees(hits: list[list[Hit]], queries: np.ndarray, rows: dict[str, np.ndarray], k: int) -> None:
    names, scores = ranking(queries, rows)
    for got, expected, score in zip(hits, names, scores, strict=True):
        np.testing.assert_allclose([hit.score for hit in got], score[:k], rtol=0, atol=1e-6)
        assert found(got) == expected[:k]


# --- ids and vectors --------------------------------------------------------------------------------------------------


def test_what_was_added_is_got_bit_for_bit(backend):
    gallery, vectors = backend.open(), draw(20, 4)
    gallery.add(ids(0, 20), vectors, A, [{"n": i} for i in range(20)])
    rows = gallery.get(ids(0, 20))
    assert b"".join(row.vector.tobytes() for row in rows) == vectors.tobytes()
    assert [(row.id, row.space, row.payload) for row in rows] == [(f"i{i}", "a", {"n": i}) for i in range(20)]


def test_an_unknown_id_is_none(backend):
    gallery = backend.open()
    gallery.add(["x"], draw(1, 4), A)
    assert [row and row.id for row in gallery.get(["y", "x", "y"])] == [None, "x", None]


def test_integers_are_their_decimals(backend):
    gallery = backend.open()
    gallery.add([7, np.int64(-8), torch.tensor(9)], draw(3, 4), A)
    assert [row.id for row in gallery.get(["7", "-8", 9])] == ["7", "-8", "9"]


def test_an_id_is_unique_and_the_last_one_counts(backend):
    gallery, new = backend.open(), draw(1, 4, seed=1)
    gallery.add(["x", "y"], draw(2, 4), A, [{"n": 1}, {}])
    gallery.add(["x"], new, A, [{"n": 2}])
    (hits,) = gallery.search(new, A, 9)
    assert found(hits) == ["x", "y"]
    assert hits[0].payload == {"n": 2}
    assert hits[0].score == pytest.approx(1, abs=1e-6)


def test_an_id_may_move_to_another_space(backend):
    gallery = backend.open()
    gallery.add(["x"], draw(1, 4), A)
    gallery.add(["x"], draw(1, 6), B)
    assert gallery.search(draw(1, 4), A) == [[]]
    assert [hit.space for hit in gallery.search(draw(1, 6), B)[0]] == ["b"]
    assert gallery.stats().by_space == {"b": 1}


def test_ids_twice_in_one_call_are_refused_and_nothing_is_stored(backend):
    gallery = backend.open()
    with pytest.raises(DataError, match="twice"):
        gallery.add(["x", "x"], draw(2, 4), A)
    assert gallery.stats().rows == 0


def test_payloads_are_the_callers_own(backend):
    gallery, payload = backend.open(), {"deep": [1, {"x": None}], "ü": "€"}
    gallery.add(["x"], draw(1, 4), A, [payload])
    gallery.search(draw(1, 4), A)[0][0].payload["deep"].clear()
    payload["deep"].clear()
    assert gallery.search(draw(1, 4), A)[0][0].payload == {"deep": [1, {"x": None}], "ü": "€"}


def test_the_callers_array_may_change_afterwards(backend):
    gallery, vectors = backend.open(), draw(3, 4)
    kept = vectors.copy()
    gallery.add(ids(0, 3), vectors, A)
    vectors[:] = 9
    assert [row.vector.tobytes() for row in gallery.get(ids(0, 3))] == [row.tobytes() for row in kept]
    agrees(gallery.search(kept[:1], A, 3), kept[:1], dict(zip(ids(0, 3), kept, strict=True)), 3)


# --- search -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [3, 64, 500, 3000])
@pytest.mark.slow
def test_search_is_the_cosine(backend, rows):
    gallery, vectors, queries = backend.open(), draw(rows, 4), draw(7, 4, seed=1)
    gallery.add(ids(0, rows), vectors, A)
    agrees(gallery.search(queries, A, 10), queries, dict(zip(ids(0, rows), vectors, strict=True)), 10)


def test_spaces_of_three_widths_are_one_ranking(backend):
    gallery, rows = backend.open(), {}
    for at, space in enumerate((A, B, C, A, B)):
        vectors, names = draw(150, space.dim, seed=at), ids(150 * at, 150 * at + 150)
        gallery.add(names, vectors, space)
        rows |= dict(zip(names, vectors, strict=True))
    queries = draw(5, 8, seed=9)
    agrees(gallery.search(queries, C, 12), queries, rows, 12)


def test_only_spaces_that_are_read_are_found(backend):
    gallery = backend.open()
    for at, space in enumerate((A, B, C)):
        gallery.add(ids(100 * at, 100 * at + 100), draw(100, space.dim, seed=at), space)
    for space in (A, B, C):
        hits = gallery.search(draw(3, space.dim), space, 300)
        assert {hit.space for row in hits for hit in row} == space.reads
        assert {len(row) for row in hits} == {100 * len(space.reads)}


def test_one_width_two_spaces(backend):
    """Same width, unrelated models: rows lie side by side and are never mixed up."""
    gallery, twin = backend.open(), Space("twin", 4)
    gallery.add(ids(0, 300), draw(300, 4), A)
    gallery.add(ids(300, 310), draw(10, 4, seed=1), twin)
    hits = gallery.search(draw(4, 4, seed=2), twin, 30)
    assert {hit.space for row in hits for hit in row} == {"twin"}
    assert {len(row) for row in hits} == {10}


def test_a_batch_is_answered_like_each_query_alone(backend):
    gallery, queries = backend.open(), draw(70, 4, seed=1)
    gallery.add(ids(0, 600), draw(600, 4), A)
    assert gallery.search(queries, A, 5) == [gallery.search(query[None], A, 5)[0] for query in queries]


def test_fewer_rows_than_hits_wanted(backend):
    gallery = backend.open()
    assert gallery.search(draw(2, 4), A) == [[], []]
    gallery.add(ids(0, 3), draw(3, 4), A)
    assert [len(row) for row in gallery.search(draw(2, 4), A, 10**9)] == [3, 3]
    assert gallery.search(np.empty((0, 4), np.float32), A) == []


def test_equal_vectors_come_oldest_first(backend):
    gallery = backend.open()
    gallery.add(ids(0, 300), np.ones((300, 4), np.float32), A)
    gallery.add(["i3"], np.full((1, 4), 2, np.float32), A)  # younger now, the same direction
    (hits,) = gallery.search(np.ones((1, 4), np.float32), A, 300, exact=True)
    assert found(hits) == [name for name in ids(0, 300) if name != "i3"] + ["i3"]


def test_an_exact_search_equals_numpy(backend):
    gallery, vectors, queries = backend.open(), draw(2000, 4), draw(3, 4, seed=1)
    gallery.add(ids(0, 2000), vectors, A)
    hits = gallery.search(queries, A, 50, exact=True)
    agrees(hits, queries, dict(zip(ids(0, 2000), vectors, strict=True)), 50)


# --- paging -----------------------------------------------------------------------------------------------------------


def test_pages_of_a_view_fit_together(backend):
    gallery = backend.open()
    gallery.add(ids(0, 400), draw(400, 4), A)
    view, queries = gallery.view(), draw(3, 4, seed=1)
    whole = view.search(queries, A, 30)
    gallery.remove(ids(0, 200))
    pages = [view.search(queries, A, 10, offset=start) for start in (0, 10, 20)]
    assert [[hit for page in pages for hit in page[i]] for i in range(3)] == whole


def test_a_page_beyond_the_end_is_empty(backend):
    gallery = backend.open()
    gallery.add(ids(0, 5), draw(5, 4), A)
    assert [len(row) for row in gallery.search(draw(2, 4), A, 10, offset=3)] == [2, 2]
    assert gallery.search(draw(2, 4), A, 10, offset=5) == [[], []]


def test_all_rows_are_paged_by_age(backend):
    gallery = backend.open()
    gallery.add(ids(0, 300), draw(300, 4), A)
    gallery.add(["i7"], draw(1, 4), A)
    gallery.remove(["i9"])
    seen, after = [], 0
    while page := gallery.rows(after, limit=32):
        assert len(page) <= 32
        seen += [row.id for row in page]
        after = page[-1].seq
    assert seen == [name for name in ids(0, 300) if name not in ("i7", "i9")] + ["i7"]


# --- filters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1, 2, 20, 600])
@pytest.mark.slow
def test_filters_are_exact_at_every_selectivity(backend, share):
    gallery, vectors, queries = backend.open(), draw(1500, 4), draw(3, 4, seed=1)
    gallery.add(ids(0, 1500), vectors, A, [{"label": i % share} for i in range(1500)])
    rows = {f"i{i}": vectors[i] for i in range(0, 1500, share)}
    agrees(gallery.search(queries, A, 8, {"label": 0}), queries, rows, 8)


def test_filters_follow_an_overwrite(backend):
    gallery = backend.open()
    gallery.add(ids(0, 100), draw(100, 4), A, [{"shop": "a"}] * 100)
    gallery.add(["i5"], draw(1, 4), A, [{"shop": "b"}])
    assert found(gallery.search(draw(1, 4), A, 9, {"shop": "b"})[0]) == ["i5"]
    assert "i5" not in found(gallery.search(draw(1, 4), A, 200, {"shop": "a"})[0])


def test_conditions_are_joined_by_and(backend):
    gallery = backend.open()
    gallery.add(ids(0, 60), draw(60, 4), A, [{"x": i % 3, "y": i % 5, "z": [i]} for i in range(60)])
    (hits,) = gallery.search(draw(1, 4), A, 99, {"x": 1, "y": 2})
    assert sorted(found(hits)) == ["i22", "i37", "i52", "i7"]
    assert gallery.search(draw(1, 4), A, 9, {"x": 1, "w": 2}) == [[]]


def test_true_is_not_one_and_null_is_not_absent(backend):
    gallery = backend.open()
    gallery.add(ids(0, 5), np.ones((5, 4), np.float32), A, [{"n": 1}, {"n": True}, {"n": 1.0}, {"n": None}, {}])

    def match(value):
        return sorted(found(gallery.search(np.ones((1, 4), np.float32), A, 9, {"n": value})[0]))

    assert (match(1), match(True), match(None), match("1")) == (["i0", "i2"], ["i1"], ["i3"], [])


# --- removal ----------------------------------------------------------------------------------------------------------


def test_removed_rows_are_gone_from_everything(backend):
    gallery = backend.open()
    gallery.add(ids(0, 500), draw(500, 4), A)
    assert gallery.remove([*ids(0, 400), "i3", "nobody"]) == 400
    assert gallery.remove(ids(0, 400)) == 0
    assert gallery.get(["i0", "i450"])[0] is None
    assert set(found(gallery.search(draw(1, 4), A, 500)[0])) == set(ids(400, 500))
    assert (gallery.stats().rows, len(gallery.rows(limit=999))) == (100, 100)


def test_a_removed_id_may_come_back(backend):
    gallery, vector = backend.open(), draw(1, 4, seed=5)
    gallery.add(ids(0, 300), draw(300, 4), A)
    gallery.remove(["i7"])
    gallery.add(["i7"], vector, A)
    (hits,) = gallery.search(vector, A, 300)
    assert (found(hits)[0], len(hits)) == ("i7", 300)


def test_a_view_outlives_what_happens_next(backend):
    gallery, queries = backend.open(), draw(2, 4, seed=1)
    gallery.add(ids(0, 300), draw(300, 4), A)
    view = gallery.view()
    before = view.search(queries, A, 20)
    gallery.remove(ids(0, 250))
    gallery.add(ids(250, 900), draw(650, 4, seed=2), A)
    gallery.close()
    assert view.search(queries, A, 20) == before


def test_the_sequence_rises_with_every_change(backend):
    gallery = backend.open()
    steps = [gallery.commit(), gallery.add(["x", "y"], draw(2, 4), A), gallery.add(["x"], draw(1, 4), A)]
    gallery.remove(["x", "y"])
    assert [*steps, gallery.commit(), gallery.add([], np.empty((0, 4), np.float32), A)] == [0, 2, 3, 5, 5]


def test_stats_count_what_lives(backend):
    gallery = backend.open()
    gallery.add(ids(0, 200), draw(200, 4), A)
    gallery.add(ids(190, 300), draw(110, 6), B)
    gallery.remove(ids(0, 90))
    stats = gallery.stats()
    assert (stats.rows, stats.by_space, stats.sequence) == (210, {"a": 100, "b": 110}, 400)
    assert stats.bytes > 0
    assert stats.refused == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"vectors": draw(2, 5)}, "shape"),
        ({"vectors": np.array([[1, 2, 3, 4], [0, 0, 0, 0]], np.float32)}, "row 1"),
        ({"vectors": np.full((2, 4), np.nan, np.float32)}, "finite"),
        ({"vectors": np.ones((2, 4), int)}, "floating point"),
        ({"ids": ["x"]}, "1 ids and 2 vectors"),
        ({"ids": ["x", ""]}, "non-empty"),
        ({"payload": [{}]}, "got 1"),
        ({"payload": [{}, {"a": {1, 2}}]}, "JSON"),
    ],
)
def test_a_bad_add_changes_nothing(backend, change, why):
    gallery = backend.open()
    with pytest.raises(DataError, match=why):
        gallery.add(**{"ids": ["x", "y"], "vectors": draw(2, 4), "space": A, "payload": None, **change})
    assert (gallery.stats().rows, gallery.commit()) == (0, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [({"k": 0}, "k must"), ({"offset": -1}, "offset"), ({"offset": True}, "offset"), ({"where": {"a": [1]}}, "where")],
)
def test_a_bad_search_says_why(backend, change, why):
    with pytest.raises(DataError, match=why):
        backend.open().search(draw(1, 4), A, **change)


def test_a_space_keeps_its_width_and_family(backend):
    gallery = backend.open()
    gallery.add(["x"], draw(1, 4), A)
    with pytest.raises(SpaceError, match="dim=4"):
        gallery.add(["y"], draw(1, 5), Space("a", 5, family="f"))
    with pytest.raises(SpaceError, match="family='f'"):
        gallery.add(["y"], draw(1, 4), Space("a", 4, family="other"))
    with pytest.raises(SpaceError, match="dim=4"):
        gallery.search(draw(1, 5), Space("a", 5))
    assert gallery.stats().rows == 1


def test_queries_of_another_family_find_nothing_and_are_told(backend):
    """Whether the space reads a foreign one or is stored as one itself; also after a reopening, where there is one."""
    gallery = backend.open()
    gallery.add(["x"], draw(1, 4), A)
    for each in [backend.reader(), backend.reopen()] if backend.can == ALL else [gallery]:
        for foreign in (Space("b", 6, frozenset({"a"}), family="zz"), Space("a", 4), Space("c", 8, {"b", "a"})):
            with pytest.raises(SpaceError, match="space 'a' is stored with family='f', got queries of space"):
                each.search(draw(1, foreign.dim), foreign)
            with pytest.raises(SpaceError, match="only vectors of one family may be compared"):
                each.view().search(draw(1, foreign.dim), foreign, exact=True)
        assert [hit.id for hit in each.search(draw(1, 6), B)[0]] == ["x"]


def test_a_closed_gallery_says_so(backend):
    gallery = backend.open()
    gallery.close()
    gallery.close()
    for call in (gallery.view, gallery.stats, gallery.commit, gallery.refresh, gallery.rows):
        with pytest.raises(Unavailable, match="closed"):
            call()
    with pytest.raises(Unavailable, match="closed"):
        gallery.add(["x"], draw(1, 4), A)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_readers_beside_a_writer_find_no_wrong_row(backend):
    """Each row's vector says its id and age; a reader finds rows as one `add` wrote them."""
    gallery, space, corners = backend.open(), Space("s", 16), np.eye(16, dtype=np.float32)
    stop, problems = threading.Event(), []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            try:
                corner = int(random.integers(16))
                view = gallery.view()
                (hits,) = view.search(corners[corner][None], space, 60, {"corner": corner})
                if any(not hit.id.startswith(f"{corner}-") or abs(hit.score - 1) > 1e-6 for hit in hits):
                    problems.append(("row", corner, hits))
                if len({hit.id for hit in hits}) < len(hits) or len({hit.payload["age"] for hit in hits}) > 1:
                    problems.append(("half", corner, hits))
                if len(hits) not in (0, 20):
                    problems.append(("count", corner, len(hits)))
            except Exception as error:  # noqa: BLE001 - a thread's error would be lost
                problems.append(error)
                return

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for reader in readers:
        reader.start()
    random = np.random.default_rng(9)
    for age in range(40):
        corner = int(random.integers(16))
        names = [f"{corner}-{i}" for i in range(20)]
        if random.random() < 0.2:
            gallery.remove(names)
        else:
            gallery.add(names, np.repeat(corners[corner][None], 20, 0), space, [{"corner": corner, "age": age}] * 20)
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems, problems[:3]


# --- restart, other processes, compaction -----------------------------------------------------------------------------


def history(gallery: Gallery) -> dict[str, np.ndarray]:
    """Write, overwrite and remove; return what must be there."""
    rows: dict[str, np.ndarray] = {}
    for at, space in enumerate((A, B, A, C, B)):
        vectors, names = draw(250, space.dim, seed=at), ids(100 * at, 100 * at + 250)
        gallery.add(names, vectors, space, [{"at": at}] * 250)
        rows = {name: row for name, row in rows.items() if name not in names}
        rows |= dict(zip(names, vectors, strict=True))
        gone = ids(100 * at, 100 * at + 30)
        gallery.remove(gone)
        rows = {name: row for name, row in rows.items() if name not in gone}
    return rows


def holds(gallery: Gallery, rows: dict[str, np.ndarray]) -> None:
    assert {row.id: row.vector.tobytes() for row in gallery.rows(limit=9999)} == {
        name: vector.tobytes() for name, vector in rows.items()
    }
    assert gallery.stats().rows == len(rows)
    queries = draw(4, 8, seed=77)
    agrees(gallery.search(queries, C, 15), queries, rows, 15)


@needs("restart")
@pytest.mark.slow
def test_a_restart_changes_nothing(backend):
    gallery = backend.open()
    rows = history(gallery)
    sequence, before = gallery.commit(), gallery.search(draw(3, 8, seed=1), C, 20)
    for _ in range(2):
        gallery = backend.reopen()
        holds(gallery, rows)
        assert gallery.commit() == sequence
        assert gallery.search(draw(3, 8, seed=1), C, 20) == before
    assert gallery.add(["new"], draw(1, 4), A) == sequence + 1


@needs("restart")
def test_spaces_are_remembered_without_their_rows(backend):
    backend.open().add(["x"], draw(1, 4), A)
    backend.open().remove(["x"])
    with pytest.raises(SpaceError, match="dim=4"):
        backend.reopen().add(["y"], draw(1, 5), Space("a", 5, family="f"))


@needs("readers")
def test_a_reader_sees_nothing_new_before_it_refreshes(backend):
    gallery = backend.open()
    gallery.add(ids(0, 10), draw(10, 4), A)
    reader = backend.reader()
    gallery.add(["new"], draw(1, 4), A)
    gallery.remove(["i1"])
    assert set(found(reader.search(draw(1, 4), A, 99)[0])) == set(ids(0, 10))
    assert reader.refresh() == gallery.commit() == 12
    assert set(found(reader.search(draw(1, 4), A, 99)[0])) == {*ids(0, 10), "new"} - {"i1"}


@needs("readers")
def test_several_readers_follow_a_long_history(backend):
    gallery = backend.open()
    gallery.add(["first"], draw(1, 4), A)
    readers = [backend.reader() for _ in range(3)]
    rows = {"first": draw(1, 4)[0]} | history(gallery)
    for reader in readers:
        assert reader.refresh() == gallery.commit()
        holds(reader, rows)


def test_rows_that_changed_since_they_were_read_are_not_renewed(backend):
    """Neither overwritten nor removed rows: what is true now stays true."""
    gallery, wide = backend.open(), draw(5, 6, seed=1)
    gallery.add(ids(0, 5), draw(5, 4), A, [{"n": i} for i in range(5)])
    read = gallery.rows()
    gallery.add(["i1"], draw(1, 4, seed=2), A, [{"n": "new"}])
    gallery.remove(["i3"])
    assert gallery.renew(read, wide, B) == 3
    assert gallery.renew(read, wide, B) == 0
    assert gallery.renew([], wide[:0], B) == 0
    rows = gallery.get(ids(0, 5))
    assert [row and (row.space, row.payload["n"]) for row in rows] == [("b", 0), ("a", "new"), ("b", 2), None, ("b", 4)]
    assert rows[4].vector.tobytes() == wide[4].tobytes()
    assert gallery.stats().by_space == {"a": 1, "b": 3}


@needs("readers")
def test_there_must_be_something_to_read(tmp_path):
    with pytest.raises(NotFound):
        EmbeddedGallery(tmp_path / "none", readonly=True)


@needs("compaction", "restart", "readers")
@pytest.mark.slow
def test_compaction_changes_no_answer(backend):
    """Not of the writer, of a reader that followed all along, of one that slept, nor after a restart."""
    gallery = backend.open()
    gallery.add(["first"], draw(1, 4), A)
    awake, asleep = backend.reader(), backend.reader()
    rows = {"first": draw(1, 4)[0]} | history(gallery)
    for _ in range(3):
        gallery.compact()
        awake.refresh()
        for one in (gallery, awake):
            holds(one, rows)
        gallery.add(["x"], draw(1, 4, seed=3), A)
        gallery.remove(["x"])
    asleep.refresh()
    holds(asleep, rows)
    holds(backend.reopen(), rows)


def test_it_is_a_plug_in(backend):
    assert plugins.find("gallery", "faiss") is EmbeddedGallery
    for name in vars(Gallery):
        assert name.startswith("_") or hasattr(backend.open(), name)
