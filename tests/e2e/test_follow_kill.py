"""A trainer on a messy stream that is killed with SIGKILL at random points ends with the bits of one that never was."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import brokers
import lives
import pytest
import streams

from lifelong import files
from lifelong.checks import digest
from lifelong.daemon import Stopped
from lifelong.following import health
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.registry import Registry
from lifelong.sources.locate import locate
from lifelong.sources.log import Log

KILLS = 50 if os.environ.get("LIFELONG_SOAK") else 1  # for each strategy
STRATEGIES = ("powerlaw", "dkvb", "cuber", "simplex", "everything")

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def start():
    """Starts lives as forks of a process that has everything loaded."""
    context, root = multiprocessing.get_context("forkserver"), Path(__file__).resolve().parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "tests" / "support")]))
        context.set_forkserver_preload(["warm"])
        forkserver.ensure_running()

    def one(name: str, stream: Path, folder: Path) -> multiprocessing.Process:
        process = context.Process(target=lives.live, args=(name, stream, folder))
        process.start()
        return process

    return one


def finish(process):
    process.join(600)
    assert process.exitcode == 0


def outcome(folder: Path) -> dict:
    """Weights, buffers, generators, positions, counts, figures: everything of the last commit; and the versions."""
    state = Checkpoints(folder / "run" / "checkpoints").latest()
    versions = Registry(folder / "registry").versions()
    manifests = [files.sha256(folder / "registry" / "versions" / f"{v:06d}" / "manifest.json") for v in versions]
    return {"state": digest(state), "versions": manifests, "figures": state["prequential"]}


def commits(folder: Path) -> int:
    return max([int(p.name) for p in (folder / "run" / "checkpoints").glob("0*")], default=0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_killed_at_random_points_of_a_messy_stream_it_ends_with_the_same_bits(name, tmp_path, start):
    """One record in ten comes twice, one in a hundred is poison. Kills fall into polls, steps, commits, publishes."""
    stream = streams.log(tmp_path / "log", streams.messy(300))
    finish(start(name, stream, tmp_path / "whole"))
    expected, total = outcome(tmp_path / "whole"), commits(tmp_path / "whole")
    assert total >= 12
    assert expected["versions"]

    chance, kills, round_, at = random.Random(name), 0, 0, []
    while kills < KILLS:
        folder = tmp_path / f"parts-{round_}"
        process = start(name, stream, folder)
        target = commits(folder) + chance.randint(1, max(2, total // 2 if KILLS == 1 else total // 5))
        while commits(folder) < target and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it had ended before the signal came: compare, and go on with another run
            assert outcome(folder) == expected
            round_ += 1
        else:
            kills += 1
            at.append((round_, commits(folder)))
    finish(start(name, stream, tmp_path / f"parts-{round_}"))

    assert outcome(tmp_path / f"parts-{round_}") == expected
    assert len(set(at)) > KILLS // 2, f"the kills hit the same points again and again: {at}"


@pytest.mark.parametrize("kind", [brokers.NatsBroker, brokers.RedisBroker], ids=["nats", "redis"])
def test_a_broker_that_is_killed_and_started_again_changes_no_bit(kind, tmp_path, caplog):
    """Half of the stream is there when the broker dies; the other half comes after it was started again."""
    records = streams.messy(400)
    quiet = streams.follower(streams.log(tmp_path / "log", records), tmp_path / "quiet", lambda: lives.make("replay"))
    quiet.run()

    broker = kind(tmp_path)
    try:
        broker.put(records[:200])
        source = locate(broker.where)
        made = streams.follower(
            tmp_path / "log", tmp_path / "run", lambda: lives.make("replay"), settings={"until": "forever"}
        )
        made.intake.source = source
        learned = threading.Event()
        made.watch(lambda kind, facts: learned.set() if facts.get("samples", 0) >= 400 else None)

        def run():
            with pytest.raises(Stopped):
                made.run()

        thread = threading.Thread(target=run)
        thread.start()
        broker.server.stop()
        time.sleep(2)
        assert thread.is_alive()
        broker.server.start()
        broker.put(records[200:])
        assert learned.wait(60), made.facts()
        made.stop.set()
        thread.join(30)
        source.close()
    finally:
        broker.close()
    one, two = (Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("quiet", "run"))
    assert digest(one["learner"]) == digest(two["learner"])
    assert one["prequential"] == two["prequential"]
    assert "does not answer" in caplog.text or "forgot" in caplog.text


@pytest.mark.parametrize("kind", [brokers.NatsBroker, brokers.RedisBroker], ids=["nats", "redis"])
def test_a_trainer_that_starts_before_its_broker_waits_for_it(kind, tmp_path):
    broker, run = kind(tmp_path), tmp_path / "run"
    line = [sys.executable, "-m", "lifelong.cli", "train", "--source", broker.where, "--run", str(run)]
    try:
        broker.put(streams.samples(60))
        broker.server.stop()
        trainer = subprocess.Popen([*line, "--follow", "until=end"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 120
            while "does not answer" not in (health.read(run / "health.json") or {"state": ""})["state"]:
                assert time.monotonic() < deadline
                assert trainer.poll() is None
                time.sleep(0.1)
            broker.server.start()
            _, err = trainer.communicate(timeout=120)
        finally:
            trainer.kill()
        assert trainer.returncode == 0, err
    finally:
        broker.close()
    assert Checkpoints(run / "checkpoints").latest()["learner"]["counters"]["samples"] == 60


def test_sigterm_commits_a_second_trainer_is_refused_and_the_same_command_goes_on(tmp_path):
    """The command line itself: it waits for more at the end of what is there, until it is told to stop."""
    log, records = tmp_path / "log", streams.samples(200)
    with Log(log, create=True) as made:
        made.append(records[:120])
    line = [sys.executable, "-m", "lifelong.cli", "train", "--source", str(log), "--run", str(tmp_path / "run")]
    line += ["--commit-every", "1", "--batch-size", "8"]

    def samples() -> int:
        folder = tmp_path / "run" / "checkpoints"
        found = Checkpoints(folder).latest() if list(folder.glob("0*")) else None
        return found["learner"]["counters"]["samples"] if found else 0

    def until(count: int) -> None:
        deadline = time.monotonic() + 120
        while samples() < count:
            assert time.monotonic() < deadline, f"{samples()} samples of {count} after two minutes"
            time.sleep(0.1)

    first = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(120)
        second = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert second.returncode == 8
        assert f"process {first.pid}" in second.stderr
        first.terminate()
        out, err = first.communicate(timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0, err
    assert "the same command goes on" in out
    assert "Traceback" not in err
    assert samples() == 120

    with Log(log) as made:
        made.append(records[120:])
    again = subprocess.run([*line, "--follow", "until=end"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert "going on after 120 samples" in again.stdout
    assert samples() == 200
