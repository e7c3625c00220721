"""kill -9 at any moment: what a gallery acknowledged is there, what it removed stays away, and no add is halved.

Ten kills; a hundred in a soak (`make soak`).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.types import Space

NARROW = Space("narrow", 8)
WIDE = Space("wide", 12, frozenset({"narrow"}))
IDS = 60
Content = dict[str, tuple[str, bytes, dict]]


def operation(number: int) -> tuple[str, list[str], Space]:
    """What the child does at step `number`; the parent knows it too."""
    draw = random.Random(number)
    kind = draw.choice(["add", "add", "add", "remove"])
    ids = draw.sample(range(IDS), draw.choice([1, 3, 20]))
    return kind, [f"id-{i}" for i in ids], draw.choice([NARROW, WIDE])


def written(number: int, ids: list[str], space: Space) -> tuple[np.ndarray, list[dict]]:
    vectors = np.random.default_rng(number).normal(size=(len(ids), space.dim)).astype(np.float32)
    return vectors, [{"step": number, "at": i} for i in range(len(ids))]


def child(folder: str, number: int) -> None:
    """Work for ever; a line `begin` before each step and `done` once it is acknowledged."""
    print("opening", flush=True)
    gallery = EmbeddedGallery(folder, seal=32)
    print("open", flush=True)
    while True:
        kind, ids, space = operation(number)
        print(f"begin {number}", flush=True)
        if kind == "add":
            vectors, payload = written(number, ids, space)
            gallery.add(ids, vectors, space, payload)
        else:
            gallery.remove(ids)
        print(f"done {number}", flush=True)
        number += 1


def applied(content: Content, number: int) -> Content:
    """Return `content` after step `number`."""
    kind, ids, space = operation(number)
    after = dict(content)
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
        with EmbeddedGallery(folder) as gallery:
            actual = content_of(gallery)
            allowed = [content, *(applied(content, step) for step in pending)]
            assert actual in allowed, f"after step {number}"
            searched_is(gallery, actual)
        content = actual
    return number


def searched_is(gallery: EmbeddedGallery, content: Content) -> None:
    """What search finds is what is stored, each row at its own vector and once."""
    (hits,) = gallery.search(np.ones((1, WIDE.dim), np.float32), WIDE, 10 * IDS)
    assert sorted(hit.id for hit in hits) == sorted(content)
    for hit in hits:
        space, blob, payload = content[hit.id]
        vector = np.frombuffer(blob, np.float32).astype(np.float64)
        assert (hit.space, hit.payload) == (space, payload)
        assert abs(hit.score - vector.sum() / np.linalg.norm(vector) / WIDE.dim**0.5) < 1e-6


@pytest.mark.e2e
@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_removed_returns(tmp_path):
    kills = 100 if os.environ.get("LIFELONG_SOAK") else 10

    assert soak(tmp_path / "g", kills) > 5 * kills


if __name__ == "__main__":
    child(sys.argv[2], int(sys.argv[3]))
