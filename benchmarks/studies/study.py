"""A study trains some methods on one stream and seed; its claims are judged on the figures of all seeds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from figures import OPERATIONS

from lifelong.bench.compute import forward_flops
from lifelong.bench.matrix import AccuracyMatrix
from lifelong.bench.spread import spread
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.streams.scenario import Scenario

Figures = dict[str, float]  # "METHOD.what" -> number; accuracies are shares (0..1)
COSTS = ("rehearsed", "seconds", "flops")


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence that the figures of a study bear out, or do not.

    Args:
        name: Permanent id of the row.
        about: The claim, in words.
        ours: One seed's figures -> the number that is judged.
        operation: `>`, `>=`, `<`, `<=` or `|x| <=`, applied to the mean over seeds.
        limit: What it is compared with.
        paper: The number or claim of the paper, as far as it is known.
        methods: Whose cost is shown beside it.
        required: False reports a number for which nothing was promised.
        smoke: It is expected to hold in the small version as well.
    """

    name: str
    about: str
    ours: Callable[[Figures], float]
    operation: str
    limit: float
    paper: str | None = None
    methods: Sequence[str] = ()
    required: bool = True
    smoke: bool = False

    def row(self, found: Sequence[Figures]) -> dict[str, Any]:
        """Return the claim's row for the figures of all seeds."""
        values = [self.ours(one) for one in found]
        known = spread(values)
        mean = known.mean
        costs = {method: _costs(method, found) for method in self.methods}
        return {
            "name": self.name,
            "about": self.about,
            "paper": self.paper,
            "ours": round(mean, 5),
            "sd": round(known.sd, 5) if len(values) > 1 else None,
            "ci95": [round(known.low, 5), round(known.high, 5)] if len(values) > 1 else None,  # of the mean
            "seeds": len(values),
            "goal": f"{self.operation} {self.limit:g}",
            "holds": OPERATIONS[self.operation](mean, self.limit),
            "required": self.required,
            "values": [round(value, 5) for value in values],
            "cost": costs,
        }


def _costs(method: str, found: Sequence[Figures]) -> dict[str, float]:
    keys = {cost: f"{method}.{cost}" for cost in COSTS}
    means = {cost: statistics.fmean(one[key] for one in found) for cost, key in keys.items() if key in found[0]}
    return {cost: float(f"{mean:.4g}") for cost, mean in means.items()}


@dataclass(frozen=True, slots=True)
class Study:
    """What is trained, and what is claimed of it.

    Args:
        name: Of the study.
        run: Seed, data root, whether to make it small -> the figures of one seed; a function of a module's top level.
        claims: Judged on what it returns.
        tuned: How the settings were chosen (never on what is reported here).
        seeds: Which seeds to run.
    """

    name: str
    run: Callable[[int, str | None, bool], Figures]
    claims: Sequence[Claim]
    tuned: str
    seeds: Sequence[int] = range(5)


def train(
    scenario: Scenario,
    strategy: Strategy,
    spec: Mapping[str, Any],
    *,
    optim: Optim,
    batch_size: int = 32,
    epochs: int = 1,
    seed: int = 0,
    shuffle: bool = True,
) -> tuple[Learner, AccuracyMatrix, Figures]:
    """Learn a scenario; return the learner, the whole accuracy matrix, and what it cost.

    `flops` are those of the model's forward and backward passes over all samples presented, three forward passes each;
    what a method adds beside them (bases, Fisher information, key search) is in the seconds only.
    """
    passes: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "shuffle": shuffle}
    learner = Learner(build(spec, seed=seed), strategy, optim=optim, setting=scenario, **passes)
    experiences = list(scenario.experiences)
    matrix = AccuracyMatrix(len(experiences))
    spent, presented = 0.0, 0
    for experience in experiences:
        begun, before = time.process_time(), learner.counters["samples"] + learner.counters["rehearsed"]
        learner.fit(experience, epochs)
        spent += time.process_time() - begun
        presented += learner.counters["samples"] + learner.counters["rehearsed"] - before
        matrix.add([learner.score(e) for e in experiences])
    x = next(iter(experiences[0].batches(1, None, learner.labels))).x
    per_sample = sum(forward_flops(learner.model, x).values())
    cost = {"rehearsed": float(learner.counters["rehearsed"]), "seconds": spent, "flops": 3.0 * per_sample * presented}
    return learner, matrix, cost


def named(method: str, matrix: AccuracyMatrix, cost: Figures) -> Figures:
    """Return `METHOD.acc`, `METHOD.bwt` and the costs."""
    summary = matrix.summary()
    found = {"acc": summary["acc_final"], "bwt": summary["bwt_gem"], **cost}
    return {f"{method}.{what}": value for what, value in found.items()}
