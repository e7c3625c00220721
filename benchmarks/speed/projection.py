"""What gradient projection costs beside plain SGD, and what a basis costs beside a singular value decomposition.

A step's cost hangs on the batch size: a product of a layer's weights with its memory costs the same for any batch, the
layer itself more for a larger one. The goal is read at batches of 256, where it was set before anything was made
faster; 32 (what `studies/projection.py` trains with) and 512 are there to see. Where multiplications alone are more
than the goal, no code for these products can hold it; with small batches most of a plain step is not multiplication,
so the measured ratio may lie below that of the multiplications.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from figures import figure, ratio, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lifelong.learning import Learner, Optim, Strategy
from lifelong.learning.projection import added, grown
from lifelong.models import build
from lifelong.streams.scenario import Scenario
from lifelong.streams.scenarios import scenario
from lifelong.types import Batch, Experience, Output
from strategies.cuber import CUBER
from strategies.gpm import GPM
from strategies.trgp import TRGP

MLP: dict[str, Any] = {"name": "mlp", "inputs": [1, 28, 28], "hidden": [100, 100]}
CONV: dict[str, Any] = {"name": "conv", "inputs": [1, 28, 28], "channels": [32, 64], "features": 128}
SHARES = [0.95, 0.99, 0.99]
TASKS = 2  # finished before the steps that are timed: the first moment with two related tasks per layer
SEEN = 1024  # samples of each
GRAPHED = "plain SGD by autograd"
GOAL = 256  # the batch size that the goal is read at; other sizes show where it would hold


class Graphed(Strategy):
    """Plain SGD through autograd: what may replace the loss is not differentiated by hand."""

    def loss(self, model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        """Leave it as it is."""
        return None


def strategies(shares: float | Sequence[float]) -> dict[str, Strategy]:
    """Return the contenders; CUBER with all related spans free, which is where it costs most."""
    free = partial(CUBER, 0.5, -1.0, pull=0.1, threshold=shares, growth=0)
    return {
        "naive": Strategy(),
        GRAPHED: Graphed(),
        "gpm": GPM(shares, growth=0),
        "trgp": TRGP(0.5, shares, growth=0),
        "cuber": free(check_every=10**6),
        "cuber, check every step": free(check_every=1),
    }


def ready(strategy: Strategy, backbone: dict[str, Any], stream: Scenario, size: int) -> Callable[[int], None]:
    """Return what takes a number of training steps of `size` samples in the third task, second pass."""
    spec = {"backbone": backbone, "head": {"name": "linear"}}
    learner = Learner(build(spec), strategy, optim=Optim(lr=0.01), batch_size=size, setting=stream)
    for index, e in enumerate(stream.experiences[: TASKS + 1]):
        part: Any = e.train
        few = Experience(index, e.name, e.classes, part[:SEEN], task=e.task, names=e.names)
        if index < TASKS:
            learner.fit(few)
    learner.begin(few)  # the task stays open: what is timed is a step inside of it
    learner.model.train()
    batches: list[Batch] = list(few.batches(size, None, learner.labels))
    for batch in [*batches, *batches][: max(len(batches), 8)]:  # the first pass, and the looks
        learner.step(batch)

    def steps(count: int) -> None:
        for i in range(count):
            learner.step(batches[i % len(batches)])

    return steps


def step_ratios(made: dict[str, Callable[[int], None]], count: int, turns: int) -> dict[str, float]:
    """Return the median over turns of each contender's CPU time over that of naive training."""
    found: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(turns + 1):
        order = list(made) if turn % 2 else list(made)[::-1]
        spent = {name: seconds(partial(made[name], count)) for name in order}
        for name in made if turn else ():  # the first turn warms up
            found[name].append(spent[name] / spent["naive"])
    return {name: statistics.median(values) for name, values in found.items()}


def in_place(_: Sequence[int], one: Sequence[int], other: Sequence[int], **__: object) -> int:
    """Return the operations of `x.addmm_(one, other)` from its shapes: torch counts only the other kind."""
    return 2 * one[0] * one[1] * other[1]


def products(made: dict[str, Callable[[int], None]]) -> dict[str, float]:
    """Return the multiplications of each contender's step over those of naive training."""
    counted = {}
    for name, steps in made.items():
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
            steps(1)
        counted[name] = float(counter.get_total_flops())
    return {name: flops / counted["naive"] for name, flops in counted.items()}


def network(name: str, backbone: dict[str, Any], stream: Scenario, size: int, limit: float | None) -> Iterator[Any]:
    """Yield one row per strategy: time of its step over that of plain SGD."""
    shares: float | list[float] = SHARES if backbone is MLP else 0.97
    torch.set_num_threads(1)
    made = {n: ready(s, backbone, stream, size) for n, s in strategies(shares).items()}
    count = max(4, 4096 // size) if backbone is MLP else 4
    floor = products(made)
    values = step_ratios(made, count, 7)
    yield figure(f"cuber: step / {GRAPHED}, {name}, batch {size}", values["cuber"] / values[GRAPHED], "x")
    for strategy, value in values.items():
        if strategy != "naive":
            row = f"{strategy}: step / plain SGD, {name}, batch {size}"
            yield figure(row, value, "x", *(("<=", limit) if limit and strategy == "cuber" else ()))
            yield figure("  its multiplications / those of plain SGD", floor[strategy], "x")


def basis(wide: int = 576, patches: int = 21_600) -> Iterator[Any]:
    """Yield how many times faster a layer's basis is found from its Gram matrix than by a full decomposition."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(patches, wide, generator=random) * 0.98 ** torch.arange(wide)
    empty = torch.zeros(wide, 0)

    def ours() -> Tensor:
        gram = None
        for part in rows.split(2160):
            gram = added(gram, part)
        assert gram is not None
        return grown(empty, gram, 0.97)

    def theirs() -> Tensor:
        u, s, _ = torch.linalg.svd(rows.T, full_matrices=False)
        return u[:, : int((s.square().cumsum(0) < 0.97 * s.square().sum()).sum()) + 1]

    found, expected = ours(), theirs()
    assert found.shape == expected.shape
    assert torch.allclose(found @ found.T, expected @ expected.T, atol=1e-3)
    value, slow, fast = ratio(theirs, ours, 3)
    yield figure(f"basis of {wide} x {patches:,}: decomposition / ours", value, "x", ">=", 10)
    yield figure("  decomposition", slow, "s")
    yield figure("  ours", fast, "s")


def rows() -> Iterator[dict[str, Any]]:
    """Yield all rows; packaged data."""
    torch.set_num_threads(1)
    yield from basis()
    orders = scenario("permuted-fmnist-tasks-small")
    for size in (32, 256, 512):
        limit = 1.5 if size == GOAL else None
        yield from network("MLP 784-100-100", MLP, orders, size, limit)
    yield from network("conv 32-64-128", CONV, scenario("task-fmnist-small"), 64, 1.3)
