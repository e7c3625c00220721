"""What the engine costs: CPU time of one naive pass in our loop, in a hand-written torch loop, and in Avalanche.

    python benchmarks/engine.py --json --out benchmarks/results/engine.json

Same model (784-256-10), data (60,000 images, in 8 parts), batch size (128), optimizer (SGD) and thread count (1) for
all. Avalanche runs twice: as `Naive` is made by default, and with all its metrics and loggers off. Ours and the
hand-written loop start at the same weights and draw the same orders: they must end at the same weights, bit for bit, or
the comparison is refused. CPU time is counted, not wall time. It still depends on what else runs on the machine, so the
contenders take turns part by part, each in each place equally often; a ratio is the median, over the passes, of the
ratio of two passes' totals.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from figures import figure, show, write
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import data
from lifelong.errors import LifelongError
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.types import Batch, Experience
from strategies.naive import Naive

SPEC = {
    "backbone": {"name": "mlp", "inputs": [784], "hidden": [256]},
    "head": {"name": "linear", "classes": 10},
}
SIZE, LR, SEED = 128, 0.05, 0
MISSING = "avalanche is not installed, or was left out"
PARTS = 8  # few: each is an experience, and what a `fit` costs is not what a step costs


class Contender(NamedTuple):
    """A model in training: `train(i)` passes over part i of the data, `weights()` says where that led."""

    train: Callable[[int], object]
    weights: Callable[[], list[Tensor]]


Start = Callable[[list[Batch]], Contender]


def ours(parts: list[Batch]) -> Contender:
    """`naive` in the Learner."""
    learner = Learner(build(SPEC, seed=SEED), Naive(), optim=Optim(lr=LR), batch_size=SIZE, seed=SEED)
    steps = [Experience(i, f"part-{i}", range(10), part) for i, part in enumerate(parts)]
    return Contender(lambda i: learner.fit(steps[i]), lambda: [p.detach() for p in learner.model.parameters()])


def by_hand(parts: list[Batch]) -> Contender:
    """The loop that one would write oneself, without any check: rows by index_select."""
    model, optimizer = _plain()
    random = torch.Generator().manual_seed(SEED)

    def train(i: int) -> None:
        x, y = parts[i].x, parts[i].y
        order = torch.randperm(len(y), generator=random)
        for at in range(0, len(y), SIZE):
            rows = order[at : at + SIZE]
            loss = F.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return Contender(train, lambda: [p.detach() for p in model.parameters()])


def avalanche(*, metrics: bool) -> Start | None:
    """Avalanche's Naive, as it comes or with all metrics and loggers off; None where it is not installed."""
    warnings.simplefilter("ignore")  # deprecations of what it imports, and the warning that nothing is logged
    try:
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import as_classification_dataset
        from avalanche.training.plugins import EvaluationPlugin
        from avalanche.training.supervised import Naive as TheirNaive
    except ImportError:
        return None

    def start(parts: list[Batch]) -> Contender:
        model, optimizer = _plain()
        held: list[Any] = [torch.utils.data.TensorDataset(part.x, part.y) for part in parts]
        for data_set, part in zip(held, parts, strict=True):
            data_set.targets = part.y.tolist()
        stream = benchmark_from_datasets(train=[as_classification_dataset(d) for d in held]).train_stream
        chosen = {} if metrics else {"evaluator": EvaluationPlugin(loggers=[])}
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere):
            theirs = TheirNaive(model=model, optimizer=optimizer, train_mb_size=SIZE, train_epochs=1, **chosen)

        def train(i: int) -> None:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                theirs.train(stream[i], eval_streams=[])

        return Contender(train, lambda: [p.detach() for p in model.parameters()])

    return start


def images(root: str | None, rows: int) -> tuple[Batch, dict[str, Any]]:
    """Return `rows` Fashion-MNIST images `[N, 784]` and what they are; a subset is drawn from with repeats."""
    found = data.load("fashion-mnist", root=root)
    x, y = found.train.x.flatten(1), found.train.y
    facts = {"name": found.name, "sha256": found.sha256, "images": len(y), "rows": rows, "repeated": len(y) < rows}
    if len(y) >= rows:
        return Batch.of(x[:rows], y[:rows]), facts
    pick = torch.randint(len(y), (rows,), generator=torch.Generator().manual_seed(SEED))
    return Batch.of(x[pick], y[pick]), facts


def measure(samples: Batch, starts: dict[str, Start], passes: int) -> dict[str, list[list[float]]]:
    """Return CPU seconds `[passes][PARTS]` by contender; ours must have done the same work as the one by hand."""
    parts = [samples[rows] for rows in torch.arange(len(samples)).chunk(PARTS)]
    names = list(starts)
    circle = [names[i:] + names[:i] for i in range(len(names))]  # each is first, second, ... equally often,
    turns = [*circle, *(turn[::-1] for turn in circle)]  # and after either neighbour
    for start in starts.values():
        start(parts).train(0)  # imports, allocator, caches
    gc.collect()
    gc.freeze()  # what was imported is nobody's garbage: a full collection would hit one of them by chance
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(passes):
        running = {name: start(parts) for name, start in starts.items()}
        spent: dict[str, list[float]] = {name: [] for name in names}
        for i in range(PARTS):
            for name in turns[i % len(turns)]:  # nobody is always first, or always after the same one
                begun = time.process_time()
                running[name].train(i)
                spent[name].append(time.process_time() - begun)
        for name in names:
            seconds[name].append(spent[name])
        if not all(map(torch.equal, running["ours"].weights(), running["by_hand"].weights())):
            raise SystemExit("engine: ours and the hand-written loop end at different weights; they are not comparable")
    return seconds


def figures(seconds: dict[str, list[list[float]]], samples: int) -> list[dict[str, Any]]:
    """Return one row per figure: name, value, unit, goal (None: for information) and whether it holds."""
    total = {name: statistics.median(map(sum, passes)) for name, passes in seconds.items()}
    rows = [figure(f"engine_{name}_cpu_seconds", value, "s") for name, value in total.items()]
    steps = PARTS * -(-(samples // PARTS) // SIZE)
    for name in [n for n in seconds if n != "by_hand"]:
        extra = statistics.median(sum(a) - sum(b) for a, b in zip(seconds[name], seconds["by_hand"], strict=True))
        rows.append(figure(f"engine_{name}_overhead_per_step", extra / steps * 1e6, "us"))
    for other, limit in (("by_hand", 1.05), ("avalanche", 0.5), ("avalanche_bare", 0.5)):
        row = figure(f"engine_ours_over_{other}", _ratio(seconds, other), "ratio", "<=", limit)
        rows.append(row if row["value"] is not None else row | {"skipped": MISSING})
    return rows


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA"), help="folder with Fashion-MNIST")
    parser.add_argument("--rows", type=int, default=60_000, help="training images (default: 60000)")
    parser.add_argument("--passes", type=int, default=9, help="passes over the data (default: 9)")
    parser.add_argument("--no-avalanche", action="store_true", help="leave Avalanche out")
    parser.add_argument("--out", type=Path, help="also write the figures, the data and the commit to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    samples, source = images(args.data_root, args.rows)
    starts: dict[str, Start] = {"ours": ours, "by_hand": by_hand}
    for name, metrics in (("avalanche", True), ("avalanche_bare", False)):
        if not args.no_avalanche and (theirs := avalanche(metrics=metrics)):
            starts[name] = theirs
    rows = figures(measure(samples, starts, args.passes), len(samples))
    print(f"data: {json.dumps(source)}", file=sys.stderr)
    for row in rows:
        show(row, args.json)
    if args.out:
        write(args.out, {"benchmark": "engine", "data": source, "passes": args.passes, "threads": 1}, rows)
    return 1 if any(row["holds"] is False for row in rows) else 0


def _plain() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model of `SPEC` as one would write it, with the same weights, and its optimizer."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    with torch.no_grad():
        for mine, other in zip(model.parameters(), build(SPEC, seed=SEED).parameters(), strict=True):
            mine.copy_(other)
    return model, torch.optim.SGD(model.parameters(), lr=LR)


def _ratio(seconds: dict[str, list[list[float]]], other: str) -> float | None:
    if other not in seconds:
        return None
    return statistics.median(sum(a) / sum(b) for a, b in zip(seconds["ours"], seconds[other], strict=True))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LifelongError as error:
        print(f"engine: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
