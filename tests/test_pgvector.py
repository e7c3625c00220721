"""The gallery in PostgreSQL: what is its own. What every backend promises is in test_backends.py."""

from __future__ import annotations

import sys
import threading
import uuid

import numpy as np
import psycopg
import pytest

import lifelong.gallery
from lifelong.errors import ArtifactError, ConfigError, DataError, NotFound, Unavailable
from lifelong.gallery import inputs
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.pgvector import PgVectorGallery
from lifelong.gallery.transient import MemoryGallery
from lifelong.types import Space

A = Space("a", 8, family="f")
B = Space("b", 12, frozenset({"a"}), family="f")


def draw(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def asked(dsn: str, query: str, *values: object) -> list[tuple]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, values).fetchall()


def done(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def schema() -> str:
    return f"t{uuid.uuid4().hex}"


# --- without a server -------------------------------------------------------------------------------------------------


def test_without_psycopg_the_extra_is_named(monkeypatch):
    for name in ("hnsw", "postgres", "remote", "rows", "shards", "statements", "tables"):
        monkeypatch.delitem(sys.modules, f"lifelong.gallery.{name}", raising=False)
        monkeypatch.delattr(lifelong.gallery, name, raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"lifelong\[pgvector\]"):
        PgVectorGallery("postgresql://u:hidden@nowhere/db")


def test_no_message_shows_a_password():
    for dsn in ("postgresql://u:hidden@127.0.0.1:9/db", "password=hidden host", "postgresql://u:hidden@[x/db"):
        with pytest.raises((ConfigError, Unavailable)) as raised:
            PgVectorGallery(dsn)
        chain, error = [], raised.value
        while error is not None:
            chain.append(str(error))
            error = error.__cause__
        assert "hidden" not in " ".join(chain)


@pytest.mark.parametrize("change", [{"dsn": []}, {"large": 0}, {"effort": 1001}, {"schema": ""}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match="got"):
        PgVectorGallery(**{"dsn": "postgresql:///x"} | change)


@pytest.mark.parametrize("offset", [("", 1), ("s", 1.5), ("s", True), "s", ("s",), ("s", 2**63)])
def test_an_offset_is_a_name_and_a_whole_number(offset):
    with pytest.raises(DataError):
        inputs.position(offset)
    assert inputs.position(("s", 7)) == ("s", 7)


# --- one server -------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_hits_are_those_of_the_other_backends_bit_for_bit(postgres, schema, tmp_path):
    """Ids, scores and order, over two widths, with and without an index that misses nothing."""
    one = [PgVectorGallery(postgres.dsn(), schema=f"{schema}{n}", large=n, effort=1000) for n in (100, 10**9)]
    two = [MemoryGallery(), EmbeddedGallery(tmp_path)]
    for gallery in (*one, *two):
        gallery.add(range(900), draw(900, 8), A, [{"n": i % 5} for i in range(900)])
        gallery.add(range(850, 1500), draw(650, 12, seed=1) * 1e3, B, [{"n": i % 5} for i in range(650)])
        gallery.remove(range(100))
    one[0].compact()
    assert one[0].stats().segments == 2
    for where in (None, {"n": 3}):
        answers = [gallery.search(draw(70, 12, seed=2), B, 9, where) for gallery in (*one, *two)]
        assert answers[0] == answers[1] == answers[2] == answers[3]
    for gallery in (*one, *two):
        gallery.close()


@pytest.mark.e2e
def test_a_large_space_is_searched_by_its_own_partial_index(postgres, schema):
    """PostgreSQL itself says so, for the very statement that is sent; an exact search never uses an index."""
    from lifelong.gallery.remote import RemoteView, _at_width, _statement

    with PgVectorGallery(postgres.dsn(), schema=schema, large=1000, background=False) as gallery:
        gallery.add(range(5000), draw(5000, 8), A)
        gallery.add(range(5000, 9000), draw(4000, 12), B)
        assert not any(space.indexed for space in gallery.view().known.values())
        assert gallery.compact()
        assert not gallery.compact()
        view = gallery.view()
        assert isinstance(view, RemoteView)
        known, unit = list(view.known.values()), inputs.unit(draw(2, 12))
        widths = {space.dim: _at_width(unit, space.dim) for space in known}

        def plan(quick, full):
            text, values = _statement(widths, quick, full, 10, None)
            values["sequence"] = view.sequence
            found = view.shards.each(lambda _, c: c.execute(f"EXPLAIN {text}".encode(), values).fetchall())
            return "\n".join(line for (line,) in found[0])

        assert {f"items_hnsw_{space.number}" for space in known} == {"items_hnsw_0", "items_hnsw_1"}
        assert all(f"Index Scan using items_hnsw_{n} on items" in plan(known, []) for n in (0, 1))
        assert "hnsw" not in plan([], known)
        near = gallery.search(draw(20, 12, seed=5), B, 10)
        truth = gallery.search(draw(20, 12, seed=5), B, 10, exact=True)
        shared = [len({h.id for h in a} & {h.id for h in b}) for a, b in zip(near, truth, strict=True)]
        assert sum(shared) / 200 > 0.95


@pytest.mark.e2e
def test_a_rare_value_is_found_in_an_indexed_space(postgres, schema):
    """Without an iterative scan, or without looking at every row in the end, most of these would be missed."""
    with PgVectorGallery(postgres.dsn(), schema=schema, large=1000, background=False) as gallery:
        gallery.add(range(5000), draw(5000, 8), A, [{"rare": i % 500 == 0, "one": i} for i in range(5000)])
        gallery.compact()
        for hits in gallery.search(draw(5, 8, seed=1), A, 10, {"rare": True}):
            assert {int(hit.id) for hit in hits} == set(range(0, 5000, 500))
        assert [h.id for h in gallery.search(draw(1, 8, seed=1), A, 10, {"one": 77})[0]] == ["77"]


@pytest.mark.e2e
def test_payloads_and_vectors_that_databases_do_not_like_come_back_as_given(postgres, schema):
    """NUL, lone surrogates, -0.0, huge numbers, order of keys; lengths that float32 cannot square."""
    odd = {"z": "a\0b", "a": "\ud800", "n": -0.0, "big": 1e300, "ü\\": [1, {"x": "\0"}], "i": 2**70}
    vectors = np.concatenate([draw(1, 8) * np.float32(1e30), draw(1, 8) * np.float32(1e-30), draw(1, 8)])
    with PgVectorGallery(postgres.dsn(), schema=schema) as gallery:
        gallery.add(["x", "y", "z"], vectors, A, [odd, {"z": "a\\0b"}, {"c": [1]}])
        rows = gallery.get(["x", "y", "z"])
        assert [repr(row.payload) for row in rows] == [repr(odd), repr({"z": "a\\0b"}), repr({"c": [1]})]
        assert b"".join(row.vector.tobytes() for row in rows) == vectors.tobytes()

        def match(**where):
            return [hit.id for hit in gallery.search(draw(1, 8), A, 9, where)[0]]

        assert (match(z="a\0b"), match(z="a\\0b"), match(a="\ud800")) == (["x"], ["y"], ["x"])
        assert (match(n=0), match(i=2**70), match(c=1)) == (["x"], ["x"], [])
        assert [hit.score for hit in gallery.search(draw(1, 8), A)[0]] == pytest.approx([1, 1, 1], abs=1e-6)
        with pytest.raises(DataError, match="similar size"):
            gallery.add(["w"], np.array([[1e30, 1e-30, 0, 0, 0, 0, 0, 0]], np.float32), A)


@pytest.mark.e2e
def test_rows_and_the_offset_of_their_stream_are_one_transaction(postgres, schema):
    """Whatever fails, both are there or neither."""
    with PgVectorGallery(postgres.dsn(), schema=schema) as gallery:
        assert gallery.offset("camera") is None
        gallery.add(["x"], draw(1, 8), A, offset=("camera", 10))
        done(
            postgres.dsn(),
            f"CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$;"
            f"CREATE TRIGGER no BEFORE UPDATE ON {schema}.offsets EXECUTE FUNCTION {schema}.no()",
        )
        with pytest.raises(Unavailable, match="no"):
            gallery.add(["y"], draw(1, 8), A, offset=("camera", 20))
        assert (gallery.refresh(), gallery.offset("camera"), gallery.get(["y"])) == (1, 10, [None])
        done(postgres.dsn(), f"DROP TRIGGER no ON {schema}.offsets")
        gallery.add(["y"], draw(1, 8), A, offset=("camera", 20))
        assert gallery.add([], draw(0, 8), A, offset=("door", 3)) == 2
        assert (gallery.offset("camera"), gallery.offset("door")) == (20, 3)


@pytest.mark.e2e
def test_several_writers_take_turns(postgres, schema):
    """Three at once: every number is given once, and the last one is the sum of all changes."""
    galleries = [PgVectorGallery(postgres.dsn(), schema=schema) for _ in range(3)]

    def write(at: int) -> None:
        for i in range(20):
            galleries[at].add([f"{at}-{i}", "shared"], draw(2, 8, seed=i), A)

    threads = [threading.Thread(target=write, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {gallery.refresh() for gallery in galleries} == {120}
    rows = galleries[0].rows(limit=999)
    assert (len(rows), len({row.seq for row in rows})) == (61, 61)
    for gallery in galleries:
        gallery.close()


# --- several databases ------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_rows_are_spread_over_databases_and_found_in_all(postgres, database, schema):
    dsns = [postgres.dsn(), database]
    reference = MemoryGallery()
    with PgVectorGallery(dsns, schema=schema) as gallery:
        for one in (gallery, reference):
            one.add(range(300), draw(300, 8), A)
            one.add(range(250, 500), draw(250, 12), B)
            assert one.remove([1, 2, 300, "none"]) == 3
        shares = [asked(dsn, f"SELECT count(*) FROM {schema}.items")[0][0] for dsn in dsns]
        assert sum(shares) == 497
        assert min(shares) > 200
        assert gallery.search(draw(5, 12), B, 20) == reference.search(draw(5, 12), B, 20)
        assert [row.id for row in gallery.rows(limit=999)] == [row.id for row in reference.rows(limit=999)]
        assert gallery.stats().by_space == reference.stats().by_space
        view, before = gallery.view(), gallery.search(draw(5, 12), B, 20)
        gallery.add(range(500), draw(500, 12, seed=1), B)
        assert view.search(draw(5, 12), B, 20) == before
    assert view.search(draw(5, 12), B, 20) == before  # closed: one database after the other
    for wrong, why in ((dsns[::-1], "number 2 of 2"), (dsns[:1], "number 1 of 2"), ([*dsns, database], "of 3")):
        with pytest.raises(ConfigError, match=why):
            PgVectorGallery(wrong, schema=schema)


@pytest.mark.e2e
def test_what_one_database_committed_before_a_crash_is_taken_back(postgres, database, schema, monkeypatch):
    """The writer ends between two commits: nobody sees the half, and the next change starts from what counts."""
    from lifelong.gallery.shards import Change

    dsns = [postgres.dsn(), database]
    with PgVectorGallery(dsns, schema=schema) as gallery:
        gallery.add(range(100), draw(100, 8), A)
        before = gallery.search(draw(3, 8, seed=1), A, 100)

        def crash(self, last):
            self.connections[1].execute("UPDATE state SET sequence = %s", (last,))
            self.connections[1].execute("COMMIT")
            raise KeyboardInterrupt

        monkeypatch.setattr(Change, "finish", crash)
        for change in (lambda: gallery.add(range(50, 150), draw(100, 8, seed=2), A), lambda: gallery.remove(range(30))):
            with pytest.raises(KeyboardInterrupt):
                change()
            with PgVectorGallery(dsns, schema=schema, readonly=True) as reader:
                assert gallery.refresh() == reader.commit() == 100
                assert gallery.search(draw(3, 8, seed=1), A, 100) == reader.search(draw(3, 8, seed=1), A, 100) == before
        monkeypatch.undo()
        first = next(str(i) for i in range(1000, 2000) if gallery._shards.place(str(i)) == 0)
        assert gallery.add([first], draw(1, 8), A) == 101
        assert len(gallery.rows(limit=999)) == gallery.stats().rows == 101
        assert asked(database, f"SELECT count(*) FROM {schema}.items WHERE seq > 101") == [(0,)]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_tables_of_others_and_of_newer_releases_are_refused(postgres, schema):
    with pytest.raises(NotFound, match="no gallery"):
        PgVectorGallery(postgres.dsn(), schema=schema, readonly=True)
    done(postgres.dsn(), f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.customers (id int)")
    with pytest.raises(ArtifactError, match="other tables"):
        PgVectorGallery(postgres.dsn(), schema=schema)
    newer = f"{schema}n"
    PgVectorGallery(postgres.dsn(), schema=newer).close()
    done(postgres.dsn(), f"UPDATE {newer}.about SET value = '2' WHERE key = 'version'")
    with pytest.raises(ArtifactError, match="layout 2, this release reads 1"):
        PgVectorGallery(postgres.dsn(), schema=newer)


@pytest.mark.e2e
def test_a_lost_table_is_said_to_be_lost(postgres, schema):
    with PgVectorGallery(postgres.dsn(), schema=schema) as gallery:
        gallery.add(["x"], draw(1, 8), A)
        done(postgres.dsn(), f"DROP TABLE {schema}.items")
        with pytest.raises(ArtifactError, match="lost a table"):
            gallery.search(draw(1, 8), A)


@pytest.mark.e2e
def test_a_database_without_the_extension_is_refused(postgres, database, schema):
    """A reader may not make it, and who is not allowed to cannot."""
    with pytest.raises(ConfigError, match="CREATE EXTENSION vector"):
        PgVectorGallery(database, schema=schema, readonly=True)
    done(postgres.dsn(), f"CREATE ROLE {schema} LOGIN")
    with pytest.raises(ConfigError, match="CREATE EXTENSION vector"):
        PgVectorGallery(database.replace("lifelong:secret", schema), schema=schema)
    PgVectorGallery(database, schema=schema).close()
    PgVectorGallery(database, schema=schema, readonly=True).close()


@pytest.mark.e2e
def test_a_view_is_refused_once_rows_of_it_are_forgotten(postgres, schema, monkeypatch):
    from lifelong.gallery import remote, shards

    with PgVectorGallery(postgres.dsn(), schema=schema) as gallery:
        gallery.add(["x", "y"], draw(2, 8), A)
        view = gallery.view()
        gallery.add(["x"], draw(1, 8), A)
        assert len(view.search(draw(1, 8), A)[0]) == 2
        monkeypatch.setattr(shards, "KEPT_SECONDS", 0)
        monkeypatch.setattr(remote, "KEPT_SECONDS", 0)
        gallery.compact()
        with pytest.raises(Unavailable, match="refresh"):
            view.search(draw(1, 8), A)
        assert len(gallery.search(draw(1, 8), A)[0]) == 2


# --- a server that goes away ------------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_a_killed_server_loses_nothing_acknowledged(schema):
    """A writer and a reader go on after kill -9 and a restart, without being opened anew."""
    from postgres import served

    with served() as server:
        gallery = PgVectorGallery(server.dsn(), schema=schema, large=100)
        gallery.add(["first"], draw(1, 8), A)
        reader, acknowledged, stop = PgVectorGallery(server.dsn(), schema=schema, readonly=True), [], threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                try:
                    gallery.add([f"{number}"], draw(1, 8, seed=number), A, offset=("s", number))
                    acknowledged.append(number)
                    number += 1
                except Unavailable:
                    stop.wait(0.05)

        writer = threading.Thread(target=write)
        writer.start()
        for turn in range(2):
            while len(acknowledged) < 60 * (turn + 1):
                stop.wait(0.01)
            server.kill()
            with pytest.raises(Unavailable, match="cannot be used now"):
                reader.refresh()
            server.start()
        stop.set()
        writer.join()
        assert reader.refresh() == gallery.refresh()
        there = {row.id: row.vector.tobytes() for row in reader.rows(limit=10**6)}
        assert all(there[str(i)] == draw(1, 8, seed=i).tobytes() for i in acknowledged)
        assert len(there) in (1 + len(acknowledged), 2 + len(acknowledged))
        assert gallery.offset("s") in (acknowledged[-1], acknowledged[-1] + 1)
        assert len(gallery.search(draw(1, 8), A, 10**6)[0]) == len(there)
        gallery.close(), reader.close()
