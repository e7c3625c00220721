"""Opportunistic upgrade: each row once, at a rate, whatever happens meanwhile, over any backend."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.errors import ConfigError, DataError, NotFound
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.opening import opened, remote
from lifelong.gallery.pgvector import PgVectorGallery
from lifelong.gallery.transient import MemoryGallery
from lifelong.gallery.upgrade import Progress, upgrade
from lifelong.types import Space

OLD, NEW = Space("old", 4), Space("new", 6, frozenset({"old"}))


def original(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(size=6).astype(np.float32)


def filled(gallery, rows: int = 50):
    gallery.add(range(rows), np.stack([original(i)[:4] for i in range(rows)]), OLD, [{"n": i} for i in range(rows)])
    return gallery


class Encoder:
    """Has the originals of even ids, and counts how often each was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, rows):
        self.asked += [row.id for row in rows if int(row.id) % 2 == 0]
        return {row.id: original(int(row.id)) for row in rows if int(row.id) % 2 == 0}


def test_rows_with_originals_are_renewed_once_and_others_stay():
    gallery, encoder, seen = filled(MemoryGallery()), Encoder(), []
    done = upgrade(gallery, NEW, encoder, rate=math.inf, batch=8, told=seen.append)
    assert done == Progress(rows=50, looked=50, renewed=25, ready=0, absent=25) == seen[-1]
    assert upgrade(gallery, NEW, encoder, rate=math.inf) == Progress(rows=50, looked=50, renewed=0, ready=25, absent=25)
    assert sorted(map(int, encoder.asked)) == list(range(0, 50, 2))
    for row in gallery.rows(limit=99):
        n = int(row.id)
        assert row.payload == {"n": n}
        assert row.space == ("old" if n % 2 else "new")
        assert row.vector.tobytes() == original(n)[: len(row.vector)].tobytes()


def test_what_changes_while_it_is_embedded_is_left_alone():
    """A row is removed, one overwritten, one added, all between reading and writing."""
    gallery = filled(MemoryGallery(), 10)
    late = np.ones((1, 4), np.float32)

    def embed(rows):
        if rows[0].id == "0":
            gallery.remove(["2"])
            gallery.add(["4", "99"], np.repeat(late, 2, 0), OLD, [{"n": "late"}] * 2)
        return {row.id: original(int(row.id)) for row in rows}

    done = upgrade(gallery, NEW, embed, rate=math.inf, batch=8)
    assert (done.renewed, done.changed) == (8, 2)
    assert gallery.get(["2"]) == [None]
    assert [(row.space, row.payload) for row in gallery.get(["4", "99"])] == [("old", {"n": "late"})] * 2


def test_it_can_be_stopped_between_batches_and_goes_on():
    gallery, encoder, stop = filled(MemoryGallery(), 40), Encoder(), threading.Event()
    first = upgrade(gallery, NEW, encoder, rate=math.inf, batch=4, stop=stop, told=lambda done: stop.set())
    assert first.renewed == 2
    assert upgrade(gallery, NEW, encoder, rate=math.inf).renewed == 18
    assert len(encoder.asked) == 20


def test_the_rate_is_kept(monkeypatch):
    """Of embedded rows per second: after n of them the next batch waits until n / rate."""
    waited: list[float] = []

    class Stop:
        def wait(self, seconds: float) -> bool:
            waited.append(seconds)
            return False

    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    upgrade(filled(MemoryGallery(), 40), NEW, Encoder(), rate=10, batch=10, stop=Stop())
    assert waited == [0, 0.5, 1.0, 1.5]  # five of ten have originals


@pytest.mark.parametrize("change", [{"rate": 0}, {"rate": math.nan}, {"batch": 0}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ConfigError, match="got"):
        upgrade(MemoryGallery(), NEW, Encoder(), **change)


def test_a_location_is_a_folder_or_connection_strings(tmp_path):
    assert remote("postgres://a/b postgresql://c/d") == ["postgres://a/b", "postgresql://c/d"]
    assert remote(str(tmp_path)) == remote(tmp_path) == []
    for mixed in ("postgresql://a/b elsewhere", ["postgresql://a/b", "elsewhere"]):
        with pytest.raises(ConfigError, match="1 of 2"):
            remote(mixed)
    with opened(str(tmp_path / "g")) as gallery:
        assert isinstance(gallery, EmbeddedGallery)


def test_originals_are_files_by_id(tmp_path):
    """No id leads out of the folder; a file of another shape is an error, not another row."""
    from torch import nn

    from lifelong.commands.gallery import _original, embedder

    (tmp_path / "in").mkdir()
    np.save(tmp_path / "out.npy", original(0))
    np.save(tmp_path / "in" / "1.npy", original(1))
    np.save(tmp_path / "in" / "2.npy", original(2)[:3])
    assert _original(tmp_path / "in", "../out", (6,)) is None
    assert _original(tmp_path / "in", "3", (6,)) is None
    assert _original(tmp_path / "in", "1", (6,)).tobytes() == original(1).tobytes()
    with pytest.raises(DataError, match=r"2\.npy"):
        _original(tmp_path / "in", "2", (6,))
    gallery = filled(MemoryGallery(), 1)
    assert embedder(nn.Identity(), tmp_path / "in", (6,))(gallery.rows()) == {}


def test_the_command_embeds_with_the_live_version(registry, kit, tmp_path, capsys):
    """Rows with a file get what the model says of it, in its space; the others stay."""
    from lifelong.commands.gallery import upgrade as command

    registry.publish(kit.numbered(1))
    (tmp_path / "in").mkdir()
    x = np.random.default_rng(0).random((3, 4)).astype(np.float32)
    with EmbeddedGallery(tmp_path / "g") as gallery:
        gallery.add(["a", "b", "c"], x, OLD, [{"n": i} for i in range(3)])
    for name, sample in zip("ab", x, strict=False):
        np.save(tmp_path / "in" / f"{name}.npy", sample)
    paths = {"location": str(tmp_path / "g"), "registry": registry.root, "originals": tmp_path / "in"}
    with pytest.raises(NotFound, match="there is no gallery in"):
        command(**{**paths, "location": str(tmp_path / "none")}, version=None, rate=1e9, batch=2, as_json=True)
    assert not (tmp_path / "none").exists()
    command(**paths, version=None, rate=1e9, batch=2, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["version"], said["renewed"], said["absent"]) == (1, 2, 1)
    live = kit.numbered(1)
    expected = live.build().eval()(torch.from_numpy(x[:2])).features.detach().numpy()
    with EmbeddedGallery(tmp_path / "g") as gallery:
        rows = gallery.get(["a", "b", "c"])
    assert [(row.space, row.payload["n"]) for row in rows] == [(live.space.id, 0), (live.space.id, 1), ("old", 2)]
    np.testing.assert_allclose(np.stack([row.vector for row in rows[:2]]), expected, atol=1e-6)


# --- processes --------------------------------------------------------------------------------------------------------


def child(location: str, schema: str, log: str) -> None:
    """Upgrade slowly, noting each id that is embedded, and each batch once it is durable."""
    gallery = PgVectorGallery(location, schema=schema) if schema else EmbeddedGallery(location, seal=32)

    def embed(rows):
        with Path(log).open("a") as file:
            print(json.dumps([row.id for row in rows]), file=file)
        time.sleep(0.01)
        return {row.id: original(int(row.id)) for row in rows}

    def told(done: Progress) -> None:
        with Path(log).open("a") as file:
            print(json.dumps(done.renewed), file=file)

    upgrade(gallery, NEW, embed, rate=math.inf, batch=4, told=told)
    gallery.close()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faiss", "pgvector"])
def test_after_a_kill_it_goes_on_and_each_row_is_upgraded_once(kind, tmp_path, request):
    """Only the batch that was being written when it was killed may be embedded again; removed rows stay away."""
    location, schema = str(tmp_path / "g"), ""
    if kind == "pgvector":
        location, schema = request.getfixturevalue("postgres").dsn(), f"u{uuid.uuid4().hex}"

    def gallery():
        return PgVectorGallery(location, schema=schema) if schema else EmbeddedGallery(location, seal=32)

    with gallery() as one:
        filled(one, 300)
    log, killed = tmp_path / "log", 0
    log.touch()
    line = [sys.executable, __file__, location, schema, str(log)]
    for turn in range(2):
        said = len(log.read_text().splitlines())
        with subprocess.Popen(line) as process:
            while process.poll() is None and (turn or len(log.read_text().splitlines()) < said + 15):
                time.sleep(0.005)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
        with gallery() as one:
            one.remove([str(280 + turn)])  # not yet reached at the kill
    assert (process.returncode, killed) == (0, 1)
    embedded = [name for line in log.read_text().splitlines() if line[0] == "[" for name in json.loads(line)]
    twice = len(embedded) - len(set(embedded))
    assert twice <= 4 * killed
    assert "280" not in embedded
    with gallery() as one:
        rows = {row.id: row for row in one.rows(limit=999)}
        assert one.stats().by_space == {"new": 298}
    assert set(rows) == {str(i) for i in range(300)} - {"280", "281"}
    assert all(row.vector.tobytes() == original(int(name)).tobytes() for name, row in rows.items())


if __name__ == "__main__":
    child(*sys.argv[1:])
