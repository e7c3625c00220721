"""kill -9 at any moment: what a gallery acknowledged is there, what it removed stays away, and no add is halved.

The child adds, overwrites, removes and compacts; its thread makes segments besides. Ten kills, a hundred in a soak
(`make soak`). And several processes that read while one writes: 5 seconds, a minute in a soak.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lifelong.gallery import indexes
from lifelong.gallery.embedded import FILE, FOLDER, EmbeddedGallery
from lifelong.types import Space

NARROW = Space("narrow", 8)
WIDE = Space("wide", 12, frozenset({"narrow"}))
IDS = 60
Content = dict[str, tuple[str, bytes, dict]]


def operation(number: int) -> tuple[str, list[str], Space]:
    """What the child does at step `number`; the parent knows it too."""
    draw = random.Random(number)
    kind = draw.choice(["add", "add", "add", "add", "add", "add", "remove", "remove", "compact"])
    ids = draw.sample(range(IDS), draw.choice([1, 3, 20]))
    return kind, [f"id-{i}" for i in ids], draw.choice([NARROW, WIDE])


def written(number: int, ids: list[str], space: Space) -> tuple[np.ndarray, list[dict]]:
    vectors = np.random.default_rng(number).normal(size=(len(ids), space.dim)).astype(np.float32)
    return vectors, [{"step": number, "at": i} for i in range(len(ids))]


def child(folder: str, number: int) -> None:
    """Work for ever; a line `begin` before each step and `done` once it is acknowledged."""
    print("opening", flush=True)
    indexes.SMALL = 64  # so that small segments get an index, too
    gallery = EmbeddedGallery(folder, seal=8, index="ivf")
    print("open", flush=True)
    while True:
        kind, ids, space = operation(number)
        print(f"begin {number}", flush=True)
        if kind == "add":
            vectors, payload = written(number, ids, space)
            gallery.add(ids, vectors, space, payload)
        elif kind == "remove":
            gallery.remove(ids)
        else:
            gallery.compact()
        print(f"done {number}", flush=True)
        number += 1


def applied(content: Content, number: int) -> Content:
    """Return `content` after step `number`."""
    kind, ids, space = operation(number)
    after = dict(content)
    if kind == "compact":
        return after
    if kind == "remove":
        for name in ids:
            after.pop(name, None)
        return after
    vectors, payload = written(number, ids, space)
    for i, name in enumerate(ids):
        after[name] = (space.id, vectors[i].tobytes(), payload[i])
    return after


def killed(folder: Path, number: int, draw: random.Random) -> list[str]:
    """Run a child from step `number` on, kill it at a random point and return what it said."""
    command = [sys.executable, __file__, "child", str(folder), str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(draw.choice([1, 2, 5, 30, 150]))]
        time.sleep(draw.random() * draw.choice([0, 0.001, 0.02]))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
    assert process.returncode == -signal.SIGKILL, lines[-3:]
    return lines


def content_of(gallery: EmbeddedGallery) -> Content:
    return {row.id: (row.space, row.vector.tobytes(), row.payload) for row in gallery.rows(limit=10 * IDS)}


def soak(folder: Path, kills: int, seed: int = 0) -> int:
    """Kill a writing child `kills` times; return how many steps it had acknowledged."""
    draw, content, number = random.Random(seed), Content(), 0
    for _ in range(kills):
        lines = killed(folder, number, draw)
        begun = [int(line.split()[1]) for line in lines if line.startswith("begin")]
        done = [int(line.split()[1]) for line in lines if line.startswith("done")]
        for step in done:
            content = applied(content, step)
        pending = begun[len(done) :]  # at most one; it is wholly there or not at all
        number += len(begun)
        sound(folder)
        with EmbeddedGallery(folder, seal=8) as gallery:
            actual = content_of(gallery)
            assert gallery.stats().refused == 0
            allowed = [content, *(applied(content, step) for step in pending)]
            assert actual in allowed, f"after step {number}"
            searched_is(gallery, actual)
        content = actual
    return number


def sound(folder: Path) -> None:
    """Every file of every segment on the list is what the list says, read without the gallery's own code."""
    if not (path := folder / FILE).exists() or not path.stat().st_size:
        return
    with closing(sqlite3.connect(path)) as base:
        if base.execute("SELECT count(*) FROM sqlite_master WHERE name = 'segments'").fetchone() == (0,):
            return
        for name, facts in base.execute("SELECT name, facts FROM segments").fetchall():
            for file, (size, digest) in json.loads(facts)["files"].items():
                data = (folder / FOLDER / name / file).read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (size, digest)


def searched_is(gallery: EmbeddedGallery, content: Content) -> None:
    """What search finds is what is stored, each row at its own vector and once."""
    (hits,) = gallery.search(np.ones((1, WIDE.dim), np.float32), WIDE, 10 * IDS)
    (few,) = gallery.search(np.ones((1, WIDE.dim), np.float32), WIDE, 3)
    assert {hit.id for hit in few} <= set(content)
    assert sorted(hit.id for hit in hits) == sorted(content)
    for hit in hits:
        space, blob, payload = content[hit.id]
        vector = np.frombuffer(blob, np.float32).astype(np.float64)
        assert (hit.space, hit.payload) == (space, payload)
        assert abs(hit.score - vector.sum() / np.linalg.norm(vector) / len(vector) ** 0.5) < 1e-6  # of its width


@pytest.mark.e2e
@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_removed_returns(tmp_path):
    kills = 100 if os.environ.get("LIFELONG_SOAK") else 6

    assert soak(tmp_path / "g", kills) > 5 * kills


def writer(folder: str, seconds: float) -> None:
    """Overwrite, remove and add rows whose vectors say which they are, until the time is over."""
    draw, until, age = random.Random(1), time.monotonic() + seconds, 0
    with EmbeddedGallery(folder, seal=64, index="ivf") as gallery:
        while time.monotonic() < until:
            group, age = draw.randrange(200), age + 1
            names = [f"{group}-{i}" for i in range(10)]
            if draw.random() < 0.1:
                gallery.remove(names)
            else:
                gallery.add(names, beacons([group] * 10), NARROW, [{"group": group, "age": age}] * 10)
        print(gallery.stats().segments, age)


def reader(folder: str, seconds: float) -> None:
    """Follow in four threads; say how many answers were seen, or fail at the first wrong one."""
    until = time.monotonic() + seconds
    with EmbeddedGallery(folder, readonly=True, seal=64) as gallery, ThreadPoolExecutor(4) as pool:
        seen = sum(pool.map(lambda seed: looked(gallery, until, seed), range(4)))
        assert gallery.stats().refused == 0
    print(seen)


def looked(gallery: EmbeddedGallery, until: float, seed: int) -> int:
    draw, seen, newest = random.Random(seed), 0, 0
    while time.monotonic() < until:
        group = draw.randrange(200)
        sequence = gallery.refresh()
        assert sequence >= newest
        newest = sequence
        (hits,) = gallery.search(beacons([group]), NARROW, 10, {"group": group} if seen % 2 else None)
        own = [hit for hit in hits if hit.payload["group"] == group]
        assert len(own) in (0, 10)
        assert len({hit.id for hit in hits}) == len(hits)
        assert all(hit.id.startswith(f"{group}-") and abs(hit.score - 1) < 1e-6 for hit in own)
        assert len({hit.payload["age"] for hit in own}) <= 1
        seen += 1
    return seen


def beacons(groups: list[int]) -> np.ndarray:
    return np.stack([np.random.default_rng(group).normal(size=NARROW.dim) for group in groups]).astype(np.float32)


@pytest.mark.e2e
@pytest.mark.slow
def test_readers_in_other_processes_find_no_wrong_row_while_one_writes(tmp_path):
    """Two processes of four readers each, one writer; segments come and go."""
    seconds = "60" if os.environ.get("LIFELONG_SOAK") else "5"
    folder = str(tmp_path / "g")
    with EmbeddedGallery(folder, seal=64) as gallery:
        gallery.add(range(2000), np.ones((2000, NARROW.dim), np.float32), NARROW, [{"group": -1}] * 2000)
    roles = ["writer", "reader", "reader"]
    lines = [[sys.executable, __file__, role, folder, seconds] for role in roles]
    started = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for line in lines]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], said
    assert [err for _, err in said] == ["", "", ""]
    assert all(int(out.split()[-1]) > 20 for out, _ in said), said


if __name__ == "__main__":
    roles = {"child": child, "writer": writer, "reader": reader}
    roles[sys.argv[1]](sys.argv[2], float(sys.argv[3]) if sys.argv[1] != "child" else int(sys.argv[3]))
