"""Golden figures: final mean accuracy of each strategy on a small fixed stream. `make golden` writes them anew."""

import json
from pathlib import Path

import torch

from lifelong import compose
from lifelong.data import load
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.streams.scenarios import class_incremental
from lifelong.types import Batch

FILE = Path(__file__).with_name("final_accuracy.json")
STRATEGIES = ["naive", "joint", "replay", "powerlaw", "nmc", "replay+simplex"]


def final_accuracy(name: str) -> float:
    """Return the mean accuracy over 5 x 2 classes of 200 training images each, after one run of `name`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = load("fashion-mnist-small")
    rows = torch.cat([(data.train.y == c).nonzero().flatten()[:200] for c in range(10)])
    stream = class_incremental((data.train.take(rows), data.test[:1000]), 5)
    spec = compose.model_spec("mlp", (1, 28, 28), name, ["hidden=[64]"])
    learner = Learner(build(spec, seed=0), compose.strategy(name), optim=Optim(lr=0.1), seed=0, setting=stream)
    for experience in stream:
        learner.fit(experience, 3)
    torch.set_num_threads(threads)
    assert isinstance(stream[0].train, Batch)
    return sum(learner.score(e) for e in stream) / len(stream)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: round(final_accuracy(name), 3) for name in STRATEGIES}, indent=1) + "\n")
