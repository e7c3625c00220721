"""What the engine costs: CPU time of one naive pass in our loop, in a hand-written torch loop, and in Avalanche.

    python benchmarks/engine.py --json --out benchmarks/results/engine.json

Same model (784-256-10), data (60,000 images), batch size (128), optimizer (SGD) and thread count (1) for all. Ours and
the hand-written loop start at the same weights and draw the same order: they must end at the same weights, bit for
bit, or the comparison is refused. CPU time, not wall time: other programs on the machine count less. Repetitions are
interleaved, and a ratio is the median of the ratios within each repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import data
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.types import Batch, Experience
from strategies.naive import Naive

SPEC = {
    "backbone": {"name": "mlp", "inputs": [784], "hidden": [256]},
    "head": {"name": "linear", "classes": 10},
}
SIZE, LR, SEED = 128, 0.05, 0
Weights = list[Tensor]
Contender = Callable[[Batch], tuple[float, Weights]]


def ours(samples: Batch) -> tuple[float, Weights]:
    """One pass of `naive` in the Learner."""
    learner = Learner(build(SPEC, seed=SEED), Naive(), optim=Optim(lr=LR), batch_size=SIZE, seed=SEED)
    experience = Experience(0, "all", range(10), samples)
    start = time.process_time()
    learner.fit(experience)
    return time.process_time() - start, [p.detach() for p in learner.model.parameters()]


def by_hand(samples: Batch) -> tuple[float, Weights]:
    """The loop that one would write oneself, without any check: rows by index_select."""
    model, optimizer = _plain()
    random = torch.Generator().manual_seed(SEED)
    start = time.process_time()
    order = torch.randperm(len(samples), generator=random)
    for at in range(0, len(samples), SIZE):
        rows = order[at : at + SIZE]
        loss = F.cross_entropy(model(samples.x.index_select(0, rows)), samples.y.index_select(0, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - start, [p.detach() for p in model.parameters()]


def avalanche() -> Contender | None:
    """One pass of Avalanche's Naive, metrics and loggers off; None where it is not installed."""
    warnings.simplefilter("ignore")  # deprecations of what it imports, and the warning that nothing is logged
    try:
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import as_classification_dataset
        from avalanche.training.plugins import EvaluationPlugin
        from avalanche.training.supervised import Naive as TheirNaive
    except ImportError:
        return None

    def run(samples: Batch) -> tuple[float, Weights]:
        model, optimizer = _plain()
        held: Any = torch.utils.data.TensorDataset(samples.x, samples.y)
        held.targets = samples.y.tolist()
        stream = benchmark_from_datasets(train=[as_classification_dataset(held)]).train_stream
        quiet = EvaluationPlugin(loggers=[])
        theirs = TheirNaive(model=model, optimizer=optimizer, train_mb_size=SIZE, train_epochs=1, evaluator=quiet)
        start = time.process_time()
        theirs.train(stream[0], eval_streams=[], num_workers=0)
        return time.process_time() - start, [p.detach() for p in model.parameters()]

    return run


def images(root: str | None, rows: int) -> tuple[Batch, str]:
    """Return `rows` Fashion-MNIST images `[N, 784]` and where they are from; the packaged subset is resampled."""
    found = data.load("fashion-mnist", root=root)
    x, y = found.train.x.flatten(1), found.train.y
    if len(y) >= rows:
        return Batch.of(x[:rows], y[:rows]), f"{found.name}: first {rows} of {len(y)} training images, {found.source}"
    pick = torch.randint(len(y), (rows,), generator=torch.Generator().manual_seed(SEED))
    return Batch.of(x[pick], y[pick]), f"{found.name}: {rows} rows drawn with repeats from {len(y)}, {found.source}"


def measure(samples: Batch, contenders: dict[str, Contender], repeats: int) -> dict[str, list[float]]:
    """Return CPU seconds of each repetition by contender, interleaved; ours must have done the work by hand."""
    small = samples[: 10 * SIZE]
    for run in contenders.values():
        run(small)  # imports, allocator, caches
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(repeats):
        names = list(contenders)
        ended: dict[str, Weights] = {}
        for name in names[i % len(names) :] + names[: i % len(names)]:  # nobody is always first
            spent, ended[name] = contenders[name](samples)
            seconds[name].append(spent)
        if not all(torch.equal(a, b) for a, b in zip(ended["ours"], ended["by_hand"], strict=True)):
            raise SystemExit("engine: ours and the hand-written loop end at different weights; they are not comparable")
    return seconds


def figures(seconds: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return one row per figure: name, value, unit, goal (None: for information) and whether it holds."""
    rows = [_figure(f"engine_{n}_cpu_seconds", statistics.median(s), "s", None) for n, s in seconds.items()]
    rows.append(_figure("engine_ours_over_by_hand", _ratio(seconds, "by_hand"), "ratio", 1.05))
    rows.append(_figure("engine_ours_over_avalanche", _ratio(seconds, "avalanche"), "ratio", 0.5))
    return rows


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA"), help="folder with Fashion-MNIST")
    parser.add_argument("--rows", type=int, default=60_000, help="training images (default: 60000)")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repetitions (default: 9)")
    parser.add_argument("--no-avalanche", action="store_true", help="leave Avalanche out")
    parser.add_argument("--out", type=Path, help="also write the figures, the data and the commit to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    samples, source = images(args.data_root, args.rows)
    contenders: dict[str, Contender] = {"ours": ours, "by_hand": by_hand}
    if not args.no_avalanche and (theirs := avalanche()):
        contenders["avalanche"] = theirs
    rows = figures(measure(samples, contenders, args.repeats))
    print(f"data: {source}", file=sys.stderr)
    for row in rows:
        print(json.dumps(row) if args.json else _line(row))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        facts = {"benchmark": "engine", **_commit(), "data": source, "rows": args.rows, "repeats": args.repeats}
        facts |= {"python": platform.python_version(), "torch": str(torch.__version__), "threads": 1, "figures": rows}
        args.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 1 if any(row["holds"] is False for row in rows) else 0


def _plain() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model of `SPEC` as one would write it, with the same weights, and its optimizer."""
    model = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    with torch.no_grad():
        for mine, other in zip(model.parameters(), build(SPEC, seed=SEED).parameters(), strict=True):
            mine.copy_(other)
    return model, torch.optim.SGD(model.parameters(), lr=LR)


def _ratio(seconds: dict[str, list[float]], other: str) -> float | None:
    if other not in seconds:
        return None
    return statistics.median(a / b for a, b in zip(seconds["ours"], seconds[other], strict=True))


def _figure(name: str, value: float | None, unit: str, goal: float | None) -> dict[str, Any]:
    holds = None if value is None or goal is None else value <= goal
    row = {"name": name, "value": None if value is None else round(value, 4), "unit": unit}
    row |= {"goal": None if goal is None else f"<= {goal}", "holds": holds}
    return row if value is not None else {**row, "skipped": "avalanche is not installed, or was left out"}


def _line(row: dict[str, Any]) -> str:
    value = (row.get("skipped") and f"skipped: {row['skipped']}") or f"{row['value']} {row['unit']}"
    verdict = {True: "holds", False: "MISSED", None: ""}[row["holds"]]
    return f"{row['name']:32} {value:16} {row['goal'] or '':10} {verdict}".rstrip()


def _commit() -> dict[str, Any]:
    def git(*command: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../lifelong", "../strategies", ".")
    return {"commit": git("rev-parse", "HEAD") or None, "changed_since": bool(changed)}


if __name__ == "__main__":
    sys.exit(main())
