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
TURNS = 3  # pairs of learners; the figure is the median over them
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
    if strategy.needs.task_id:
        return strategy, "task-il"
    return strategy, "class-il" if "class-il" in kinds else sorted(kinds)[0]


def learner(strategy: Strategy, kind: str) -> Learner:
    """Return a fresh learner of a small MLP: what is not the model's work shows."""
    return Learner(build(SPEC), strategy, optim=Optim(lr=0.05), batch_size=SIZE, setting=Stream(kind))


def pair(name: str, length: int) -> tuple[float, float]:
    """Return the CPU seconds of the first and of the last tenth."""
    strategy, kind = made(name)
    early, late, stream, tenth = learner(strategy, kind), learner(made(name)[0], kind), Stream(kind), length // 10
    for experience in stream.experiences(0, FILL):
        early.fit(experience)
    for experience in stream.experiences(0, FILL + length - tenth):
        late.fit(experience)
    gc.collect()
    spent = [0.0, 0.0]
    ends = zip(
        stream.experiences(FILL, FILL + tenth), stream.experiences(FILL + length - tenth, FILL + length), strict=True
    )
    for turn, (first, last) in enumerate(ends):
        runs = [(0, lambda one=first: early.fit(one)), (1, lambda one=last: late.fit(one))]
        for which, run in runs if turn % 2 else runs[::-1]:
            spent[which] += seconds(run)
    return spent[0], spent[1]


def flat(name: str, length: int = LENGTH, turns: int = TURNS) -> dict[str, Any]:
    """Return a strategy's row: what the last tenth cost over what the first one cost."""
    pairs = [pair(name, length) for _ in range(turns)]
    value = statistics.median(last / first for first, last in pairs)
    strategy, kind = made(name)
    row = figure(f"stream_{name}_last_over_first", value, "ratio", "<=", 1.2)
    reason = strategy.exempt.get("flat cost") or (None if strategy.needs.bounded else "it keeps everything")
    if reason:
        row |= {"goal": None, "holds": None, "exempt": reason}
    micro = statistics.median(last for _, last in pairs) / (length // 10 * SIZE) * 1e6
    return row | {"kind": kind, "us_per_sample": round(micro, 1)}


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row per installed strategy."""
    for name in plugins.names("strategy"):
        yield flat(name)
