"""Segments are derived: whatever happens to their files, the gallery answers from SQLite, and says what it met."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lifelong.errors import ArtifactError, ConfigError, UnknownName
from lifelong.gallery import compaction, indexes, layout, segments
from lifelong.gallery.embedded import FILE, FOLDER, EmbeddedGallery
from lifelong.types import Space

A = Space("a", 10, family="f")
B = Space("b", 10, frozenset({"a"}), family="f")
N = Space("n", 4)
WIDE = Space("wide", 16, frozenset({"a", "b"}), family="f")


def draw(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


def ids(start: int, stop: int) -> list[str]:
    return [f"i{i}" for i in range(start, stop)]


def opened(folder: Path, **options) -> EmbeddedGallery:
    return EmbeddedGallery(folder, **{"seal": 64, "background": False, **options})


def content(gallery: EmbeddedGallery) -> dict[str, tuple[int, bytes, str]]:
    return {row.id: (row.seq, row.vector.tobytes(), json.dumps(row.payload)) for row in gallery.rows(limit=10**6)}


def answers(gallery: EmbeddedGallery) -> list:
    return gallery.search(draw(5, 16, seed=99), WIDE, 40, exact=True)


def filled(folder: Path, **options) -> EmbeddedGallery:
    """300 rows of two spaces in one segment, 50 of them overwritten, removed or newer."""
    gallery = opened(folder, **options)
    gallery.add(ids(0, 200), draw(200, 10), A, [{"n": i % 7, "ü": "€" * (i % 3)} for i in range(200)])
    gallery.add(ids(200, 300), draw(100, 10, seed=1), B)
    gallery.compact()
    gallery.add(ids(290, 320), draw(30, 10, seed=2), B)
    gallery.remove(ids(0, 10))
    return gallery


def waited(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_segment_is_readable_by_numpy_alone(tmp_path):
    """The documented layout."""
    gallery = filled(tmp_path)
    (folder,) = (tmp_path / FOLDER).iterdir()
    vectors, rows, ends, text = (np.load(folder / f"{name}.npy") for name in segments.ARRAYS)
    given = np.zeros((300, 10))
    given[:200], given[200:] = draw(200, 10), draw(100, 10, seed=1)
    np.testing.assert_allclose(vectors, given / np.linalg.norm(given, axis=1)[:, None], atol=1e-7)
    assert rows[0].tolist() == list(range(1, 301))
    assert rows[1].tolist() == [0] * 200 + [1] * 100
    strings = [bytes(text[a:b]).decode() for a, b in pairwise(ends)]
    assert strings[::2] == ids(0, 300)
    assert [json.loads(one) for one in strings[1:400:2]] == [{"n": i % 7, "ü": "€" * (i % 3)} for i in range(200)]
    assert gallery.catalog.segments[folder.name]["spaces"] == ["a", "b"]
    gallery.close()


def test_opening_reads_only_what_no_segment_has(tmp_path, monkeypatch):
    filled(tmp_path).close()
    seen = []
    plain = segments.read
    monkeypatch.setattr(segments, "read", lambda *args, **more: seen.append(plain(*args, **more)) or seen[-1])
    with opened(tmp_path) as gallery:
        assert [part.name for part in gallery.memory.segments] == [part.name for part in seen]
        assert sum(len(part) for part in gallery.memory.tail()) == 30
        assert gallery.memory.segments[0].dead == 20


def cut(folder: Path) -> Path:
    path = folder / "vectors.npy"
    os.truncate(path, 1000)
    return path


def altered(folder: Path) -> Path:
    path = folder / "rows.npy"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    return path


def missing(folder: Path) -> Path:
    (folder / "text.npy").unlink()
    return folder / "text.npy"


def foreign(folder: Path) -> Path:
    """A sound file of another gallery's segment."""
    with tempfile.TemporaryDirectory() as other:
        gallery = opened(Path(other))
        gallery.add(ids(0, 300), draw(300, 10, seed=8), B)
        gallery.compact()
        (source,) = (Path(other) / FOLDER).iterdir()
        shutil.copy(source / "vectors.npy", folder / "vectors.npy")
        gallery.close()
    return folder / "vectors.npy"


def unlisted(folder: Path) -> Path:
    shutil.rmtree(folder)
    return folder / "ends.npy"


def index(folder: Path) -> Path:
    path = folder / segments.INDEX
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return path


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("damage", [cut, altered, missing, foreign, unlisted, index])
@pytest.mark.slow
def test_a_damaged_file_is_refused_by_name_counted_and_done_without(tmp_path, damage, readonly, caplog, monkeypatch):
    monkeypatch.setattr(indexes, "SMALL", 100)
    gallery = filled(tmp_path, index="ivf")
    before = content(gallery), answers(gallery)
    gallery.close()
    (folder,) = (tmp_path / FOLDER).iterdir()
    path = damage(folder)
    with caplog.at_level(logging.WARNING), opened(tmp_path, readonly=readonly) as again:
        assert (content(again), answers(again)) == before
        assert (again.stats().refused, again.stats().segments) == (1, 0)
    (record,) = caplog.records
    assert str(path) in record.getMessage() or damage is unlisted
    assert "\n" not in record.getMessage()
    assert readonly == (path.parent in (tmp_path / FOLDER).iterdir() if damage is not unlisted else readonly)


def test_a_damaged_segment_is_made_anew(tmp_path, caplog):
    filled(tmp_path).close()
    (folder,) = (tmp_path / FOLDER).iterdir()
    cut(folder)
    with opened(tmp_path) as gallery:
        before = answers(gallery)
        gallery.compact()
        assert (gallery.stats().segments, gallery.stats().refused) == (1, 1)
    with opened(tmp_path) as gallery:
        assert answers(gallery) == before
        assert (gallery.stats().segments, gallery.stats().refused) == (1, 0)
    assert len(caplog.records) == 1


def test_check_names_file_and_difference(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    segments.check(path, [3, digest])
    for expected, what in (([4, digest], "size"), ([3, "0" * 64], "checksum")):
        with pytest.raises(ArtifactError, match=f"{path} has another {what}"):
            segments.check(path, expected)


def test_what_a_killed_compaction_left_is_swept_away(tmp_path):
    filled(tmp_path).close()
    for name in (".00000009-0", "00000009-0"):
        (tmp_path / FOLDER / name).mkdir()
        (tmp_path / FOLDER / name / "vectors.npy").write_bytes(b"half")
    with opened(tmp_path) as gallery:
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == list(gallery.catalog.segments)


def test_the_folder_of_segments_may_be_deleted(tmp_path):
    gallery = filled(tmp_path)
    before = content(gallery), answers(gallery)
    gallery.close()
    shutil.rmtree(tmp_path / FOLDER)
    with opened(tmp_path) as again:
        assert (content(again), answers(again)) == before


# --- compaction -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", indexes.KINDS)
def test_every_kind_of_index_gives_exact_scores_and_true_neighbours(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(indexes, "SMALL", 500)
    vectors, queries, space = draw(3000, 8), draw(50, 8, seed=1), Space("s", 8)
    with opened(tmp_path, index=kind) as gallery:
        gallery.add(ids(0, 3000), vectors, space, [{"n": i % 3} for i in range(3000)])
        gallery.compact()
        gallery.remove(ids(0, 3000)[::10])
        (facts,) = gallery.catalog.segments.values()
        hits, exact = (gallery.search(queries, space, 10, exact=exact) for exact in (False, True))
        filtered = gallery.search(queries, space, 10, {"n": 1})
    assert facts["kind"] == kind
    shares = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(hits, exact, strict=True)]
    assert np.mean(shares) >= (1 if kind == "flat" else 0.95)
    for query, row in zip(queries.astype(np.float64), hits, strict=True):
        for hit in row:
            x = vectors[int(hit.id[1:])].astype(np.float64)
            assert hit.score == pytest.approx(query @ x / np.linalg.norm(query) / np.linalg.norm(x), abs=1e-6)
    assert {hit.payload["n"] for row in filtered for hit in row} == {1}
    assert not [hit for row in (*hits, *filtered) for hit in row if int(hit.id[1:]) % 10 == 0]


@pytest.mark.parametrize("width", [8, 200, 256, 251])
@pytest.mark.slow
def test_recall_is_measured_when_an_index_is_built(width):
    """Against numpy, on other queries than those that chose the effort; 251 is prime, and has no groups."""
    mixed = draw(6000, 6) @ draw(6, width, seed=1) + 0.3 * draw(6000, width, seed=2)
    vectors = mixed / np.linalg.norm(mixed, axis=1)[:, None]
    quick = indexes.Quick.built("ivf", vectors[:5000])
    scores = vectors[5000:5200] @ vectors[:5000].T
    truth = np.argsort(-scores, axis=1)[:, :10]
    found = quick.search(vectors[5000:5200], 10)
    recall = np.mean([len(set(a) & set(b)) for a, b in zip(truth, found, strict=True)]) / 10
    assert quick.recall >= 0.97
    assert abs(recall - quick.recall) < 0.03
    refines = type(quick.index).__name__ == "IndexRefine"
    assert refines == (width in (200, 256))


def test_auto_is_flat_until_a_segment_is_large(monkeypatch):
    assert indexes.kind_for("auto", 49_999) == "flat"
    assert indexes.kind_for("auto", 50_000) == "ivf"
    assert indexes.kind_for("hnsw", 999) == "flat"
    assert indexes.kind_for("hnsw", 1000) == "hnsw"


def test_an_index_that_finds_too_few_is_backed_by_a_full_comparison(tmp_path, monkeypatch):
    """Hits wanted beyond what the searched lists hold, with a filter that leaves rows elsewhere."""
    monkeypatch.setattr(indexes, "EFFORTS", (1,))
    monkeypatch.setattr(indexes, "TARGET", 0.0)
    vectors = np.concatenate([draw(6000, 4) * 0.05 + np.eye(4)[0], draw(6000, 4) * 0.05 - np.eye(4)[0]])
    with opened(tmp_path, index="ivf") as gallery:
        gallery.add(ids(0, 12000), vectors.astype(np.float32), N, [{"side": i // 6000} for i in range(12000)])
        gallery.compact()
        query = np.eye(4, dtype=np.float32)[:1]
        assert {h.payload["side"] for h in gallery.search(query, N, 500)[0]} == {0}
        (far,) = gallery.search(query, N, 500, {"side": 1})
        assert len(far) == 500
        assert [h.id for h in far] == [h.id for h in gallery.search(query, N, 500, {"side": 1}, exact=True)[0]]


def test_compaction_runs_by_itself_and_few_parts_stay(tmp_path):
    with opened(tmp_path, background=True) as gallery:
        for turn in range(60):
            gallery.add(ids(100 * turn, 100 * turn + 100), draw(100, 10, seed=turn), A)
        waited(lambda: not gallery._compactor._thread.is_alive())
        gallery.add(["last"], draw(1, 10), A)
        waited(lambda: not gallery._compactor._thread.is_alive())
        assert 1 <= gallery.stats().segments <= 6
        assert sum(len(part) for part in gallery.memory.tail(sealed=True)) < 4 * 64
        assert gallery.stats().rows == 6001


@pytest.mark.slow
def test_the_number_of_segments_grows_with_the_logarithm(tmp_path):
    with opened(tmp_path, seal=4) as gallery:
        most = 0
        for turn in range(200):
            gallery.add(ids(16 * turn, 16 * turn + 16), draw(16, 10, seed=turn), A)
            while gallery._compactor.run(full=False):
                pass
            most = max(most, gallery.stats().segments)
        assert most <= 1 + np.log(200) / np.log(3)


def test_dead_rows_are_purged_and_their_memory_with_them(tmp_path):
    with opened(tmp_path) as gallery:
        gallery.add(ids(0, 1000), draw(1000, 10), A)
        gallery.compact()
        gallery.remove(ids(0, 299))
        assert not gallery._compactor.run(full=False)  # not 30 % yet
        gallery.remove(ids(299, 400))
        assert gallery._compactor.run(full=False)
        assert (gallery.stats().bytes, len(gallery.memory.segments[0])) == (600 * 40, 600)
        gallery.remove(ids(0, 1000))
        gallery.compact()
        assert (gallery.stats().bytes, gallery.stats().segments, gallery.compact()) == (0, 0, False)


def test_the_list_of_what_died_is_forgotten_and_numbers_go_on_rising(tmp_path):
    with opened(tmp_path) as gallery:
        for turn in range(4):
            gallery.add(ids(0, 100), draw(100, 10, seed=turn), A)
            gallery.compact()
        gallery.remove(ids(0, 100))
        sequence = gallery.commit()
        for turn in range(3):
            gallery.add([f"x{turn}"], draw(1, 10), A)
            assert gallery.compact()
        gallery.remove(["x1", "x0"])
        assert gallery.commit() == sequence + 5
    base = sqlite3.connect(tmp_path / FILE)
    assert base.execute("SELECT count(*) FROM dead").fetchone()[0] == 3  # and the newest of the forgotten
    base.close()
    with opened(tmp_path) as gallery:
        assert gallery.add(["y"], draw(1, 10), A) == sequence + 6


@pytest.mark.parametrize(
    ("index", "expected"),
    [("flat", [(3, 50), (4, 50), (7, 50), (8, 50), (15, 50), (16, 50)]), ("ivf", [(3, 50), (7, 100), (16, 150)])],
)
def test_spaces_of_similar_width_share_a_segment(tmp_path, index, expected, monkeypatch):
    """Up to twice the width in lists, where time goes by parts; one width where it goes by width."""
    monkeypatch.setattr(indexes, "SMALL", 50)
    widths = [16, 15, 8, 7, 4, 3]
    with opened(tmp_path, index=index) as gallery:
        for at, width in enumerate(widths):
            gallery.add(ids(50 * at, 50 * at + 50), draw(50, width, seed=at), Space(f"s{width}", width))
        gallery.compact()
        held = sorted((part.width, len(part)) for part in gallery.memory.segments)
        assert not gallery.compact()
    assert held == expected


def test_a_segment_is_as_wide_as_its_widest_living_row(tmp_path, monkeypatch):
    monkeypatch.setattr(indexes, "SMALL", 50)
    with opened(tmp_path, index="ivf") as gallery:
        gallery.add(ids(0, 100), draw(100, 10), A)
        gallery.add(ids(100, 200), draw(100, 11), Space("wider", 11))
        gallery.compact()
        assert [part.width for part in gallery.memory.segments] == [11]
        gallery.compact()
        before = gallery.search(draw(3, 10, seed=1), A, 10)
        gallery.remove(ids(100, 200))
        gallery.compact()
        assert gallery.memory.segments[0].width == 10
        assert gallery.search(draw(3, 10, seed=1), A, 10) == before


def test_what_changes_while_a_segment_is_made_is_kept(tmp_path, monkeypatch):
    """An overwrite, a removal and an addition between plan and installation; and they do not wait for it."""
    plain = segments.write

    def slow(*args):
        facts = plain(*args)
        gallery.add(["i5", "new"], draw(2, 10, seed=7), B, [{"late": 1}] * 2)
        gallery.remove(["i6"])
        return facts

    gallery = opened(tmp_path)
    gallery.add(ids(0, 300), draw(300, 10), A)
    monkeypatch.setattr(segments, "write", slow)
    gallery.compact()
    monkeypatch.undo()
    (hits,) = gallery.search(draw(1, 10), B, 999)
    assert sorted(hit.id for hit in hits) == sorted([*ids(0, 6), *ids(7, 300), "new"])
    assert {hit.id for hit in hits if hit.payload} == {"i5", "new"}
    before = content(gallery), answers(gallery)
    gallery.close()
    with opened(tmp_path) as again:
        assert (content(again), answers(again)) == before


def test_readers_and_writers_do_not_wait_for_a_compaction(tmp_path, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    plain = segments.write

    def waiting(*args):
        begun.set()
        assert go.wait(60)
        return plain(*args)

    monkeypatch.setattr(segments, "write", waiting)
    with opened(tmp_path, background=True) as gallery:
        gallery.add(ids(0, 400), draw(400, 10), A)
        assert begun.wait(60)
        gallery.add(["more"], draw(1, 10), A)
        gallery.remove(["i0"])
        assert len(gallery.search(draw(1, 10), A, 999)[0]) == 400
        assert gallery.stats().segments == 0
        go.set()
        waited(lambda: gallery.stats().segments == 1)
        assert len(gallery.search(draw(1, 10), A, 999)[0]) == 400


def test_a_compaction_that_fails_is_logged_and_the_gallery_works_on(tmp_path, monkeypatch, caplog):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments, "write", full)
    with opened(tmp_path, background=True) as gallery:
        gallery.add(ids(0, 300), draw(300, 10), A)
        waited(lambda: caplog.records)
        gallery.add(["more"], draw(1, 10), A)
        assert len(gallery.search(draw(1, 10), A, 999)[0]) == 301
        assert len(caplog.records) == 1  # not once for every row
        monkeypatch.undo()
        gallery.add(ids(300, 600), draw(300, 10), A)
        waited(lambda: gallery.stats().segments)


def test_the_columns_that_were_asked_for_are_ready_in_the_next_segment(tmp_path):
    with opened(tmp_path) as gallery:
        gallery.add(ids(0, 300), draw(300, 10), A, [{"n": i % 7} for i in range(300)])
        gallery.compact()
        gallery.search(draw(1, 10), A, 5, {"n": 1})
        gallery.add(["x"], draw(1, 10), A, [{"n": 1}])
        gallery.compact()
        assert set(gallery.memory.segments[0].columns) == {"n"}


def test_closing_stops_what_is_under_way(tmp_path):
    before = threading.active_count()
    for turn in range(5):
        gallery = opened(tmp_path, background=True)
        gallery.add(ids(0, 400), draw(400, 10, seed=turn), A)
        gallery.close()
        assert threading.active_count() == before
        gallery.close()
    with opened(tmp_path) as again:
        assert again.stats().rows == 400


def test_only_the_writer_compacts(tmp_path):
    filled(tmp_path).close()
    with opened(tmp_path, readonly=True) as reader, pytest.raises(ConfigError, match="readonly"):
        reader.compact()
    with pytest.raises(UnknownName, match="'hnsw'"):
        opened(tmp_path, index="hsnw")


# --- followers --------------------------------------------------------------------------------------------------------


def test_a_follower_maps_the_writers_segments(tmp_path):
    gallery = opened(tmp_path)
    gallery.add(["first"], draw(1, 10), A)
    with opened(tmp_path, readonly=True) as reader:
        gallery.add(ids(0, 300), draw(300, 10), A)
        reader.refresh()
        assert reader.stats().segments == 0
        gallery.compact()
        reader.refresh()
        assert [part.name for part in reader.memory.segments] == list(gallery.catalog.segments)
        assert reader.memory.tail() == []
        assert answers(reader) == answers(gallery)
    gallery.close()


def test_a_follower_goes_on_with_what_it_has_when_a_new_segment_is_damaged(tmp_path, caplog):
    gallery = filled(tmp_path)
    with opened(tmp_path, readonly=True) as reader:
        gallery.add(["y"], draw(1, 10), B)
        gallery.compact()
        (name,) = gallery.catalog.segments
        cut(tmp_path / FOLDER / name)
        for _ in range(3):
            reader.refresh()
        assert reader.stats().rows == gallery.stats().rows
        assert reader.stats().refused == 1
        assert {hit.id for hit in reader.search(draw(1, 10), B, 999)[0]} == set(content(gallery))
    gallery.close()
    assert len(caplog.records) == 1


def test_a_segment_that_is_replaced_while_a_follower_opens_it_is_not_damaged(tmp_path, monkeypatch, caplog):
    gallery, plain = filled(tmp_path), segments.read

    def late(folder, *args, **options):
        monkeypatch.undo()
        for turn in range(2):
            gallery.add([f"late{turn}"], draw(1, 10), B)
            gallery.compact()
        assert not folder.exists()
        return plain(folder, *args, **options)

    monkeypatch.setattr(segments, "read", late)
    with opened(tmp_path, readonly=True) as reader:
        assert (reader.stats().rows, reader.stats().segments, reader.stats().refused) == (310, 0, 0)
        reader.refresh()
        assert (reader.stats().rows, reader.stats().segments, reader.stats().refused) == (312, 1, 0)
        assert answers(reader) == answers(gallery)
    gallery.close()
    assert not caplog.records


def test_a_view_outlives_the_files_of_its_segments(tmp_path):
    gallery = filled(tmp_path)
    view = gallery.view()
    before = view.search(draw(3, 16, seed=1), WIDE, 99)
    for turn in range(3):
        gallery.add(ids(0, 300), draw(300, 10, seed=turn), A)
        gallery.compact()
    gallery.close()
    shutil.rmtree(tmp_path / FOLDER)
    assert view.search(draw(3, 16, seed=1), WIDE, 99) == before


# --- where it lies ----------------------------------------------------------------------------------------------------

READER = """
import os, sys
import numpy as np
from lifelong.errors import LifelongError
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.types import Space
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
assert not os.access(sys.argv[1], os.W_OK)
try:
    with EmbeddedGallery(sys.argv[1], readonly=True) as gallery:
        hits = gallery.search(np.ones((1, 10), np.float32), Space("b", 10, frozenset({"a"}), family="f"), 9999)
        print(len(hits[0]), len(gallery.rows(limit=9999)), gallery.refresh(), gallery.stats().segments)
except LifelongError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def unwritable():
    """A folder that anybody may read, and nobody but root may write."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder / "g"
    finally:
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(folder)


def asked(folder: Path) -> str:
    for path in (folder.parent, folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    line = [sys.executable, "-c", READER, str(folder)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_read(unwritable):
    """As on a volume that is mounted read-only; its writer closed it before."""
    gallery = filled(unwritable)
    expected = f"310 310 {gallery.commit()} 1"
    gallery.close()
    assert asked(unwritable) == expected


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_read_beside_its_writer(unwritable):
    gallery = filled(unwritable)
    assert asked(unwritable) == f"310 310 {gallery.commit()} 1"
    gallery.close()


@pytest.mark.slow
def test_changes_that_cannot_be_read_are_not_left_out_in_silence(unwritable):
    """A copy with a write-ahead log but without its index: reading the file alone would lose what was acknowledged."""
    with filled(unwritable) as gallery:
        copy = unwritable.with_name("copy")
        shutil.copytree(unwritable, copy)
        (copy / f"{FILE}-shm").unlink()
        gallery.commit()
    said = asked(copy)
    assert said.startswith("Unavailable")
    assert f"{FILE}-wal" in said


def test_a_gallery_of_the_first_layout_is_brought_up_to_date(tmp_path):
    """Written by hand as the first release wrote it: removals were rows without a vector."""
    base = sqlite3.connect(tmp_path / FILE)
    base.executescript(f"{layout.FIRST} PRAGMA application_id = {layout.APPLICATION}; PRAGMA user_version = 1;")
    vectors = draw(3, 10)
    base.execute("INSERT INTO spaces VALUES ('a', 10, 'f')")
    rows = [(i + 1, f"i{i}", "a", 10, vectors[i].tobytes(), "{}") for i in range(3)]
    base.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)", [*rows, (9, "gone", None, None, None, None)])
    base.commit()
    base.close()
    with pytest.raises(ArtifactError, match="open it once for writing"):
        opened(tmp_path, readonly=True)
    for _ in range(2):
        with opened(tmp_path) as gallery:
            assert [row.id for row in gallery.rows()] == ids(0, 3)
            assert len(gallery.search(vectors, A)[0]) == 3
            assert gallery.commit() == 9
    assert compaction.log.name == "lifelong.gallery"


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_rows_that_only_rounding_tells_apart_come_oldest_first(tmp_path, kind):
    """The same numbers in other orders: float32 sums differ in the last digit, exact scores do not."""
    random = np.random.default_rng(0)
    numbers = random.normal(size=16).astype(np.float32)
    vectors = np.stack([random.permutation(numbers) for _ in range(3000)])
    query = np.full((2, 16), np.sign(numbers.sum()), np.float32)
    assert len(np.unique(vectors @ query[0])) > 1
    with EmbeddedGallery(tmp_path, index=kind, background=False) as gallery:
        gallery.add(range(3000), vectors, Space("ties", 16))
        gallery.compact()
        assert len(gallery.view().parts) == 1
        for wanted in (1, 10, 700):
            hits = gallery.search(query, Space("ties", 16), wanted, exact=True)
            assert [[hit.id for hit in row] for row in hits] == [[str(i) for i in range(wanted)]] * 2
