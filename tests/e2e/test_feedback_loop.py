"""From a prediction to a better version: labels come late, twice, wrong at first, in any order, over a kill -9."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3

import numpy as np
import pytest
from click.testing import CliRunner
from servers import wait

from lifelong.cli import cli
from lifelong.client import Client
from lifelong.errors import Unavailable
from lifelong.sources.log import Log
from lifelong.sources.record import decode, encode

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3000)]
COUNT = 10_000 if os.environ.get("LIFELONG_SOAK") else 1_000
CLASSES, WIDTH, BATCH, START = 4, 6, 200, COUNT // 4


def blobs(count: int, classes: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Points around the axes, and the names of their axes."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, classes, count)
    x = 2 * np.eye(WIDTH)[y] + draw.normal(0, 0.4, (count, WIDTH))
    return x.astype(np.float32), [f"axis-{label}" for label in y]


def train(folder) -> None:
    """The trainer's command, until the stream has no more."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    line = ["train", "--source", str(folder / "state" / "stream"), "--follow", "until=end", "--follow"]
    line += [f"publish_samples={START}", "--strategy", "replay", "--allow-major", "--run", str(folder / "run")]
    done = CliRunner().invoke(cli, [*line, "--registry", str(folder / "registry")], catch_exceptions=False)
    for number, handler in before:
        signal.signal(number, handler)
    assert done.exit_code == 0, done.output


def told(client: Client, labels: list[dict], counts: dict[str, int]) -> None:
    """Send labels and count what became of them."""
    answer = client._post("/v1/feedback", {"labels": labels})  # one prediction may be in it twice
    assert answer["unknown"] == []
    for outcome in counts:
        counts[outcome] += answer[outcome]


def right(client: Client, seed: int = 99) -> float:
    """The share of fresh samples that the live version names rightly."""
    x, y = blobs(BATCH, CLASSES, seed)
    said = client.predict(x)["predictions"]
    return sum(p["label"] == label for p, label in zip(said, y, strict=True)) / len(y)


def test_what_people_say_makes_the_next_version_better(server):
    """Every label is in the stream once, the last word last; nothing is lost; the next version is live and better."""
    stream, draw = server.folder / "state" / "stream", random.Random(5)
    stream.parent.mkdir()
    with Log(stream, create=True) as log:  # a start: two of four classes
        log.append([(f"start-{i}", encode(x, y)) for i, (x, y) in enumerate(zip(*blobs(START, 2, 1), strict=True))])
    train(server.folder)
    x, truth = blobs(COUNT, CLASSES, 7)
    counts = dict.fromkeys(("accepted", "corrected", "duplicate", "stale"), 0)
    with server.start().up() as client:
        assert client.ready(60)
        before, names = right(client), []
        for start in range(0, COUNT, BATCH):
            names += [p["id"] for p in client.predict(x[start : start + BATCH], remember=True)["predictions"]]
        final = dict(zip(names, truth, strict=True))
        sent = [{"prediction": name, "label": label, "revision": 2} for name, label in final.items()]
        sent += [{"prediction": name, "label": "axis-0", "revision": 1} for name in names[::10]]  # wrong at first
        sent += sent[::7]
        draw.shuffle(sent)
        half = len(sent) // 2 // BATCH * BATCH
        for start in range(0, half, BATCH):
            told(client, sent[start : start + BATCH], counts)
        with contextlib.suppress(Unavailable):  # killed while it works on a request, or just before, or after
            server.kill()
            told(client, sent[half : half + BATCH], counts)
    with server.start().up() as client:
        assert client.ready(60)
        for start in range(half, len(sent), BATCH):
            told(client, sent[start : start + BATCH], counts)
        train(server.folder)
        wait(lambda: client.versions()["version"] == client.versions()["total"] > 1)
        after = right(client)

    with contextlib.closing(sqlite3.connect(stream / "log.sqlite")) as base:
        rows = base.execute('SELECT sid, payload FROM records ORDER BY "offset"').fetchall()
    labelled = [(sid, decode(payload)) for sid, payload in rows if not sid.startswith("start-")]
    assert len({sid for sid, _ in rows}) == len(rows)
    assert {sid.split(".")[0]: sample.y for sid, sample in labelled} == final
    assert counts["accepted"] == COUNT
    assert len(labelled) == counts["accepted"] + counts["corrected"]
    assert sum(counts.values()) == len(sent)
    assert after > before + 0.2, (before, after)
