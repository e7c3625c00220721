"""`lifelong bench run`: each strategy on each scenario with each seed, by one protocol."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from lifelong import compose, files
from lifelong.bench import metrics
from lifelong.commands import tables
from lifelong.commands.train import sample_shape
from lifelong.errors import ConfigError
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.streams.scenarios import scenario as make_scenario

SHOWN = ("acc_final", "acc_avg_incremental", "bwt_gem", "forgetting_chaudhry")


def run(
    *,
    strategies: str,
    scenarios: str,
    seeds: int,
    epochs: int,
    lr: float,
    out: Path | None,
    data_root: Path | None,
    as_json: bool,
) -> None:
    """Run the grid; print a line per cell as it ends, then mean and sample standard deviation."""
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    torch.set_num_threads(1)
    cells = []
    for scenario in scenarios.split(","):
        for strategy in strategies.split(","):
            for seed in range(seeds):
                cells.append(cell(scenario.strip(), strategy.strip(), seed, epochs, lr, data_root))
                if as_json:
                    tables.emit(cells[-1])
                else:
                    tables.console.print(f"{scenario} {strategy} seed {seed}: {cells[-1]['seconds']:.1f} s")
    if out:
        files.write_atomic(out, files.canonical_json(cells))
    if not as_json:
        _table(cells)


def cell(scenario: str, strategy: str, seed: int, epochs: int, lr: float, root: Path | None) -> dict[str, Any]:
    """Return what one run gives: the whole accuracy matrix, all metrics, counters and CPU seconds."""
    stream = make_scenario(scenario, root, seed)
    if "boundaries" not in stream.provides:
        raise ConfigError(f"{scenario} has no experiences to build an accuracy matrix of; choose one with boundaries")
    spec = compose.model_spec("mlp", sample_shape(stream), strategy)
    learner = Learner(build(spec, seed=seed), compose.strategy(strategy), optim=Optim(lr=lr), seed=seed, setting=stream)
    start, rows = time.process_time(), []
    for experience in stream:
        learner.fit(experience, epochs)
        rows.append([learner.score(e) for e in stream])
    numbers = metrics.summary(torch.tensor(rows, dtype=torch.float64))
    return {
        "scenario": stream.name,
        "strategy": strategy,
        "seed": seed,
        "protocol": "conventional: default hyper-parameters, nothing tuned",
        "data": dict(stream.data),
        "matrix": rows,
        "metrics": numbers,
        "counters": learner.counters,
        "seconds": time.process_time() - start,
    }


def _table(cells: list[dict[str, Any]]) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in cells:
        groups.setdefault((one["scenario"], one["strategy"]), []).append(one)
    rows = []
    for (scenario, strategy), found in groups.items():
        numbers = [_spread([one["metrics"][name] for one in found]) for name in SHOWN]
        rehearsed = round(statistics.mean(one["counters"]["rehearsed"] for one in found))
        rows.append([scenario, strategy, len(found), *numbers, rehearsed, statistics.mean(o["seconds"] for o in found)])
    head = ["scenario", "strategy", "seeds", *SHOWN, "rehearsed", "CPU s"]
    tables.show("Mean ± sd (conventional protocol: default hyper-parameters, nothing tuned)", head, rows)


def _spread(values: list[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ± {spread:.3f}"
