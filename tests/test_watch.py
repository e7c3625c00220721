"""What a run tells while it goes on, and what it is told: health, metrics, systemd, lines, settings read again."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import time
import urllib.request

import pytest
import streams
from click.testing import CliRunner

from lifelong.checks import digest
from lifelong.cli import cli
from lifelong.commands import systemd
from lifelong.commands.config import again
from lifelong.commands.instruments import Instruments
from lifelong.commands.watch import Lines, Watch
from lifelong.errors import ConfigError
from lifelong.following import facts, health
from lifelong.following.dead import REASONS, DeadLetters, Letter
from lifelong.following.reload import MAY_CHANGE, changes
from lifelong.following.settings import Follow
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.registry import Registry
from lifelong.release.report import Check, Report
from lifelong.sources.base import Record
from lifelong.sources.record import encode
from lifelong.telemetry import TRAINING, listen


class Keeps:
    """An observer that keeps what it is told."""

    def __init__(self):
        self.beats, self.events = [], []

    def beat(self, vital, now=False):
        self.beats.append(dict(vital))

    def happened(self, kind, facts):
        self.events.append(kind)


@pytest.fixture
def quick(monkeypatch):
    """A beat with every step."""
    monkeypatch.setattr("lifelong.commands.watch.BEAT_SECONDS", 0.0)


# ---- settings read again


def test_only_what_does_not_touch_the_past_may_change():
    now = Follow(window="count:5")
    other = {"commit_seconds": 1.0, "dead_letters": 5, "keep": 9, "max_dead": 0.1,
             "publish_samples": 7, "publish_seconds": 3.0, "publish_improvement": 0.1}  # fmt: skip
    assert set(other) == set(MAY_CHANGE)
    assert changes(now, Follow(window="count:5", **other)) == other
    assert changes(now, now) == {}
    with pytest.raises(ConfigError, match="kind, window may not change"):
        changes(now, Follow(window="count:6", kind="domain-il", keep=1))


def test_settings_change_from_a_commit_on_and_every_part_goes_by_them(tmp_path, quick, capsys):
    made = streams.follower(streams.log(tmp_path / "log", streams.samples(80)), tmp_path / "run", commit_every=100)
    kept, wanted = Keeps(), Follow(until="end", publish_samples=3, dead_letters=4, keep=2)
    watch = Watch(made, [kept], lambda: wanted)
    watch._asked = True
    made.run()
    assert made.settings is made.intake.settings is made.trainee.settings is made.trainee.publisher.settings is wanted
    assert made.intake.dead.capacity == 4
    assert kept.events == ["committed"] * 3  # the first, the change, the end
    assert "publish_samples is 3" in capsys.readouterr().err


@pytest.mark.slow
def test_crashed_after_a_change_it_ends_with_the_same_bits(tmp_path, quick):
    """Candidates come more often from step 10 on; a crash at step 13 repeats three steps with the new settings."""
    stream, wanted = streams.log(tmp_path / "log", streams.messy(240)), {"publish_samples": 40}

    def started(name, notify, settings):
        registry = Registry(tmp_path / f"registry-{name}", create=True)
        return streams.follower(
            stream, tmp_path / name, settings=settings, registry=registry, notify=notify, commit_every=50
        ), registry

    def changing(crash):
        def notify(kind, facts):
            if kind == "step" and facts["steps"] == 10:
                made.change(Follow(until="end", **wanted))
            if kind == "step" and facts["steps"] == crash:
                raise KeyboardInterrupt

        return notify

    made, one = started("whole", changing(0), {})
    made.run()
    made, _ = started("parts", changing(13), {})
    with pytest.raises(KeyboardInterrupt):
        made.run()
    last, two = started("parts", None, wanted)
    last.run()
    states = [Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "parts")]
    assert digest(states[0]) == digest(states[1])
    assert len(one.versions()) > 2
    assert [one.manifest(v)["sha256"] for v in one.versions()] == [two.manifest(v)["sha256"] for v in two.versions()]


def test_what_may_not_change_is_said_and_the_run_goes_on_with_the_old(tmp_path, quick, capsys):
    made = streams.follower(streams.log(tmp_path / "log", streams.samples(40)), tmp_path / "run")
    watch = Watch(made, [], lambda: Follow(until="end", dedup=5, keep=1))
    watch._asked = True
    made.run()
    assert made.settings == Follow(until="end")
    assert made.facts()["samples"] == 40
    told = capsys.readouterr().err
    assert told.count("settings stay as they are: dedup may not change while it runs") == 1
    Watch(made, []).reload()
    assert "without --config" in capsys.readouterr().err


def test_a_file_is_read_again_with_what_was_typed_still_winning(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("lr = 0.1\n[follow]\nkeep = 4\nlinger = 1.0\n")
    read = again(path, ["linger=3"])
    assert read() == Follow(keep=4, linger=3)
    path.write_text("lr = 0.1\n[follow]\nkeep = 5\nlinger = 2.0\n")
    assert read() == Follow(keep=5, linger=3)
    path.write_text("lr = 0.2\n[follow]\nkeep = 6\n")
    with pytest.raises(ConfigError, match="lr may not change"):
        read()


# ---- health


def test_the_health_file_says_how_it_is_and_how_old_that_is(tmp_path, quick):
    made = streams.follower(streams.log(tmp_path / "log", streams.samples(80)), tmp_path / "run")
    watch = Watch(made, [health.Health(tmp_path / "h.json", 77)])
    made.run()
    watch.beat("ended", ask=False, now=True)
    told = health.read(tmp_path / "h.json")
    assert (told["state"], told["pid"], told["samples"], told["step"]) == ("ended", 77, 80, 10)
    assert told["positions"] == {"log": 80}
    assert told["lag"] == 0
    assert 0 <= told["age"] < 60
    assert told["time"] >= told["last_commit"]
    assert set(told) == {"time", "pid", "age", *health.KEPT}
    (tmp_path / "h.json").write_text("{")
    assert health.read(tmp_path / "h.json") is None


def test_health_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    one = health.Health(tmp_path / "none" / "h.json", 1)
    one.beat({"state": "learning"}, now=True)
    one.beat({"state": "learning"}, now=True)
    assert caplog.text.count("training goes on") == 1


def test_lag_counts_what_is_there_and_not_learned(tmp_path):
    made = streams.follower(streams.log(tmp_path / "log", streams.samples(30)), tmp_path / "run")
    assert facts.lag(made.intake) == 30
    made.intake.positions = {"log": 12}
    assert facts.lag(made.intake) == 18
    made.intake.source.counted = False
    assert facts.lag(made.intake) is None


# ---- systemd


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract address"])
def test_systemd_hears_ready_once_and_then_that_it_is_alive(abstract, tmp_path, monkeypatch):
    """A second source: a socket of ours in systemd's place."""
    address = f"@lifelong-{os.getpid()}-{time.time_ns()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("\0" + address[1:] if abstract else address)
        heard.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        one = systemd.Systemd()
        one.beat({"state": "learning", "samples": 5})
        one.beat({"state": "waiting", "samples": 6})
        systemd.notify("STOPPING=1")
        said = [heard.recv(1000).decode().splitlines() for _ in range(3)]
    assert said == [
        ["READY=1", "STATUS=learning, 5 samples", "WATCHDOG=1"],
        ["STATUS=waiting, 6 samples", "WATCHDOG=1"],
        ["STOPPING=1"],
    ]
    assert not systemd.notify("WATCHDOG=1")  # nobody listens any more


def test_a_service_manager_that_does_not_listen_keeps_nobody_waiting(tmp_path, monkeypatch):
    """Its queue is full after some messages: more are dropped, and ready is said again until it is heard."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        sent = 0
        while systemd.notify("STATUS=busy"):
            sent += 1
        one = systemd.Systemd()
        one.beat({"state": "learning", "samples": 5})
        for _ in range(sent):
            heard.recv(1000)
        one.beat({"state": "learning", "samples": 6})
        assert heard.recv(1000).startswith(b"READY=1")


# ---- metrics


def values(instruments):
    return {(name, *labels.values()): value for name, labels, value in instruments.telemetry.samples()}


@pytest.mark.slow
def test_metrics_are_those_of_the_run(tmp_path, quick):
    stream = streams.log(tmp_path / "log", [*streams.messy(160), ("p", b"?"), ("large", b"x" * 5000)])
    registry = Registry(tmp_path / "registry", create=True)
    made = streams.follower(stream, tmp_path / "run", registry=registry,
                            settings={"publish_samples": 60, "record_bytes": 4000})  # fmt: skip
    one = Instruments()
    watch = Watch(made, [one])
    made.run()
    watch.beat("ended", now=True)
    found, told = values(one), made.facts()
    assert found["lifelong_train_samples_total",] == told["samples"]
    assert found["lifelong_train_duplicates_total",] == told["duplicates"] > 0
    assert found["lifelong_train_accuracy", "majority"] == told["majority"]
    assert found["lifelong_train_candidates_total", "published"] == len(registry.versions()) > 0
    assert found["lifelong_train_version",] == told["version"]
    assert found["lifelong_train_lag_records",] == 0
    assert found["lifelong_train_commit_seconds_count",] >= 4
    letters = {reason: found["lifelong_train_dead_letters_total", reason] for reason in REASONS}
    assert letters == {"record": 1, "large": 1, "schema": 0, "step": 0}
    assert abs(found["lifelong_train_version_since_seconds",] - time.time()) < 600
    assert {metric.name for metric in TRAINING} <= {name.removesuffix("_count") for name, *_ in found}
    report = Report((Check("accuracy", False, "worse"), Check("forgetting", True, "fine")))
    one.happened("refused", {"report": report.as_dict()})
    refused = {key[1]: n for key, n in values(one).items() if key[0] == "lifelong_train_rejected_total"}
    assert {gate for gate, n in refused.items() if n} == {"accuracy"} and "forgetting" in refused
    assert math.isnan(found["lifelong_train_memory_samples",])  # naive keeps none, which is not 0


def test_a_way_back_counts_nothing_twice(tmp_path):
    one, vital = Instruments(), {
        "samples": 10, "duplicates": 0, "published": 0, "refused": 0, "reasons": {}, "late": 0, "model": 0, "recent": 0,
        "majority": 0, "no_change": 0,
    }  # fmt: skip
    for samples in (10, 30, 20, 35):
        one.beat({**vital, "samples": samples})
    one.happened("rollback", {})
    assert values(one)["lifelong_train_samples_total",] == 35
    assert values(one)["lifelong_train_rollbacks_total",] == 1


def test_metrics_are_served_and_a_port_that_is_taken_is_said():
    one = Instruments()
    one.happened("committed", {"seconds": 0.5})
    port = listen(one.telemetry, "127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert "lifelong_train_commit_seconds_sum 0.5" in answer.read().decode()
    with pytest.raises(ConfigError, match="choose another port"):
        listen(one.telemetry, "127.0.0.1", port)


def test_reasons_are_counted_and_survive_a_commit():
    dead = DeadLetters(1)
    for reason in ("schema", "step", "schema"):
        dead.add([Letter(Record("p", 1, "s", b"", 0.0), "why", reason=reason)])
    again_ = DeadLetters(1)
    again_.restore(dead.state())
    assert again_.reasons == {"record": 0, "large": 0, "schema": 2, "step": 1}
    assert again_.letters[0].reason == "schema"


# ---- lines


def test_one_line_says_how_far_it_is(capsys):
    lines = Lines(False)
    lines.beat({"samples": 50, "lag": 7, "loss": 0.25, "recent": 0.5, "model": 0.4, "majority": 0.3, "no_change": 0.2,
                "memory": 9.0, "letters": 2, "version": 3})  # fmt: skip
    out = capsys.readouterr().out
    for part in ("50 samples", "7 behind", "loss 0.250", "right 0.500 (all 0.400", "9 in memory", "2 dead letters",
                 "version 3"):  # fmt: skip
        assert part in out
    assert out.count("\n") == 1


@pytest.mark.slow
def test_the_command_obeys_signals_and_status_tells_its_health(tmp_path, monkeypatch):
    """SIGHUP after the first version of the file, SIGTERM after the second: what is said, and what is left."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)}
    streams.log(tmp_path / "log", [*streams.samples(60), ("bad", encode(streams.torch.zeros(9), 1))])
    path = tmp_path / "a.toml"
    text = f'source = "{tmp_path / "log"}"\nrun = "{tmp_path / "run"}"\nbatch_size = 8\n[follow]\nkeep = '
    path.write_text(f"{text}4\n")
    waits = []

    def waiting(self, why):
        waits.append(why)
        if len(waits) == 1:
            path.write_text(f"{text}2\n")
            os.kill(os.getpid(), signal.SIGHUP)
        elif len(waits) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        self._tell("waiting", {"why": why})

    monkeypatch.setattr("lifelong.following.follower.Follower._waits", waiting)
    try:
        done = CliRunner().invoke(
            cli, ["train", "--config", str(path), "--metrics-port", "0", "--follow", "linger=0.1"]
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done.exit_code == 0, done.output
    assert "settings were read again: keep is 2" in done.stderr
    assert "the same command goes on from there" in done.output
    assert len(list((tmp_path / "run" / "checkpoints").glob("0*"))) <= 2
    told = json.loads(CliRunner().invoke(cli, ["status", str(tmp_path / "run"), "--json"]).stdout)
    assert (told["state"], told["samples"], told["lag"]) == ("stopped", 60, 0)
    assert 0 <= told["health_age_seconds"] < 600
