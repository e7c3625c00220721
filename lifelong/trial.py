"""The small stream and learner on which the laws of `lifelong.checks` are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from lifelong import files
from lifelong.learning import Learner, Optim, Strategy
from lifelong.learning.checkpoint import pack
from lifelong.learning.strategy import State
from lifelong.models import build
from lifelong.types import Batch, Experience

WIDTH, PER_CLASS, FEATURES = 12, 40, 63
Make = Callable[..., Strategy]  # called with a constructor's keyword arguments, or none


@dataclass(frozen=True, slots=True)
class Toy:
    """A stream of Gaussian classes, small enough to run hundreds of times; of two that move, if it is domain-il."""

    kind: str = "class-il"
    provides: frozenset[str] = frozenset({"boundaries", "epochs", "known_classes", "task_id"})

    def experiences(self, count: int = 3, per_class: int = PER_CLASS) -> Iterator[Experience]:
        """Yield `count` experiences of two classes each; labels are strings."""
        random = torch.Generator().manual_seed(7)
        centres = torch.randn(2 * count, WIDTH, generator=random)
        for index in range(count):
            y = torch.arange(2 * index, 2 * index + 2).repeat(per_class)
            x = centres[y] + 0.3 * torch.randn(len(y), WIDTH, generator=random)
            ids = torch.arange(len(y)) + index * 100_000
            first = 0 if self.kind == "domain-il" else 2 * index  # of its two classes
            data, names = Batch.of(x, y - 2 * index + first, ids), [f"class-{c}" for c in range(2 * count)]
            yield Experience(
                index, f"toy-{index}", names[first : first + 2], data, data, task=self._task(index), names=names
            )

    def recurring(self, count: int, size: int = 64) -> Iterator[Experience]:
        """Yield `count` experiences of `size` samples that hold two of four classes in turn; each is a task."""
        random = torch.Generator().manual_seed(7)
        centres = torch.randn(4, WIDTH, generator=random)
        for index in range(count):
            y = torch.arange(size) % 2 + 2 * (index % 2)
            x = centres[y] + 0.3 * torch.randn(size, WIDTH, generator=random)
            data = Batch.of(x, y, torch.arange(size) + index * size)
            yield Experience(index, f"toy-{index}", y[:2].tolist(), data, task=self._task(index))

    def _task(self, index: int) -> int:
        return index if self.kind in ("task-il", "domain-il") else -1


def learner(strategy: Strategy, kind: str = "class-il", seed: int = 0, lr: float | None = None) -> Learner:
    """Return a fresh learner of a small MLP with `strategy`, for a scenario of `kind`."""
    spec = {
        "backbone": {"name": "mlp", "inputs": [WIDTH], "hidden": [24], "features": FEATURES},
        "head": {"name": "linear"},
    }
    lr = lr or (0.05 if kind == "domain-il" else 0.1)  # weights scaled by task are steep
    optim = Optim(lr=lr, momentum=0.9)
    return Learner(build(spec, seed=seed), strategy, optim=optim, batch_size=16, seed=seed, setting=Toy(kind))


def digest(state: State) -> str:
    """Return the SHA-256 of a state: equal for equal bits, whatever the order of its keys."""
    tensors, plain = pack(state)
    shapes = {path: [str(t.dtype), list(t.shape)] for path, t in tensors.items()}
    body = b"".join(tensors[path].numpy().tobytes() for path in sorted(tensors))
    return files.digest(files.canonical_json({"plain": plain, "shapes": shapes}) + body)


def kind(make: Make) -> str:
    """Return the kind of stream that a strategy is tried on."""
    scenarios = make().needs.scenarios
    return "class-il" if "class-il" in scenarios else sorted(scenarios)[0]


def trained(make: Make, like: Make | None = None, /, **arguments: Any) -> Learner:  # noqa: ANN401
    """Return a learner that has learned two experiences, in the kind of stream of the strategy that it is `like`."""
    of = kind(like or make)
    made = learner(make(**arguments), of)
    for experience in Toy(of).experiences(2):
        made.fit(experience, 2)
    return made


def small(make: Make, capacity: int = 50) -> Strategy:
    """Return a strategy with a memory that the toy stream fills."""
    try:
        return make(capacity=capacity)
    except TypeError:  # it has none
        return make()
