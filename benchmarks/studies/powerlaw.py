"""Power-law rehearsal on permuted images: against none, and against other kernels at the same cost.

All runs of a stream take equally many optimizer steps and, but for `none`, rehearse equally many samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch

from lifelong import plugins
from lifelong.bench.compute import forward_flops
from lifelong.bench.metrics import need_weighted
from lifelong.data import load
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.streams.domains import permuted
from lifelong.streams.scenario import Scenario
from studies.study import Claim, Figures, Study

SPEC = {"backbone": {"name": "mlp", "inputs": [1, 28, 28], "hidden": [256, 256]}, "head": {"name": "linear"}}
LR, BATCH, PER_TASK = 0.05, 32, 200  # learning rate, samples per step, samples in memory per task
STREAMS = {"T10": (10, 2000, 400), "T30": (30, 1000, 200)}  # pixel orders, samples of each, rehearsed beside each
SMALL = {"T10": (3, 500, 100), "T30": (12, 800, 160)}
LAWS = {
    "none": ("power", 1.0),
    "uniform": ("uniform", 0.0),
    "power0.5": ("power", 0.5),
    "power1": ("power", 1.0),
    "power2": ("power", 2.0),
    "exp0.5": ("exponential", 0.5),
}
STREAMED = ("uniform", "power1", "exp0.5")  # also learned without boundaries
REHEARSING = [f"{name}.{law}" for name in STREAMS for law in LAWS if law != "none"]
TUNED = (
    "One learning rate for all, of .01, .02, .05 and .1, by the mean over laws and streams on images held out of "
    "permuted Fashion-MNIST's training part, one seed; raw pixels left single tasks half learned there."
)


def run(seed: int, root: str | None, small: bool) -> Figures:
    """Return `STREAM.LAW.what` for each stream and law, and `stream.LAW.what` for T10 without boundaries."""
    found: Figures = {}
    for name, (tasks, samples, budget) in (SMALL if small else STREAMS).items():
        scenario = stream(tasks, samples, seed, root, small)
        for law in LAWS:
            arguments = {"budget": budget, "ratio": float(law != "none")}
            found |= _named(f"{name}.{law}", learned(scenario, law, arguments, seed))
        for law in STREAMED if name == "T10" else ():
            arguments = {"mode": "stochastic", "ratio": budget / samples}
            found |= _named(f"stream.{law}", learned(replace(scenario, kind="online"), law, arguments, seed))
    return found


def stream(tasks: int, samples: int, seed: int, root: str | None, small: bool) -> Scenario:
    """Return `tasks` pixel orders of `samples` training images that `seed` draws; tested on all test images.

    Pixels are standardised by the mean and deviation of the training images.
    """
    data = load("fashion-mnist-small" if small else "mnist10k", root=None if small else root)
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:samples]
    assert data.test is not None
    mean, deviation = data.train.x.mean(), data.train.x.std()
    parts = (data.train.take(rows), data.test[: 500 if small else None])
    train, test = (replace(part, x=(part.x - mean) / deviation) for part in parts)
    return permuted((train, test), tasks, seed=seed)


def learned(scenario: Scenario, law: str, arguments: dict[str, object], seed: int) -> Figures:
    """Return accuracies after one pass over the stream (only the last row is measured), and what it cost."""
    kernel, alpha = LAWS[law]
    given = {"capacity": PER_TASK * len(scenario), "kernel": kernel, "alpha": alpha, "seed": seed, **arguments}
    strategy = plugins.find("strategy", "powerlaw")(**given)
    one = Learner(build(SPEC, seed=seed), strategy, optim=Optim(lr=LR), batch_size=BATCH, seed=seed, setting=scenario)
    begun = time.process_time()
    for experience in scenario:
        if scenario.kind == "online":  # nobody says where it begins or ends
            order = torch.randperm(len(experience.train), generator=one.random)
            one.partial_fit(experience.train.x[order], experience.train.y[order])
        else:
            one.fit(experience)
    spent = time.process_time() - begun
    last = torch.tensor([one.score(experience) for experience in scenario], dtype=torch.float64)
    matrix = torch.full((len(last), len(last)), torch.nan, dtype=torch.float64)
    matrix[-1] = last
    presented = one.counters["samples"] + one.counters["rehearsed"]
    flops = 3.0 * sum(forward_flops(one.model, torch.zeros(1, 1, 28, 28)).values()) * presented
    accuracies = {"acc": float(last.mean()), "need": need_weighted(matrix), "old": float(last[: len(last) // 2].mean())}
    counts = {what: float(one.counters[what]) for what in ("steps", "rehearsed")}
    return {**accuracies, **counts, "seconds": spent, "flops": flops}


def _named(name: str, figures: Figures) -> Figures:
    return {f"{name}.{what}": value for what, value in figures.items()}


def _minus(one: str, other: str, what: str = "acc") -> Callable[[Figures], float]:
    return lambda f: f[f"{one}.{what}"] - f[f"{other}.{what}"]


def _widening(f: Figures) -> float:
    return _minus("T30.power1", "T30.exp0.5")(f) - _minus("T10.power1", "T10.exp0.5")(f)


def _least_step(name: str) -> Callable[[Figures], float]:
    rising = ("power2", "power1", "power0.5", "uniform")
    return lambda f: min(f[f"{name}.{b}.acc"] - f[f"{name}.{a}.acc"] for a, b in pairwise(rising))


def _inequality(f: Figures) -> float:
    """Return by how much the runs of one stream differ in what they rehearse and in optimizer steps."""
    groups = [[f[f"{one}.rehearsed"] for one in REHEARSING if one.startswith(name)] for name in STREAMS]
    groups += [[f[f"{name}.{law}.steps"] for law in LAWS] for name in STREAMS]
    return max(max(group) - min(group) for group in groups)


PAPER = "better than rehearsal in environments without a power law, and than none (abstract)"
CLAIMS = [
    Claim("powerlaw-equal-cost", "spread of rehearsed samples and of optimizer steps between the laws of a stream",
          _inequality, "<=", 0.0, methods=["T10.none", *REHEARSING], smoke=True),
    Claim("powerlaw-none-t10", "power law minus no rehearsal, 10 tasks, 400 rehearsed beside 2,000: final accuracy",
          _minus("T10.power1", "T10.none"), ">", 0.03, PAPER, ["T10.power1", "T10.none"]),
    Claim("powerlaw-none-t30", "the same, 30 tasks, 200 rehearsed beside 1,000",
          _minus("T30.power1", "T30.none"), ">", 0.08, PAPER, ["T30.power1", "T30.none"]),
    Claim("powerlaw-exponential-t10", "power law minus exponential decay (.5), 10 tasks: final accuracy",
          _minus("T10.power1", "T10.exp0.5"), ">", 0.0, PAPER, ["T10.power1", "T10.exp0.5"]),
    Claim("powerlaw-exponential-t30", "the same, 30 tasks",
          _minus("T30.power1", "T30.exp0.5"), ">", 0.0, PAPER, ["T30.power1", "T30.exp0.5"]),
    Claim("powerlaw-exponential-widens", "that gap at 30 tasks minus that at 10", _widening, ">", 0.0, PAPER),
    Claim("powerlaw-uniform-t10", "power law minus uniform rehearsal, 10 tasks: final accuracy",
          _minus("T10.power1", "T10.uniform"), ">=", 0.0, PAPER, ["T10.power1", "T10.uniform"], required=False),
    Claim("powerlaw-uniform-t30", "the same, 30 tasks",
          _minus("T30.power1", "T30.uniform"), ">=", 0.0, PAPER, ["T30.power1", "T30.uniform"], required=False),
    Claim("powerlaw-uniform-need-t10", "power law minus uniform rehearsal, 10 tasks: need-weighted accuracy",
          _minus("T10.power1", "T10.uniform", "need"), ">=", 0.0, required=False),
    Claim("powerlaw-uniform-need-t30", "the same, 30 tasks",
          _minus("T30.power1", "T30.uniform", "need"), ">=", 0.0, required=False),
    Claim("powerlaw-monotone-t10", "least gain in final accuracy along alpha 2, 1, .5, 0 (uniform), 10 tasks",
          _least_step("T10"), ">", 0.0, required=False),
    Claim("powerlaw-monotone-t30", "the same, 30 tasks", _least_step("T30"), ">", 0.0, required=False),
    Claim("powerlaw-stream-none", "power law without boundaries minus no rehearsal, 10 tasks: final accuracy",
          _minus("stream.power1", "T10.none"), ">", 0.03, methods=["stream.power1"]),
    Claim("powerlaw-stream-exponential", "power law minus exponential decay (.5), both without boundaries",
          _minus("stream.power1", "stream.exp0.5"), ">", 0.0, methods=["stream.exp0.5"]),
    Claim("powerlaw-stream-uniform", "power law minus uniform rehearsal, both without boundaries",
          _minus("stream.power1", "stream.uniform"), ">=", 0.0, methods=["stream.uniform"], required=False),
]  # fmt: skip
STUDIES = [Study("powerlaw-permuted", run, CLAIMS, TUNED)]
