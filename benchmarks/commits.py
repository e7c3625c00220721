"""What a commit costs: the pause of training, and its share of the time at one commit every 30 seconds.

A network of 10 million parameters under Adam, and a memory of 50,000 samples of 784 numbers: 277 MB. The share is
(pause + what the writing thread takes of the processor) / 30 s; `--out` keeps the figures.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from lifelong.learning import Learner, Optim
from lifelong.learning.checkpoint import Checkpoints
from lifelong.models import build
from strategies.replay import Replay

EVERY_SECONDS = 30.0
TURNS = 5


def learner() -> Learner:
    spec = {
        "backbone": {"name": "mlp", "inputs": [784], "hidden": [2500, 2500], "features": 700},
        "head": {"name": "linear"},
    }
    made = Learner(build(spec, seed=0), Replay(50_000, ratio=0.0), optim=Optim(name="adam", lr=1e-4), batch_size=64)
    made.partial_fit(torch.randn(64, 784), torch.arange(64) % 10)
    memory = made.strategy.memory  # type: ignore[attr-defined]
    from lifelong.types import Batch

    for _ in range(50):
        memory.add(Batch.of(torch.randn(1000, 784), torch.arange(1000) % 10))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="File for the figures.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made, whole, pause, cpu = learner(), [], [], []
    parameters = sum(p.numel() for p in made.model.parameters())
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as commits:
        commits.commit(made.state())
        for _ in range(TURNS):
            at = time.perf_counter()
            commits.commit(made.state())
            whole.append(time.perf_counter() - at)
        for _ in range(TURNS):
            at, used = time.perf_counter(), time.process_time()
            commits.start(made.state())
            pause.append(time.perf_counter() - at)
            commits.wait()
            cpu.append(time.process_time() - used)
    middle = TURNS // 2
    figures = {
        "parameters": parameters,
        "commit_seconds": sorted(whole)[middle],
        "pause_seconds": sorted(pause)[middle],
        "cpu_seconds": sorted(cpu)[middle],
        "share_of_30_seconds": sorted(cpu)[middle] / EVERY_SECONDS,
    }
    print(json.dumps(figures))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
