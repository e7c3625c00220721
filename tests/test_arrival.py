"""How a run begins: a broker that is not there yet, samples of several shapes, a halt that no restart lifts."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from threading import Event

import pytest
import streams
import torch
from typed import run

from lifelong.errors import Halted, Unavailable
from lifelong.following import health
from lifelong.following.dead import DeadLetters
from lifelong.following.patience import first_shape
from lifelong.learning.checkpoint import Checkpoints
from lifelong.sources.later import Later
from lifelong.sources.log import Log
from lifelong.sources.record import encode
from lifelong.telemetry import listen


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Handlers are those from before; looks are short."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    monkeypatch.setattr("lifelong.following.patience.POLL_SECONDS", 0.05)
    monkeypatch.setattr("lifelong.following.patience.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("lifelong.commands.arrival.BEAT_SECONDS", 0.0)
    monkeypatch.setattr("lifelong.commands.watch.BEAT_SECONDS", 0.0)
    monkeypatch.setattr(health, "SECONDS", 0.0)
    yield
    for number, handler in before:
        signal.signal(number, handler)


# ---- a broker that is away


def test_a_source_that_comes_later_is_the_source_from_then_on(tmp_path):
    stream, tries = streams.log(tmp_path / "log", streams.samples(30)), []

    def make():
        tries.append(1)
        if len(tries) < 3:
            raise Unavailable("nobody is there")
        return Log(stream, on_gap="skip")

    with Later(make, "skip", 1000) as later:
        with pytest.raises(Unavailable):
            later.last()
        later.seek({"log": 10})
        assert (later.first(), later.last()) == ({"log": 1}, {"log": 30})
        assert [record.offset for record in later.poll(3)] == [11, 12, 13]
        later.reader = "me"
        later.commit_hint({"log": 13})
        with Log(stream) as log:
            assert log.facts()["readers"] == {"me": 13}
            log.trim(through=20)
        assert [record.offset for record in later.poll(2)] == [21, 22]
        assert later.gaps == 1


@pytest.mark.slow
def test_a_broker_that_is_away_at_the_start_is_waited_for_and_that_can_be_seen(tmp_path, monkeypatch):
    """A new run, and one that goes on: the third attempt finds the broker; before it, everybody can see the waiting."""
    stream, folder = streams.log(tmp_path / "log", streams.samples(40)), tmp_path / "run"
    ports, tries, seen = [], [], []
    monkeypatch.setattr("lifelong.commands.follow.listen", lambda *a: ports.append(listen(*a)) or ports[-1])

    def look():
        os.kill(os.getpid(), signal.SIGHUP)  # is kept for later: it ends nothing
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[-1]}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        told = json.loads(run("status", folder, "--json"))
        seen.append((told["state"], told["running"] is not None, "lifelong_train_samples_total" in metrics))

    def broker():
        tries.append(1)
        if len(tries) == 3:
            look()
        if len(tries) <= 3:
            raise Unavailable("nobody is there")
        return Log(stream)

    monkeypatch.setattr("lifelong.sources.locate._broker", lambda *_: broker)
    line = ["train", "--source", "redis://localhost:1/0/key", "--run", folder, "--metrics-port", 0, "--json"]
    for state in ("waiting for the first samples: nobody is there", "waiting: nobody is there"):
        tries.clear()
        end = json.loads(run(*line, "--follow", "until=end").splitlines()[-1])["end"]
        assert end["samples"] == 40
        assert seen[-1] == (state, True, True)


# ---- what samples look like


def shapes(tmp_path, *records):
    log = streams.log(tmp_path / "log", [(f"r{i}", payload) for i, payload in enumerate(records)])
    return Log(log)


def of(width):
    return encode(torch.zeros(width), 0)


def test_most_of_the_first_samples_say_the_shape_and_not_the_first(tmp_path):
    source = shapes(tmp_path, of(3), b"?", of(3), *[of(6)] * 40)
    assert first_shape(source, Event(), lambda why: None, False) == [6]


@pytest.mark.parametrize(("count", "ends", "waits"), [(5, False, 0), (4, False, 3), (1, True, 0)])
def test_few_samples_are_waited_for_unless_no_more_come(count, ends, waits, tmp_path):
    source, stop, waited = shapes(tmp_path, *[of(6)] * count), Event(), []

    def waiting(why):
        waited.append(why)
        if len(waited) == 3:
            stop.set()

    found = first_shape(source, stop, waiting, ends)
    assert (found, len(waited)) == (None if waits else [6], waits)


@pytest.mark.slow
def test_one_stray_record_spoils_no_run_and_settings_or_the_registry_say_it_without_samples(tmp_path):
    stream = streams.log(tmp_path / "log", [("stray", of(3)), *streams.samples(200)])
    line = ["train", "--source", stream, "--json", "--follow", "until=end", "--run"]
    end = json.loads(run(*line, tmp_path / "run", "--registry", tmp_path / "registry").splitlines()[-1])["end"]
    assert end["dead"] == 1
    empty = streams.log(tmp_path / "empty", [])
    line = ["train", "--source", empty, "--follow", "until=end", "--run"]
    run(*line, tmp_path / "two", "--registry", tmp_path / "registry")
    run(*line, tmp_path / "three", "--model-set", "inputs=[6]")
    for folder in ("two", "three"):
        assert json.loads((tmp_path / folder / "run.json").read_text())["model"]["backbone"]["inputs"] == [6]


# ---- a halt


@pytest.mark.slow
def test_a_halt_is_not_lifted_by_a_restart_and_no_letter_is_lost(tmp_path):
    poison = [(f"p{i}", b"x") for i in range(1500)]
    stream, folder = streams.log(tmp_path / "log", [*streams.samples(8), *poison, *streams.samples(16, seed=1)]), "run"

    def halted(**settings):
        with pytest.raises(Halted, match="nothing more is read before something is done") as said:
            streams.follower(stream, tmp_path / folder, settings=settings).run()
        assert said.value.exit_code == 12
        state = Checkpoints(tmp_path / folder / "checkpoints").latest()
        dead = DeadLetters(1)
        dead.restore(state["intake"]["dead"])
        return state["intake"]["counts"]["records"], len(dead.letters), dead.lost

    first = halted(dead_letters=1000)
    assert first[1] > 1000
    assert first[2] == 0
    assert halted(dead_letters=1000) == halted(max_dead=0.9) == first
    told = json.loads(run("status", tmp_path / folder, "--json"))
    assert told["halted"] > 0.9

    made = streams.follower(stream, tmp_path / folder, settings={"max_dead": 1.0})
    made.run()
    assert made.facts()["samples"] == 24
    assert made.facts()["dead"] == 1500


@pytest.mark.slow
@pytest.mark.parametrize("command", ["drop", "replay"])
def test_a_halt_is_lifted_by_who_has_dealt_with_the_letters(command, tmp_path):
    poison = [(f"p{i}", b"x") for i in range(1030)]
    stream = streams.log(tmp_path / "log", [*streams.samples(8), *poison, *streams.samples(200, seed=1)])
    with pytest.raises(Halted):
        streams.follower(stream, tmp_path / "run").run()
    run("dead", command, tmp_path / "run", 1)
    made = streams.follower(stream, tmp_path / "run")
    made.run()
    assert made.facts()["samples"] == 208
