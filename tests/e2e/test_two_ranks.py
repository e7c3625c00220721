"""Two processes train one learner: what comes out is what one process makes of the same batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import streams
import torch
import two_ranks

from lifelong import plugins
from lifelong.checks import digest
from lifelong.learning.checkpoint import Checkpoints, pack

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in plugins.names("strategy") if two_ranks.strategy(name).needs.distributed]

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


def start(count: int, *command: str) -> subprocess.Popen:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    return subprocess.Popen(
        [sys.executable, *(torchrun if count > 1 else ()), *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out + err


def assert_close(one: dict, other: dict, dtype: torch.dtype) -> None:
    """Sums of shares round otherwise than sums of all; nothing else may differ."""
    (mine, _), (theirs, _) = pack(one), pack(other)
    assert mine.keys() == theirs.keys()
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4  # rounding grows on the way
    for key, value in mine.items():
        torch.testing.assert_close(
            theirs[key], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    finish(start(2, str(ROOT / "tests" / "support" / "two_ranks.py"), str(folder), *NAMES, *two_ranks.CHAINS))
    return folder


@pytest.mark.parametrize("name", [*NAMES, *two_ranks.CHAINS])
def test_two_processes_end_with_the_weights_of_one(name, together):
    """And with its buffers, generators, counters and everything else that a strategy keeps; both with the same bits."""
    first, second = (Checkpoints(together / name / which).latest() for which in ("first", "second"))

    assert_close(two_ranks.trained(name).state(), first["whole"], two_ranks.precision(name))
    assert digest(first) == digest(second)


@pytest.mark.parametrize("name", two_ranks.RESUMED)
def test_two_processes_that_were_stopped_go_on_bit_for_bit(name, together):
    found = Checkpoints(together / name / "first").latest()

    assert digest(found["parts"]) == digest(found["whole"])


def train(count: int, stream: Path, run: Path) -> subprocess.Popen:
    """The second dashes are for torchrun, to which `--run` alone looks like one of its own options."""
    module = ("-m", "lifelong") if count == 1 else ("-m", "--", "lifelong")
    how = ("until=end", "window=count:60", "kind=domain-il", "publish_samples=100")
    where = ("--source", str(stream), "--run", str(run), "--registry", str(run.parent / f"{run.name}-registry"))
    small = ("--set", "samples=30", "--batch-size", "5", "--commit-every", "3", "--model-set", "hidden=[8]")
    follow = [text for setting in how for text in ("--follow", setting)]
    return start(count, *module, "train", "--json", "--strategy", "cuber", *where, *small, *follow)


def outcome(run: Path) -> dict:
    found = Checkpoints(run / "checkpoints").latest()
    assert isinstance(found, dict)
    return found


def test_a_stream_followed_by_two_processes_is_learned_as_by_one(tmp_path):
    """Also when they are stopped on the way, and started again."""
    stream = streams.log(tmp_path / "log", streams.messy(200))
    finish(train(1, stream, tmp_path / "one"))
    stopped = train(2, stream, tmp_path / "two")
    while not (tmp_path / "two" / "checkpoints" / "00000004").exists() and stopped.poll() is None:
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)  # torchrun hands it on, and says by its exit code that it was stopped
    stopped.communicate(timeout=120)
    before = outcome(tmp_path / "two")
    finish(train(2, stream, tmp_path / "two"))

    one, two = (outcome(tmp_path / name) for name in ("one", "two"))
    assert before["learner"]["counters"]["samples"] < one["learner"]["counters"]["samples"]
    for name in ("intake", "windows", "prequential"):
        assert digest(two[name]) == digest(one[name])
    assert_close(one, two, torch.float32)
    assert two["publisher"]["published"] + two["publisher"]["refused"] >= 2
