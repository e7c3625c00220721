"""What a commit and a restart cost the trainer: a large model and a large memory, at a commit every 30 seconds.

10.7 million parameters under Adam (129 MB with its moments) and 50,000 samples of 784 numbers (157 MB), in a memory
that has seen half a million; between two commits another 30,000 come, as at 1,000 a second. Time is processor time;
`stall` is that of the training thread, from asking for the state until it may go on. Recovery is from the start of the
process until the trainer says that it goes on, with everything restored, less what `import torch` takes by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import follow_lag
import torch
from figures import ROOT, figure

from lifelong.learning import Learner, Optim
from lifelong.learning.checkpoint import Checkpoints
from lifelong.models import build
from lifelong.sources.log import Log
from lifelong.sources.record import encode
from lifelong.types import Batch
from strategies.replay import Replay

SAMPLES, SEEN, BETWEEN, EVERY = 50_000, 500_000, 30_000, 30.0
COMMITS = 8  # enough for a new base of the memory and what follows it
Row = dict[str, Any]


def made() -> Learner:
    """Return a learner of that size whose memory is full."""
    spec = {
        "backbone": {"name": "mlp", "inputs": [784], "hidden": [2500, 2500], "features": 1000},
        "head": {"name": "linear"},
    }
    learner = Learner(build(spec, seed=0), Replay(SAMPLES), optim=Optim(name="adam", lr=1e-4), batch_size=32, seed=0)
    learner.partial_fit(torch.rand(64, 784), [i % 10 for i in range(64)])
    offer(learner, SAMPLES, 64)
    learner.strategy.memory.seen = SEEN  # type: ignore[attr-defined]
    return learner


def offer(learner: Learner, count: int, first: int) -> None:
    """Show so many samples to the memory; training on them is not what is measured."""
    for start in range(first, first + count, 500):
        ids = torch.arange(start, start + 500)
        learner.strategy.memory.add(Batch.of(torch.rand(500, 784), ids % 10, ids))  # type: ignore[attr-defined]


def recovery() -> Iterator[Row]:
    """Yield what a restart costs, of a run with that model and a full memory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        line = [
            sys.executable,
            "-m",
            "lifelong.cli",
            "train",
            "--source",
            str(root / "log"),
            "--run",
            str(root / "run"),
        ]
        line += ["--follow", "until=end", "--strategy", "replay", "--set", f"capacity={SAMPLES}", "--optimizer", "adam"]
        line += ["--lr", "0.0001", "--model-set", "hidden=[2500, 2500]", "--model-set", "features=1000"]
        with Log(root / "log", create=True) as log:
            log.append((f"s{i}", encode(torch.rand(784), i % 10)) for i in range(64))
        subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL)
        with Checkpoints(root / "run" / "checkpoints", keep=3) as commits:
            state = commits.latest() or {}
            state["learner"]["strategy"]["memory"] = made().strategy.state()["memory"]
            commits.commit(state)
        begun, spent, wall = time.monotonic(), 0.0, 0.0
        with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                if text.startswith("going on") and not spent:
                    spent, wall = processor_seconds(process.pid), time.monotonic() - begun
    code = "import torch, time; print(time.process_time())"
    alone = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    yield figure("recovery_import_torch", float(alone.stdout), "s")
    yield figure("recovery_beyond_import", spent - float(alone.stdout), "s", "<=", 3)
    yield figure("recovery_wall", wall, "s")


def processor_seconds(pid: int) -> float:
    """Return how much processor time a process has taken."""
    spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


def costs() -> Iterator[Row]:
    """Yield what commits and restarts cost, and how long a label takes."""
    yield from commits_of_a_large_run()
    yield from recovery()
    yield from follow_lag.rows()


def commits_of_a_large_run() -> Iterator[Row]:
    """Yield what commits cost."""
    learner, stalls, walls, spent, written = made(), list[float](), list[float](), 0.0, list[int]()
    parameters = sum(p.numel() for p in learner.model.parameters())
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), keep=3) as commits:
        commits.start(learner.state())  # the first one writes everything, once in the life of a run
        commits.wait()
        for i in range(COMMITS):
            offer(learner, BETWEEN, SEEN + i * BETWEEN)
            begun, wall, thread = time.process_time(), time.monotonic(), time.thread_time()
            commits.start(learner.state())
            stalls.append(time.thread_time() - thread)
            walls.append(time.monotonic() - wall)
            commits.wait()
            spent += time.process_time() - begun
            newest = Path(folder) / f"{commits.numbers()[-1]:08d}"
            written.append(sum(path.stat().st_size for path in newest.iterdir()))
    yield figure("commit_parameters", parameters, "", ">=", 1e7)
    yield figure("commit_share_of_processor", spent / COMMITS / EVERY, "of 30 s", "<=", 0.05)
    yield figure("commit_stall", max(stalls), "s", "<=", 0.2)
    yield figure("commit_stall_wall", max(walls), "s")
    yield figure("commit_written", sum(written) / len(written) / 2**20, "MiB")
