"""What a sample costs in four strategies, beside the same ones of Avalanche, all of whose metrics and loggers are off.

Two streams, one pass each: `long` (10 samples of two classes an experience, one step each, in the small model of
`speed/streams.py`, so that bookkeeping shows) and `split` (5 experiences of 2 classes, batches of 128, in the model of
`engine.py`). Model, weights, optimizer, batches and memory are the same for both, and so is the number of steps, or
the comparison is refused. The stream of `long` has 1,000 experiences for `naive` and `ewc`; for `replay` and `gem`,
where the cost of an experience grows with their number in Avalanche, it ends after 200, which is to its advantage.

What is not the same: the diagonal that `ewc` measures. Ours squares the gradients of single samples, at most 256 of
them; Avalanche squares the gradients of whole batches, over all samples. Both are what one gets by default.
CPU time is counted, in turns, experience by experience; making the streams is not counted.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import engine
import torch
from figures import figure, seconds
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import plugins
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.types import Batch, Experience
from speed import streams

MEMORY, LR, SHORT = 200, 0.05, 200
SPLIT_ROWS, SPLIT_SIZE = 10_000, 128
Fit = Callable[[int], object]


class Method(NamedTuple):
    """One method by both names, with the arguments that make it the same, and how long it is compared for."""

    ours: dict[str, Any]
    name: str
    theirs: dict[str, Any]
    length: int = streams.LENGTH


METHODS = {
    "naive": Method({}, "Naive", {}),
    "replay": Method({"capacity": MEMORY}, "Replay", {"mem_size": MEMORY}, SHORT),
    "ewc": Method({"pull": 100.0}, "EWC", {"ewc_lambda": 50.0, "mode": "online", "decay_factor": 1.0}),
    "gem": Method({"capacity": SHORT, "margin": 0.5}, "GEM", {"patterns_per_exp": 1, "memory_strength": 0.5}, SHORT),
}


def small(count: int) -> list[Batch]:
    """Return `count` experiences of `speed/streams.py`."""
    return [experience.train for experience in streams.Stream("class-il").experiences(0, count)]


def split(rows: int) -> list[Batch]:
    """Return five experiences of two classes of Fashion-MNIST, as many of the packaged images as asked for."""
    images, _ = engine.images(None, rows)
    return [images[(images.y // 2 == pair).nonzero().flatten()] for pair in range(5)]


def wide(spec: dict[str, Any]) -> dict[str, Any]:
    """Return `spec` with columns for all classes from the start: Avalanche's plain model does not grow."""
    return spec | {"head": {"name": "linear", "classes": streams.CLASSES}}


def ours(name: str, spec: dict[str, Any], parts: Sequence[Batch], size: int) -> tuple[Fit, Callable[[], int]]:
    """Return what learns an experience, and what says how many steps that took so far."""
    strategy = plugins.find("strategy", name)(**METHODS[name].ours)
    learner = Learner(build(wide(spec)), strategy, optim=Optim(lr=LR), batch_size=size)
    experiences = [Experience(i, f"part-{i}", sorted(set(p.y.tolist())), p) for i, p in enumerate(parts)]
    return lambda i: learner.fit(experiences[i]), lambda: learner.counters["steps"]


def plain(spec: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return the model of `spec` as one would write it, with the same weights, and its optimizer."""
    made = build(wide(spec))
    model = nn.Sequential(*made.backbone.layers, nn.Linear(made.dim, made.classes))
    with torch.no_grad():
        model[-1].weight.copy_(made.head.weight)
        model[-1].bias.copy_(made.head.bias)
    return model, torch.optim.SGD(model.parameters(), lr=LR)


def theirs(
    name: str, spec: dict[str, Any], parts: Sequence[Batch], size: int, *, bare: bool = True
) -> tuple[Fit, Callable[[], int]]:
    """Return the same of Avalanche; not `bare` leaves its metrics and loggers as they come."""
    warnings.simplefilter("ignore")  # deprecations of what it imports, and of what it calls itself
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import as_classification_dataset
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin

    held: list[Any] = [torch.utils.data.TensorDataset(part.x, part.y) for part in parts]
    for data, part in zip(held, parts, strict=True):
        data.targets = part.y.tolist()
    stream = list(benchmark_from_datasets(train=[as_classification_dataset(d) for d in held]).train_stream)
    model, optimizer = plain(spec)
    settings = {"criterion": nn.CrossEntropyLoss(), "train_mb_size": size, "train_epochs": 1, **METHODS[name].theirs}
    if bare:
        settings["evaluator"] = EvaluationPlugin(loggers=[])
    with contextlib.redirect_stdout(io.StringIO()):
        strategy = getattr(supervised, METHODS[name].name)(model=model, optimizer=optimizer, **settings)
    nowhere = io.StringIO()

    def fit(i: int) -> None:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            strategy.train(stream[i], eval_streams=[])

    return fit, lambda: strategy.clock.train_iterations


def by_hand(spec: dict[str, Any], parts: Sequence[Batch]) -> Fit:
    """Return the least that a step of naive training can cost: a loop without any check."""
    model, optimizer = plain(spec)
    random = torch.Generator().manual_seed(0)

    def fit(i: int) -> None:
        rows = torch.randperm(len(parts[i]), generator=random)
        loss = F.cross_entropy(model(parts[i].x.index_select(0, rows)), parts[i].y.index_select(0, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return fit


def ewc_by_hand(spec: dict[str, Any], parts: Sequence[Batch]) -> Fit:
    """Return the same for `ewc`: the loop, a penalty, and the squared gradients of single samples in closed form."""
    model, optimizer = plain(spec)
    weights, random = list(model.parameters()), torch.Generator().manual_seed(0)
    stiffness: list[Tensor] = []
    anchor: list[Tensor] = []

    def fisher(x: Tensor, y: Tensor) -> list[Tensor]:
        given, said = [], []
        for layer in model:
            if isinstance(layer, nn.Linear):
                given.append(x.detach())
                said.append(x := layer(x))
            else:
                x = layer(x)
        slopes = [s.square() for s in torch.autograd.grad(F.cross_entropy(x, y, reduction="sum"), said)]
        found = [(s.T @ a.square() / len(y), s.mean(0)) for s, a in zip(slopes, given, strict=True)]
        return [one for pair in found for one in pair]

    def fit(i: int) -> None:
        rows = torch.randperm(len(parts[i]), generator=random)
        x, y = parts[i].x.index_select(0, rows), parts[i].y.index_select(0, rows)
        loss = F.cross_entropy(model(x), y)
        for w, k, a in zip(weights, stiffness, anchor, strict=False):
            loss = loss + 50.0 * (k * (w - a).square()).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        new = fisher(x, y)
        stiffness[:] = [k + f for k, f in zip(stiffness, new, strict=True)] if stiffness else new
        anchor[:] = [w.detach().clone() for w in weights]

    return fit


def turns(fits: Sequence[Fit], count: int) -> list[float]:
    """Return the CPU seconds of each contender over all experiences but the first, where caches are filled."""
    gc.collect()
    spent = [0.0] * len(fits)
    for i in range(count):
        for which in (*range(i % len(fits), len(fits)), *range(i % len(fits))):
            cost = seconds(lambda run=fits[which], i=i: run(i))
            spent[which] += cost if i else 0.0
    return spent


def compared(name: str, spec: dict[str, Any], parts: Sequence[Batch], size: int) -> list[float]:
    """Return the CPU seconds of ours and theirs, in that order; both must have taken as many steps."""
    (mine, steps), (other, their_steps) = ours(name, spec, parts, size), theirs(name, spec, parts, size)
    spent = turns([mine, other], len(parts))
    if steps() != their_steps():
        raise SystemExit(f"avalanche: {name} took {steps()} steps here and {their_steps()} there; not comparable")
    return spent


def missing(name: str) -> str | None:
    """Return why there is nothing to compare with, None if there is."""
    if importlib.util.find_spec("avalanche") is None:
        return "avalanche is not installed"
    if name == "gem" and importlib.util.find_spec("quadprog") is None:
        return "avalanche's GEM needs the package quadprog"
    return None


def row(name: str, about: str, least: float, parts: Sequence[Batch], spec: dict[str, Any], size: int) -> dict[str, Any]:
    """Return one comparison: how many times cheaper ours is, the median of three runs."""
    skipped, runs, samples = missing(name), [], sum(map(len, parts[1:]))
    if not skipped:
        runs = [compared(name, spec, parts, size) for _ in range(3)]
    value = statistics.median(other / mine for mine, other in runs) if runs else None
    found = figure(f"{about}_{name}_avalanche_over_ours", value, "times", ">=", least)
    if skipped:
        return found | {"skipped": skipped}
    micro = [round(statistics.median(run[i] for run in runs) / samples * 1e6, 1) for i in (0, 1)]
    return found | {"us_per_sample": micro[0], "avalanche_us_per_sample": micro[1], "experiences": len(parts)}


def floor() -> Iterator[dict[str, Any]]:
    """Yield what the goals mean: what loops by hand gain, and what metrics and loggers cost."""
    if missing("naive"):
        return
    parts = small(SHORT)
    for name, by_itself in (("naive", by_hand), ("ewc", ewc_by_hand)):
        arguments = (name, streams.SPEC, parts, streams.SIZE)
        fits = [by_itself(streams.SPEC, parts), ours(*arguments)[0], theirs(*arguments)[0]]
        hand, mine, bare = turns(fits, SHORT)
        yield figure(f"long_{name}_avalanche_over_by_hand_floor", bare / hand, "times")
        yield figure(f"long_{name}_ours_over_by_hand", mine / hand, "ratio")
    arguments = ("naive", streams.SPEC, parts, streams.SIZE)
    mine, default = turns([ours(*arguments)[0], theirs(*arguments, bare=False)[0]], SHORT)
    yield figure("long_naive_avalanche_with_its_metrics_over_ours", default / mine, "times")


def rows() -> Iterator[dict[str, Any]]:
    """Yield one row per method and stream."""
    for name, method in METHODS.items():
        yield row(name, "long", 4.0, small(method.length), streams.SPEC, streams.SIZE)
    yield from floor()
    images = split(SPLIT_ROWS)
    for name in ("replay", "ewc"):
        yield row(name, "split", 2.0, images, engine.SPEC, SPLIT_SIZE)
