"""Whether a sample costs at the end of a long stream what it cost at its start: 1,000 experiences of 10 samples.

Every installed strategy meets the same stream. Its memory holds 50 samples or experiences, and the first 100
experiences, which fill it, come before the first tenth and are not counted: a memory that still fills is cheaper, and
says nothing about the stream's length. CPU time depends on what else runs on the machine, so the first and the last
tenth take turns, experience by experience: one learner stands at the start of the stream while another, made alike,
has come to its end.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from figures import figure, seconds

from lifelong import plugins
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.types import Batch, Experience

FILL, LENGTH, SIZE, CAPACITY = 100, 1000, 10, 50
SLICES = 10  # of a tenth; the figure is the median over them
CLASSES, WIDTH = 10, 32
SPEC = {
    "backbone": {"name": "mlp", "inputs": [WIDTH], "hidden": [64], "features": 63},
    "head": {"name": "linear"},
}
# What keeps a strategy of the defaults from doing its work in experiences of one step, or makes it slow for nothing.
SETTINGS: dict[str, dict[str, Any]] = {
    "dkvb": {"books": 8, "pairs": 32},
    "gdumb": {"epochs": 1},
    "trgp": {"looks": 1},
    "cuber": {"looks": 1},
}
BY_TASK = "it compares each task with all earlier ones, and keeps a basis of each: that is the method"
ALL_SO_FAR = "it passes over all samples so far: that is the method"
EXEMPT = {"trgp": BY_TASK, "cuber": BY_TASK, "joint": ALL_SO_FAR, "cumulative": ALL_SO_FAR}
LEFT_OUT = {"bt2"}  # each experience makes a version that is wider: after a thousand of them, by 16,000 coordinates


@dataclass(frozen=True, slots=True)
class Stream:
    """Two of ten Gaussian classes in each experience, in turn: after five of them nothing new comes."""

    kind: str
    provides: frozenset[str] = frozenset({"boundaries", "epochs", "known_classes", "task_id"})

    def experiences(self, start: int, stop: int) -> Iterator[Experience]:
        """Yield the experiences from `start` on, short of `stop`."""
        centres = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
        for index in range(start, stop):
            random = torch.Generator().manual_seed(index)
            y = (torch.arange(SIZE) % 2 + 2 * index) % CLASSES
            x = centres[y] + 0.5 * torch.randn(SIZE, WIDTH, generator=random)
            data, task = Batch.of(x, y, torch.arange(SIZE) + SIZE * index), index if self.kind == "task-il" else -1
            yield Experience(index, f"part-{index}", y[:2].tolist(), data, task=task)


def made(name: str) -> tuple[Strategy, str]:
    """Return a small strategy, and the kind of stream that it is tried on."""
    make, settings = plugins.find("strategy", name), SETTINGS.get(name, {})
    try:
        strategy = make(capacity=CAPACITY, **settings)
    except TypeError:  # it has no memory of samples
        strategy = make(**settings)
    kinds = strategy.needs.scenarios
    if name in ("trgp", "cuber"):  # both do their whole work only where tasks have ids
        return strategy, "task-il"
    return strategy, "class-il" if "class-il" in kinds else sorted(kinds)[0]


def learner(strategy: Strategy, kind: str) -> Learner:
    """Return a fresh learner of a small MLP: what is not the model's work shows."""
    return Learner(build(SPEC), strategy, optim=Optim(lr=0.05), batch_size=SIZE, setting=Stream(kind))


def tenths(name: str, length: int) -> tuple[list[float], list[float]]:
    """Return the CPU seconds of the slices of the first tenth, and of the last."""
    strategy, kind = made(name)
    early, late, stream, tenth = learner(strategy, kind), learner(made(name)[0], kind), Stream(kind), length // 10
    for experience in stream.experiences(0, FILL):
        early.fit(experience)
    for experience in stream.experiences(0, FILL + length - tenth):
        late.fit(experience)
    gc.collect()
    spent = ([0.0] * SLICES, [0.0] * SLICES)
    ends = zip(
        stream.experiences(FILL, FILL + tenth), stream.experiences(FILL + length - tenth, FILL + length), strict=True
    )
    for turn, (first, last) in enumerate(ends):
        runs = [(0, lambda one=first: early.fit(one)), (1, lambda one=last: late.fit(one))]
        for which, run in runs if turn % 2 else runs[::-1]:
            spent[which][turn * SLICES // tenth] += seconds(run)
    return spent


def flat(name: str, length: int = LENGTH) -> dict[str, Any]:
    """Return a strategy's row: what the last tenth cost over what the first one cost."""
    first, last = tenths(name, length)
    value = statistics.median(late / early for early, late in zip(first, last, strict=True))
    row = figure(f"stream_{name}_last_over_first", value, "ratio", "<=", 1.2)
    if name in EXEMPT:
        row |= {"goal": None, "holds": None, "exempt": EXEMPT[name]}
    micro = sum(last) / (length // 10 * SIZE) * 1e6
    return row | {"kind": made(name)[1], "us_per_sample": round(micro, 1)}


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row per installed strategy, but for those that are left out."""
    for name in sorted(set(plugins.names("strategy")) - LEFT_OUT):
        shorter = {"length": LENGTH // 10} if name in EXEMPT else {}  # a thousand would take hours to say the same
        yield flat(name, **shorter)
