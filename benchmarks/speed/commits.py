"""What a commit costs, with 10 million parameters under Adam and a memory of 50,000 samples of 784 numbers: 277 MB.

The pause is what training waits for the copies (of the calling thread's CPU time); the share is what copying and
writing take of the processor at one commit every 30 seconds, in a thread or not.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from figures import figure

from lifelong.learning import Learner, Optim, Reservoir
from lifelong.learning.checkpoint import Checkpoints
from lifelong.models import build
from lifelong.types import Batch

EVERY_SECONDS, TURNS = 30.0, 5


def rows() -> Iterator[dict[str, Any]]:
    """Yield parameters, pause, share and the time of a whole commit."""
    learner, memory = _learner(), Reservoir(50_000)
    for _ in range(50):
        memory.add(Batch.of(torch.randn(1000, 784), torch.arange(1000) % 10))
    pause, cpu, whole = [], [], []
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as commits:
        for _ in range(TURNS + 1):  # the first one pays for fresh pages
            wall, mine, all_threads = time.perf_counter(), time.thread_time(), time.process_time()
            commits.start({"learner": learner.state(), "memory": memory.state()})
            pause.append(time.thread_time() - mine)
            commits.wait()
            cpu.append(time.process_time() - all_threads)
            whole.append(time.perf_counter() - wall)
    yield figure("commit_parameters", sum(p.numel() for p in learner.model.parameters()), "parameters")
    yield figure("commit_pause", _middle(pause), "CPU s")
    yield figure("commit_share_of_30_seconds", _middle(cpu) / EVERY_SECONDS, "of the time")
    yield figure("commit_seconds", _middle(whole), "s")


def _learner() -> Learner:
    backbone = {"name": "mlp", "inputs": [784], "hidden": [2600, 2500], "features": 700}
    model = build({"backbone": backbone, "head": {"name": "linear"}}, seed=0)
    learner = Learner(model, optim=Optim(name="adam", lr=1e-4), batch_size=64)
    return learner.partial_fit(torch.randn(64, 784), torch.arange(64) % 10)


def _middle(values: list[float]) -> float:
    return sorted(values[1:])[TURNS // 2]
