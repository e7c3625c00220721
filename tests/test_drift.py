"""What the methods without a memory of samples are for: the same classes, seen through inputs that change."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from lifelong import plugins
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.types import Batch, Experience

pytestmark = pytest.mark.slow


def drifting(count: int = 3) -> list[Experience]:
    """Four Gaussian classes, the features in a new order in each experience."""
    random = torch.Generator().manual_seed(3)
    centres, stream = torch.randn(4, 16, generator=random), []
    for index in range(count):
        y = torch.arange(4).repeat(50)
        x = (centres[y] + 0.5 * torch.randn(200, 16, generator=random))[:, torch.randperm(16, generator=random)]
        data = Batch.of(x, y, torch.arange(200) + 1000 * index)
        stream.append(Experience(index, f"order-{index}", [0, 1, 2, 3], data, data))
    return stream


@cache
def kept(name: str, pull: float | None = None) -> float:
    """Mean accuracy over the finished experiences but the last, at plain SGD."""
    spec = {"backbone": {"name": "mlp", "inputs": [16], "hidden": [64], "features": 32}, "head": {"name": "linear"}}
    strategy = plugins.find("strategy", name)(**({} if pull is None else {"pull": pull}))
    made = Learner(build(spec), strategy, optim=Optim(lr=0.05), batch_size=16)
    stream = drifting()
    for experience in stream:
        made.fit(experience, 8)
    return sum(made.score(e) for e in stream[:-1]) / (len(stream) - 1)


@pytest.mark.parametrize(
    ("name", "pull"), [("ewc", 300), ("si", 5), ("mas", 0.1), ("lwf", 1), ("agem", None), ("gem", None)]
)
def test_old_inputs_are_kept_better_than_by_naive_training(name: str, pull: float | None) -> None:
    """By more than two points of accuracy."""
    assert kept(name, pull) > kept("naive") + 0.02
