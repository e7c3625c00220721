"""The server under load: swaps that nobody notices, and its speed against bare Starlette and plain BentoML.

Everything is a ratio within one run, or a count. Speeds are taken in turns, several rounds each, and given twice: as
requests per second, and as CPU of the server per request, which other load on the machine disturbs less.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import figures
import numpy as np
import torch
from figures import ROOT, figure
from serving_processes import BARE, INPUTS, OURS, PLAIN, Server, load, up

from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.release.registry import Registry
from lifelong.release.snapshot import Snapshot
from lifelong.release.spaces import proof
from serving.crew import Crew

VERSIONS = 4
BLOCK, QUIET_SECONDS = 50, 4.0  # swaps in a row at most, and how long before them there are none
PAUSE = 0.25  # seconds from a swap to the next: four trainers that publish every second
RUSH = 5  # one swap in so many is also made without any pause: then half of the server's time is making versions
LABELS = [f"l{n}" for n in range(100)]


def publish(registry: Registry) -> None:
    """An MLP of 8.6 MB per version; its odds of the first two labels give its number away."""
    made: list[Snapshot] = []
    for number in range(1, VERSIONS + 1):
        backbone = {"name": "mlp", "inputs": [INPUTS], "hidden": [1024, 1024], "features": 512}
        model = build({"backbone": backbone, "head": {"name": "linear", "classes": len(LABELS)}}, seed=number)
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.fill_(-1.0)  # the first two labels are always the best two
            model.head.bias[1] = 0
            model.head.bias[0] = number / 100
        new = Snapshot.of(model, LabelMap(LABELS), probe_x=torch.rand(3, INPUTS))
        proofs = {s.space.id: proof(s.space, 1.0, 0.5, "none", 1, "") for s in made}
        made.append(new.with_proofs([told for space, told in proofs.items() if space != new.space.id]))
        registry.publish(made[-1], promote=number == 1)


def speeds(folder: Path, rounds: int, seconds: float) -> Iterator[dict]:
    """Requests per second and CPU per request of each server, in turns."""
    servers = {"ours": Server(folder, OURS), "bare": Server(folder, BARE), "plain": Server(folder, PLAIN)}
    servers["two"] = Server(folder, OURS, LIFELONG_WORKERS="2")
    cases = [(s, k) for s in servers for k in ("json", "binary") if (s, k) != ("plain", "binary")]
    rates: dict = {case: [] for case in cases}
    costs: dict = {case: [] for case in cases}
    try:
        for server in servers.values():
            up(server)
        for _ in range(rounds):
            for name, kind in cases:
                before = servers[name].cpu()
                with load(servers[name], kind, seconds) as ended:
                    told = ended()
                assert not told["failed"], (name, kind, told)
                rates[name, kind].append(told["count"] / told["wall"])
                costs[name, kind].append((servers[name].cpu() - before) / told["count"] * 1000)
    finally:
        for server in servers.values():
            server.close()
    rate = {case: statistics.median(values) for case, values in rates.items()}
    cost = {case: statistics.median(values) for case, values in costs.items()}
    for name, kind in cases:
        yield figure(f"{name}_{kind}_rate", rate[name, kind], "requests/s")
        yield figure(f"{name}_{kind}_cpu", cost[name, kind], "ms/request")
    for kind, goal in (("json", 0.8), ("binary", 0.9)):
        yield figure(f"{kind}_rate_of_bare_starlette", rate["ours", kind] / rate["bare", kind], "x", ">=", goal)
        yield figure(f"{kind}_cpu_of_bare_starlette", cost["bare", kind] / cost["ours", kind], "x", ">=", goal)
    yield figure("json_rate_of_plain_bentoml", rate["ours", "json"] / rate["plain", "json"], "x", ">=", 1.5)
    yield figure("json_cpu_of_plain_bentoml", cost["plain", "json"] / cost["ours", "json"], "x", ">=", 1.5)
    yield figure("two_workers_rate_of_one", rate["two", "json"] / rate["ours", "json"], "x", ">=", 1.8)
    # The load has no core of its own beside two workers: this is what they would answer if it had.
    yield figure("two_workers_cpu_of_one", 2 * cost["ours", "json"] / cost["two", "json"], "x", ">=", 1.8)


def follow(registry: Registry, live: Callable[[], set], turns: range, pause: float) -> Iterator[tuple[str, float]]:
    """Promote, roll back, and so on; give each with its seconds from the pointer to the last worker."""
    for turn in turns:
        kind = ("promote", "rollback")[turn % 2]
        target = 2 + turn // 2 % (VERSIONS - 1) if kind == "promote" else 1
        registry.promote(target) if kind == "promote" else registry.rollback(1)
        moved = time.perf_counter()
        while live() != {target}:
            time.sleep(0.005)
        yield kind, time.perf_counter() - moved
        time.sleep(pause)


def swaps(folder: Path, name: str, workers: int, count: int, pause: float) -> Iterator[dict]:
    """Promotions back and forth under load, in blocks: before each comes the same load without swaps."""
    registry = Registry(folder / "registry")
    server = Server(folder, OURS, LIFELONG_WORKERS=str(workers), LIFELONG_KEEP_RETIRED="2")
    took, told, memory, block = {"promote": [], "rollback": []}, [], [], min(BLOCK, -(-count // 4))
    try:
        up(server)
        # What the workers themselves say: asked over HTTP, waiting behind the load would be in the figure.
        crew = Crew(folder / f"s{server.port}" / "workers")
        while len(crew.read()) < workers:
            time.sleep(0.1)
        for start in range(0, count, block):
            with load(server, "json", QUIET_SECONDS) as ended:
                base = ended()
            with load(server, "json") as ended:
                turns = range(start, min(count, start + block))
                for kind, seconds in follow(registry, lambda: {w.version for w in crew.read()}, turns, pause):
                    took[kind].append(seconds)
                memory.append(server.memory())
                told.append((base, ended()))
    finally:
        server.close()
    yield from judged(f"{name}_w{workers}", count, took, told, paced=pause > 0)
    growth = memory[-1] / memory[len(memory) // 4] - 1  # what a process fills in the beginning is not counted
    yield figure(f"{name}_w{workers}_memory_growth", 100 * growth, "%", *(("|x| <=", 3) if pause else ()))


def judged(
    name: str, count: int, took: dict[str, list[float]], told: list[tuple[dict, dict]], *, paced: bool
) -> Iterator[dict]:
    """What the requests and the workers said of it; ratios are medians over the blocks."""
    p99 = {kind: float(np.quantile(values, 0.99)) * 1000 for kind, values in took.items()}
    ratio = {key: statistics.median(during[key] / base[key] for base, during in told) for key in ("p50", "p99")}
    total = {key: sum(part[key] for pair in told for part in pair) for key in ("count", "failed", "mixed")}
    yield figure(f"{name}_count", count, "swaps")
    yield figure(f"{name}_requests", total["count"], "requests")
    yield figure(f"{name}_failed", total["failed"], "requests", "<=", 0)
    yield figure(f"{name}_mixed", total["mixed"], "requests", "<=", 0)
    yield figure(f"{name}_p50_ratio", ratio["p50"], "x", *(("<=", 1.2) if paced else ()))
    yield figure(f"{name}_p99_ratio", ratio["p99"], "x", *(("<=", 2.0) if paced else ()))
    yield figure(f"{name}_all_workers_p99", p99["promote"], "ms", "<=", 500)
    yield figure(f"{name}_rollback_p99", p99["rollback"], "ms", "<=", 150)


def main() -> int:
    """Print the figures; exit with 1 if one missed its goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="Print JSON lines.")
    parser.add_argument("--out", type=Path, help="File for the results.")
    parser.add_argument("--swaps", type=int, default=1000, help="Per number of workers; 0 leaves them out.")
    parser.add_argument("--rounds", type=int, default=5, help="Of each speed; 0 leaves them out.")
    parser.add_argument("--seconds", type=float, default=3.0, help="Of each round.")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        publish(Registry(folder / "registry", create=True))
        parts = [speeds(folder, options.rounds, options.seconds)] if options.rounds else []
        for label, count, pause in (
            ("swaps", options.swaps, PAUSE),
            ("rush", options.swaps and max(40, options.swaps // RUSH), 0.0),
        ):
            parts += [swaps(folder, label, workers, count, pause) for workers in (1, 2) if count]
        for part in parts:
            for row in part:
                figures.show(row, options.json)
                rows.append(row)
    if options.out:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        options.out.write_text(json.dumps({"commit": commit, "figures": rows}, indent=1) + "\n")
    return 0 if all(row["holds"] in (True, None) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
