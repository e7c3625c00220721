"""What a grid costs beyond its cells: in processes, and on a Ray cluster on the same machine.

    python benchmarks/grid.py            # a few minutes; needs Ray
    python benchmarks/grid.py --json

The same jobs are run both ways, in turns. A run is timed from the moment when its first cell began to the moment when
its last was kept: what Ray, or the processes, take to start is another row. Both use as many workers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from figures import ROOT, figure, show, write

from lifelong.adapters import ray as cluster
from lifelong.bench import workers
from lifelong.bench.compare import differences
from lifelong.bench.job import Job
from lifelong.bench.store import Store

WORKERS = os.cpu_count() or 1


class Timed(NamedTuple):
    """Seconds of a run until its first cell began, and from there until its last was kept."""

    start: float
    work: float


def jobs(seeds: int) -> list[Job]:
    """Return cells of about a second each."""
    return [
        Job(scenario="split-fmnist-small", strategy=name, seed=seed)
        for seed in range(seeds)
        for name in ("naive", "replay", "slda", "nmc")
    ]


def processes(store: Store, wanted: Sequence[Job]) -> None:
    """Run in processes, as `lifelong bench run --jobs` does."""
    command = [sys.executable, "-m", "lifelong.cli", "bench", "work", str(store.folder), "--attempt", "a"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers.crew(store, wanted, WORKERS, "a", command, environment, lambda *_: None)


def ray(store: Store, wanted: Sequence[Job]) -> None:
    """Run on a cluster that is started for it, as `lifelong bench run --ray local` does."""
    cluster.run(store, wanted, "local", "a", None)


def timed(store: Store, wanted: Sequence[Job], way: Callable[[Store, Sequence[Job]], None]) -> Timed:
    """Run, and read from the files of the cells when they were done."""
    begun = time.time()
    way(store, wanted)
    kept = [store.path("cells", job).stat().st_mtime for job in wanted]
    first = min(at - store.cost(job)["seconds"] for at, job in zip(kept, wanted, strict=True))
    return Timed(first - begun, max(kept) - first)


def rows(seeds: int, turns: int) -> Iterator[dict[str, Any]]:
    """Measure, alternating which way goes first; ratios are of one turn."""
    wanted = jobs(seeds)
    found: list[tuple[Timed, Timed]] = []
    different = 0
    for turn in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            stores = [Store.create(Path(folder) / name, wanted, {}) for name in ("processes", "ray")]
            ways = [processes, ray]
            order = (0, 1) if turn % 2 else (1, 0)
            took = {i: timed(stores[i], wanted, ways[i]) for i in order}
            found.append((took[0], took[1]))
            different += len(differences(*stores))
    yield figure("grid_ray_cells_that_differ", different, f"of {turns * len(wanted)}", "<=", 0)
    yield figure("grid_ray_over_processes", statistics.median(b.work / a.work for a, b in found), "x", "<=", 1.1)
    for name, mine in (("processes", [a for a, _ in found]), ("ray", [b for _, b in found])):
        yield figure(f"grid_{name}_work", statistics.median(t.work for t in mine), "s")
        yield figure(f"grid_{name}_start", statistics.median(t.start for t in mine), "s")


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--seeds", type=int, default=8, help="four cells for each")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the figures and the commit to this file")
    args = parser.parse_args()
    found = []
    for row in rows(args.seeds, args.turns):
        found.append(row)
        show(row, args.json)
    if args.out:
        write(args.out, {"benchmark": "grid", "workers": WORKERS, "cells": 4 * args.seeds, "turns": args.turns}, found)
    return int(any(row["holds"] is False for row in found))


if __name__ == "__main__":
    sys.exit(main())
