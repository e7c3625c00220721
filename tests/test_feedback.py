"""Feedback: each labelled sample is in the trainer's stream once, whatever comes twice, late or corrected."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from lifelong.errors import Busy
from lifelong.sources.log import Log
from lifelong.sources.record import decode
from serving.remembered import Remembered, Verdict
from serving.stream import Stream

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running


ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def table(tmp_path, most=1000):
    return Remembered(tmp_path / "predictions.sqlite", most)


def said_of(found, verdict, append):
    """What became of one label."""
    return found.label([verdict], append)[0][0]


def rows(count, start=0):
    return np.arange(start, start + 2 * count, dtype=np.float32).reshape(count, 2)


def read(folder):
    with Log(folder) as log:
        return [(record.sid, decode(record.payload)) for record in log.poll(100_000)]


def test_a_label_puts_its_sample_into_the_stream_once(tmp_path):
    """The input bit for bit; a duplicate changes nothing; a correction is another record; an unknown id is said."""
    found, stream = table(tmp_path), Stream(tmp_path / "stream", 100)
    x = np.array([[0.1, -3e38], [1e-45, 7.0]], dtype=np.float32)
    first, second = found.add(3, ["cat", "dog"], x)
    said = [
        said_of(found, Verdict(second, "cat"), stream.append),
        said_of(found, Verdict(first, "cat"), stream.append),
        said_of(found, Verdict(second, "cat"), stream.append),
        said_of(found, Verdict(second, "dog"), stream.append),
        said_of(found, Verdict("nobody", "dog"), stream.append),
    ]
    assert said == ["accepted", "accepted", "duplicate", "corrected", "unknown"]
    records = read(tmp_path / "stream")
    assert [sample.y for _, sample in records] == ["cat", "cat", "dog"]
    assert len({sid for sid, _ in records}) == 3
    np.testing.assert_array_equal(np.stack([s.x.numpy() for _, s in records]), x[[1, 0, 1]])
    assert found.tallies() == {3: {"cat": (1, 1), "dog": (1, 1)}}  # after the correction both were right


def test_corrections_out_of_order_do_not_undo_newer_ones(tmp_path):
    """The revision decides, not the arrival."""
    found, stream = table(tmp_path), Stream(tmp_path / "stream", 100)
    (name,) = found.add(1, ["cat"], rows(1))
    said = [
        said_of(found, Verdict(name, label, revision), stream.append)
        for label, revision in [("b", 2), ("a", 1), ("c", 3), ("b", 2), ("c", 3)]
    ]
    assert said == ["accepted", "stale", "corrected", "stale", "duplicate"]
    assert found.tallies()[1]["c"] == (0, 1)
    assert sum(total for _, total in found.tallies()[1].values()) == 1


def test_the_highest_revision_wins_also_when_its_label_is_the_present_one(tmp_path):
    """In whatever order they come: the label of revision 3 counts, and the stream's last record says it."""
    told = [("a", 1), ("a", 3), ("b", 2)]
    for order, order_of_arrival in enumerate(itertools.permutations(told)):
        found, stream = table(tmp_path / str(order)), Stream(tmp_path / str(order) / "stream", 100)
        (name,) = found.add(1, ["a"], rows(1))
        for label, revision in order_of_arrival:
            found.label([Verdict(name, label, revision)], stream.append)
        assert {label: count for label, count in found.tallies()[1].items() if count[1]} == {"a": (1, 1)}
        found.close()
        stream.close()
        assert read(tmp_path / str(order) / "stream")[-1][1].y == "a", order_of_arrival


def test_memory_is_bounded_and_the_oldest_go_first(tmp_path):
    found, stream = table(tmp_path, most=50), Stream(tmp_path / "stream", 100)
    names = [name for _ in range(40) for name in found.add(1, ["cat"] * 10, rows(10))]
    assert len(found) <= 60
    assert said_of(found, Verdict(names[0], "cat"), stream.append) == "unknown"
    assert said_of(found, Verdict(names[-1], "cat"), stream.append) == "accepted"


def test_what_is_forgotten_without_a_label_is_counted(tmp_path):
    """Sixty came, two of the first ten were labelled, ten are kept."""
    lost, stream = [], Stream(tmp_path / "stream", 100)
    found = Remembered(tmp_path / "predictions.sqlite", 10, lost.append)
    for _ in range(6):
        names = found.add(1, ["cat"] * 10, rows(10))
        if not lost:
            found.label([Verdict(name, "cat") for name in names[:2]], stream.append)
    assert (len(found), sum(lost)) == (10, 50 - 2)


def test_a_label_that_was_in_the_stream_but_not_noted_is_not_there_twice(tmp_path):
    """As a kill between the two leaves it: the label that is sent again gets the same id in the stream."""
    found, stream = table(tmp_path), Stream(tmp_path / "stream", 100)
    (name,) = found.add(1, ["cat"], rows(1))

    def killed(records):
        stream.append(records)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        said_of(found, Verdict(name, "cat"), killed)
    assert said_of(found, Verdict(name, "cat"), stream.append) == "accepted"
    assert len(read(tmp_path / "stream")) == 1


def test_a_trainer_that_is_too_far_behind_stops_the_labels(tmp_path, monkeypatch):
    """What was read makes room again."""
    monkeypatch.setattr("serving.stream.LOOK_SECONDS", -1)  # every time
    found, stream = table(tmp_path), Stream(tmp_path / "stream", 3)
    for name in found.add(1, ["cat"] * 3, rows(3)):
        stream.check()
        said_of(found, Verdict(name, "cat"), stream.append)
    with pytest.raises(Busy, match="3 labels wait"):
        stream.check()
    with Log(tmp_path / "stream") as log:
        log.commit_hint({"log": 2})
    stream.check()
    assert stream.backlog() == 1


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_over_kill_9(tmp_path):
    """Three kills at random moments: every acknowledged label is in the stream, and none is there twice."""
    chance, line = random.Random(3), [sys.executable, str(Path(__file__).parent / "support" / "labeller.py")]
    for _ in range(3):
        process = subprocess.Popen([*line, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, env=ENVIRONMENT)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.05, 0.3))
        process.kill()
        process.communicate()
    told = (tmp_path / "acknowledged").read_text().split()
    kept = [sid.split(".")[0] for sid, _ in read(tmp_path / "stream")]
    assert len(told) > 5
    assert len(kept) == len(set(kept))
    assert set(told) <= set(kept)


@pytest.mark.slow
def test_ten_thousand_predictions_over_http(registry, tmp_path, kit):
    """Labels delayed, out of order, twice and corrected: the stream holds each once, and the last word counts."""
    registry.publish(kit.numbered(1))
    chance, count = random.Random(5), 2000 if not os.environ.get("LIFELONG_SOAK") else 10_000
    with running(registry, tmp_path) as client:
        names = []
        for _ in range(count // 200):
            told = checked(client.post("/v1/predict", json={"x": X * 100, "remember": True}))
            names += [prediction["id"] for prediction in told["predictions"]]
        truth = {name: chance.choice(["ant", "bee", "cat", "dog"]) for name in names}
        corrected = dict.fromkeys(names[::10], "emu")
        sent = [{"prediction": n, "label": t, "revision": 1} for n, t in truth.items()]
        sent += [{"prediction": n, "label": t, "revision": 2} for n, t in corrected.items()]
        sent += sent[::7]
        chance.shuffle(sent)
        counts = dict.fromkeys(("accepted", "corrected", "duplicate", "stale"), 0)
        for start in range(0, len(sent), 250):
            told = checked(client.post("/v1/feedback", json={"labels": sent[start : start + 250]}))
            assert told["unknown"] == []
            for outcome in counts:
                counts[outcome] += told[outcome]
        found = checked(client.get("/v1/accuracy"))
        text = client.get("/metrics").text
    final = truth | corrected
    records = read(tmp_path / "state" / "stream")
    last = {sid.split(".")[0]: sample.y for sid, sample in records}
    assert last == final
    assert len({sid for sid, _ in records}) == len(records) == counts["accepted"] + counts["corrected"]
    assert counts["accepted"] == count
    assert sum(counts.values()) == len(sent)
    (mine,) = found["versions"]
    assert (mine["version"], mine["total"], found["remembered"]) == (1, count, count)
    assert mine["correct"] == sum(label == "ant" for label in final.values())  # version 1 always says ant
    assert f'lifelong_feedback_total{{outcome="accepted"}} {count}.0' in text


BAD = [
    ({"labels": []}, "labels must be"),
    ({"labels": ["a"]}, "labels[0]"),
    ({"labels": [{"prediction": "a"}]}, "labels[0]"),
    ({"labels": [{"prediction": "a", "label": True}]}, "label"),
    ({"labels": [{"prediction": "a", "label": "x" * 300}]}, "label"),
    ({"labels": [{"prediction": "a", "label": 2**64}]}, "64 bits"),
    ({"labels": [{"prediction": 3, "label": 1}]}, "prediction"),
    ({"labels": [{"prediction": "a", "label": 1, "revision": 0}]}, "revision"),
    ({"labels": [{"prediction": "a", "label": 1, "when": 0}]}, "labels[0]"),
]


@pytest.mark.slow
def test_bad_feedback_is_a_400_and_a_full_stream_a_429(registry, tmp_path, kit, monkeypatch):
    monkeypatch.setattr("serving.stream.LOOK_SECONDS", -1)  # every time: other threads ask as well
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path, feedback_backlog=1) as client:
        for body, hint in BAD:
            assert hint in checked(client.post("/v1/feedback", json=body), 400)["detail"]
        told = checked(client.post("/v1/predict", json={"x": X, "remember": True}))
        one, two = ({"prediction": p["id"], "label": "cat"} for p in told["predictions"])
        assert checked(client.post("/v1/feedback", json={"labels": [one]}))["accepted"] == 1
        full = client.post("/v1/feedback", json={"labels": [two]})
        assert checked(full, 429)["type"] == "urn:lifelong:error:Busy"
        assert full.headers["retry-after"] == "5"
        not_asked = checked(client.post("/v1/predict", json={"x": X}))
        assert [p["id"] for p in not_asked["predictions"]] == [None, None]
