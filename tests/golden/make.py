"""Golden figures: what each strategy reaches on a small fixed stream. `make golden` writes them anew."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from lifelong import compose
from lifelong.data import load
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.release.compat import recall_at_1
from lifelong.streams.classes import class_incremental
from lifelong.streams.domains import permuted
from lifelong.streams.pieces import data_incremental
from lifelong.types import Batch

FILE = Path(__file__).with_name("figures.json")
CLASSES = ["naive", "joint", "replay", "powerlaw", "nmc", "dkvb", "replay+simplex"]  # 5 x 2 of them
ORDERS = ["gpm", "trgp", "cuber"]  # of the pixels, 4
VERSIONS = ["bt2", "simplex"]  # of a model, 2: of other samples of the same classes
NAMES = [*CLASSES, *(f"orders {name}" for name in ORDERS), *(f"versions {name}" for name in VERSIONS)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Add floats in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@cache
def everything():
    return load("fashion-mnist-small")


def data(per_class: int, test: int):
    """Return as many training images of each class, and test images of all."""
    found = everything()
    rows = torch.cat([(found.train.y == c).nonzero().flatten()[:per_class] for c in range(10)])
    return found.train.take(rows), found.test[:test]


def coarse(batch: Batch) -> Batch:
    """Return every second pixel of every second row."""
    return replace(batch, x=batch.x[:, :, ::2, ::2])


def learner(name: str, stream, lr: float) -> Learner:
    spec = compose.model_spec("mlp", stream[0].train.x.shape[1:], name, ["hidden=[64]"])
    return Learner(build(spec, seed=0), compose.strategy(name), optim=Optim(lr=lr), seed=0, setting=stream)


def accuracy(name: str, stream, epochs: int, lr: float) -> float:
    """Return the mean accuracy over all experiences at the end."""
    made = learner(name, stream, lr)
    for experience in stream:
        made.fit(experience, epochs)
    return sum(made.score(e) for e in stream) / len(stream)


def found_again(name: str, stream) -> float:
    """Return how often a second version's queries find their class in what the first version wrote."""
    made, held = learner(name, stream, 0.01), stream[0].test
    made.fit(stream[0], 3)
    old = made.embed(held.x)
    made.fit(stream[1], 3)
    return recall_at_1(made.embed(held.x), held.y, old, held.y, same=True)


def golden(name: str) -> float:
    """Return the figure called `name`, one of `NAMES`."""
    kind, _, strategy = name.rpartition(" ")
    with one_thread():
        if kind == "orders":
            return accuracy(strategy, permuted(tuple(coarse(part) for part in data(60, 300)), 4), 4, 0.2)
        if kind == "versions":
            return found_again(strategy, data_incremental(data(60, 300), 2))
        return accuracy(strategy, class_incremental(data(200, 1000), 5), 3, 0.1)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: round(golden(name), 3) for name in NAMES}, indent=1) + "\n")
