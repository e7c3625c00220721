"""The leaderboard: every installed strategy on several scenarios, by one command, and the table of it in the README.

    python benchmarks/leaderboard.py run --data-root DATA    # resumable: finished cells are never run again
    python benchmarks/leaderboard.py collect                 # results and README from what is there
    python benchmarks/leaderboard.py table                   # the README alone, from results.json

Sizes: 5 seeds; 2 passes in batches of 32 (online: over ten samples at a time); SGD without momentum, memories as
installed; 8 random settings for every strategy. Nothing differs between strategies but themselves.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import ROOT, provenance

from lifelong import plugins
from lifelong.bench import tables
from lifelong.bench.store import Store

RESULTS = ROOT / "benchmarks" / "results" / "leaderboard"
MARKS = ("<!-- leaderboard: made by benchmarks/leaderboard.py -->", "<!-- /leaderboard -->")
SEEDS, TRIALS = 5, 8


# What is compared, and by which protocol: each is a grid of its own, the cheap ones first, so that they end one by one.
GRIDS = {
    "task-fmnist-small": "first-task",
    "permuted-digits": "first-task",
    "split-digits": "two-phase",
    "rotated-fmnist-small": "first-task",
    "lite0-fmnist-small": "two-phase",
    "online-elec-scaled": "two-phase",
    "split-fmnist": "two-phase",
}
# Those that make embeddings comparable between versions: what they are for is measured by studies, not by accuracy.
EXCLUDED = {
    "align": "turns finished features, for search across versions; see `benchmarks/studies/compatible.py`",
    "bct": "made for search across versions; see `benchmarks/studies/compatible.py`",
    "bt2": "made for search across versions; see `benchmarks/studies/compatible.py`",
}
KEYS = ("scenario", "strategy", "protocol", "seeds", "failed", "excluded", "missing", "reason", "lr", "settings",
        "tuned", "leading", "p")  # fmt: skip
SPREADS = ("flops", "rehearsed", "state_bytes")


def strategies() -> list[str]:
    """Return the strategies that are compared: all that are installed, less those excluded with a reason."""
    return [name for name in plugins.names("strategy") if name not in EXCLUDED]


def run(out: Path, jobs: int, ray: str | None, data_root: Path | None) -> int:
    """Run what is not done yet of every grid; return 1 if a cell failed."""
    code = 0
    for scenario, protocol in GRIDS.items():
        line = [sys.executable, "-m", "lifelong.cli", "bench", "run", "--out", str(out / scenario)]
        line += ["--protocol", protocol, "--scenarios", scenario, "--jobs", str(jobs)]
        line += ["--strategies", ",".join(strategies()), "--seeds", str(SEEDS), "--trials", str(TRIALS)]
        line += ["--ray", ray] if ray else []
        line += ["--data-root", str(data_root)] if data_root else []
        with subprocess.Popen(line, cwd=ROOT) as process:
            try:
                code |= process.wait()
            finally:
                process.terminate()  # nothing, if it has ended
    return code


def collect(out: Path) -> dict[str, Any]:
    """Write results.json and results.csv from the grids in `out`, finished or not."""
    stores = [Store(out / scenario) for scenario in GRIDS if (out / scenario / "grid.json").is_file()]
    rows = [_row(row) for store in stores for row in tables.standings(store)]
    if not rows:
        raise SystemExit(f"no grid in {out} has come as far as its first cell; run it first")
    body = {**provenance(), "sizes": {"seeds": SEEDS, "trials": TRIALS}, "excluded": EXCLUDED, "standings": rows}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")
    cells = [row for store in stores for row in tables.cells(store)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(n for row in cells for n in row)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    (RESULTS / "results.csv").write_text(text.getvalue())
    return body


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a standing: no matrices, five digits."""
    found = {key: _number(row[key]) for key in KEYS}
    found |= {key: _number(row[key].mean) for key in SPREADS if key in row}
    found["cpu_seconds"] = _number(row["seconds"].mean) if row["seeds"] else None
    found["metrics"] = {name: [_number(value) for value in spread] for name, spread in row["metrics"].items()}
    return found


def _number(value: Any) -> Any:  # noqa: ANN401 - whatever a row holds
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else float(f"{value:.5g}")


def table(body: Mapping[str, Any]) -> str:
    """Return the README's table of `results.json`: strategies by their place on the last scenario, then by name."""
    rows: Sequence[Mapping[str, Any]] = body["standings"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    cells = {(row["strategy"], row["scenario"]): row for row in rows}
    best = {s: max((_mean(r) for r in rows if r["scenario"] == s and _bounded(r)), default=math.nan) for s in scenarios}
    names = sorted({row["strategy"] for row in rows},
                   key=lambda name: (-_mean(cells.get((name, scenarios[-1]))), name))  # fmt: skip
    lines = [f"| strategy | {' | '.join(f'`{s}`' for s in scenarios)} |", "|---|" + "---|" * len(scenarios)]
    protocols = [next(row["protocol"] for row in rows if row["scenario"] == s) for s in scenarios]
    lines.append(f"| *protocol* | {' | '.join(f'*{protocol}*' for protocol in protocols)} |")
    for name in names:
        said = [_said(cells.get((name, s)), best[s]) for s in scenarios]
        lines.append(f"| [{name}](docs/strategies/{name}.md) | {' | '.join(said)} |")
    notes = [textwrap.fill(note, 120, break_long_words=False, break_on_hyphens=False) for note in _notes(body)]
    return "\n".join([*lines, "", *notes])


def _mean(row: Mapping[str, Any] | None) -> float:
    return row["metrics"][row["leading"]][0] if row and row["seeds"] else -1.0


def _bounded(row: Mapping[str, Any]) -> bool:
    return row["strategy"] not in ("joint", "cumulative")


def _said(row: Mapping[str, Any] | None, best: float) -> str:
    """Return mean ± sd in percent; how a cell ended that has none."""
    if row is None or not row["seeds"]:
        return "" if row is None or row["missing"] else "failed" if row["failed"] else "n/a"
    mean, sd = row["metrics"][row["leading"]][:2]
    said = f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd is not None else "")
    said = f"**{said}**" if mean == best and _bounded(row) else said
    return said if row["seeds"] == SEEDS else f"{said} ({row['seeds']} of {SEEDS})"


def _notes(body: Mapping[str, Any]) -> Iterator[str]:
    missing = sum(row["missing"] for row in body["standings"])
    yield (
        "Percent right at the end of the stream, of all classes and tasks seen (`online-`: each sample predicted "
        f"before it was learned); mean ± sd of {SEEDS} seeds. Bold: the best that does not keep all samples, as "
        "`joint` and `cumulative` do. n/a: not meant for such a stream."
    )
    absent = set(GRIDS) - {row["scenario"] for row in body["standings"]}
    if missing or absent:
        yield ""
        cells = [f"{missing} cells"] if missing else []
        yield f"Not run yet: {', '.join([*cells, *(f'`{name}`' for name in sorted(absent))])}."
    yield ""
    yield "Left out: " + "; ".join(f"`{name}` ({reason})" for name, reason in sorted(body["excluded"].items())) + "."


def readme(body: Mapping[str, Any], text: str) -> str:
    """Return the text of the README with the table between its marks made anew."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    if not rest or not after:
        raise SystemExit(f"the README has no {MARKS[0]} and {MARKS[1]}")
    return f"{before}{MARKS[0]}\n{table(body)}\n{MARKS[1]}{after}"


def main() -> int:
    """Run, collect, or write the table; `run` does all three."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and take what runs along
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "collect", "table"])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "leaderboard", help="folder of the grids")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--ray", help="address of a Ray cluster, instead of processes")
    parser.add_argument("--data-root", type=Path, help="folder of data sets; also LIFELONG_DATA")
    args = parser.parse_args()
    code = run(args.out, args.jobs, args.ray, args.data_root) if args.what == "run" else 0
    body = json.loads((RESULTS / "results.json").read_text()) if args.what == "table" else collect(args.out)
    page = ROOT / "README.md"
    page.write_text(readme(body, page.read_text(encoding="utf-8")), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
