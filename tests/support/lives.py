"""A trainer on a stream, in a process that can be killed: what it runs, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from streams import follower, learner

from lifelong.following.settings import Follow
from lifelong.learning import Optim
from lifelong.learning.budgets import Budget
from lifelong.learning.rates import Rate
from lifelong.release.registry import Registry
from strategies.cuber import CUBER
from strategies.dkvb import DiscreteKeyValueBottleneck
from strategies.powerlaw import PowerLawRehearsal
from strategies.replay import Replay
from strategies.simplex import Simplex

SETTINGS: dict[str, dict[str, Any]] = {
    "powerlaw": {"window": "count:60", "publish_samples": 100},
    "dkvb": {"window": "time:70", "publish_samples": 100},
    "cuber": {"window": "count:80", "kind": "domain-il", "publish_samples": 100},
    "simplex": {"window": "count:60", "publish_samples": 100},
    "replay": {},
    "everything": {
        "window": "drift:0.8",
        "on_drift": "consolidate,rewarm,publish,alert",
        "publish_samples": 90,
        "publish_improvement": 0.1,
        "merge": "ema",
        "canary": 3,
        "spike": 50.0,
    },
}


def make(name: str) -> Any:
    """A fresh learner."""
    told = Follow(**SETTINGS[name])
    if name == "powerlaw":
        return learner(PowerLawRehearsal(60), told)
    if name == "dkvb":
        return learner(DiscreteKeyValueBottleneck(4, 16, 2, init_samples=30, passes=2), told)
    if name == "cuber":
        return learner(CUBER(samples=30), told)
    if name == "simplex":
        return learner(Simplex(classes=8), told, features=7)
    if name == "everything":  # what the trainer keeps besides: rate, budget, averages, drift, canary
        rate = Rate(policy="cosine", period=120, warmup=16)
        return learner(Replay(60), told, optim=Optim(lr=0.1, momentum=0.9, rate=rate), budget=Budget(flops=4_500.0))
    return learner(Replay(60), told)


def live(name: str, stream: Path, folder: Path) -> None:
    """Run to the end of the stream, from wherever the last life left it."""
    torch.set_num_threads(1)
    registry = Registry(folder / "registry", create=True)
    one = follower(
        stream, folder / "run", lambda: make(name), settings=SETTINGS[name], registry=registry, commit_every=3
    )
    one.run()
