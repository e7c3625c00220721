"""A trainer that is killed with SIGKILL at random points ends with the bits of one that never was."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lifelong import files
from lifelong.checks import digest
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.registry import Registry

KILLS = 20 if os.environ.get("LIFELONG_SOAK") else 3
COMMAND = [
    *("-m", "lifelong.cli", "train", "--scenario", "split-fmnist-small", "--strategy", "replay+simplex", "--json"),
    *("--set", "replay.capacity=300", "--model-set", "hidden=[32]", "--epochs", "2", "--commit-every", "7"),
    *("--lr", "0.1", "--momentum", "0.9", "--allow-major", "--seed", "3"),
]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1500)]


def start(folder: Path) -> subprocess.Popen:
    line = [sys.executable, *COMMAND, "--run", str(folder / "run"), "--registry", str(folder / "registry")]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err.decode()
    assert out


def outcome(folder: Path) -> dict:
    """Return what a run leaves behind: the digest of its last commit, and each version's manifest as bytes."""
    state = Checkpoints(folder / "run" / "checkpoints").latest()
    registry = Registry(folder / "registry")
    manifests = {
        v: files.sha256(folder / "registry" / "versions" / f"{v:06d}" / "manifest.json") for v in registry.versions()
    }
    return {
        "state": digest(state),
        "matrix": state["progress"]["matrix"],
        "versions": manifests,
        "live": registry.current(),
    }


def commits(folder: Path) -> int:
    """Return the number of the newest commit of a run, 0 before the first."""
    path = folder / "run" / "checkpoints"
    return max([int(p.name) for p in path.glob("0*")], default=0)


def test_killed_at_random_points_it_ends_with_the_same_bits(tmp_path):
    """Each life gets a random number of commits further, and is then killed within 60 ms: in a step, while it
    commits, judges, publishes, or just after."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(start(whole))
    expected, total = outcome(whole), commits(whole)
    assert len(expected["matrix"]) == 5
    assert len(expected["versions"]) >= 3  # the gate may refuse one: that has to come out the same as well

    chance, kills, round_, at = random.Random(0), 0, 0, []
    while kills < KILLS:
        folder = parts / str(round_)
        process = start(folder)
        target = commits(folder) + chance.randint(1, max(2, 2 * total // max(KILLS, 8)))
        while commits(folder) < target and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.06))
        process.kill()
        process.communicate()
        if process.returncode == 0:  # it had ended before the signal came: compare, and go on with another run
            assert outcome(folder) == expected
            round_ += 1
        else:
            kills += 1
            at.append((round_, commits(folder)))
    finish(start(parts / str(round_)))

    assert outcome(parts / str(round_)) == expected
    assert len(set(at)) > KILLS // 2, f"the kills hit the same points again and again: {at}"


def test_two_trainers_do_not_write_into_one_folder(tmp_path):
    """The second one says who is there, and exits with the code of `Locked`."""
    first = start(tmp_path)
    try:
        while not (tmp_path / "run" / "checkpoints").exists():
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)  # it must not be done before the second one looks
        second = start(tmp_path)
        _, err = second.communicate(timeout=120)

        assert second.returncode == 8
        assert f"process {first.pid}" in err.decode()
        assert "Traceback" not in err.decode()
    finally:
        first.kill()
        first.communicate()


def test_sigterm_commits_and_the_same_command_goes_on(tmp_path):
    process = start(tmp_path)
    while not (tmp_path / "run" / "checkpoints" / "00000002").exists():
        time.sleep(0.02)
    process.terminate()
    out, err = process.communicate(timeout=120)

    assert process.returncode == 0, err.decode()
    assert b"stopped after step" in out
    finish(start(tmp_path))
    assert len(outcome(tmp_path)["matrix"]) == 5
