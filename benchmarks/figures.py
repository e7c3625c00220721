"""What all benchmarks share: one figure per line, ratios of CPU time taken in turns, and the commit they ran on."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the file benchmarks/strategies.py must not hide the package `strategies`
OPERATIONS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
    "|x| <=": lambda value, limit: abs(value) <= limit,
}


def figure(name: str, value: float | None, unit: str, operation: str = "", limit: float = 0.0) -> dict[str, Any]:
    """Return one row; without an operation it is for information, without a value it was not measured."""
    goal = f"{operation} {limit:g}" if operation else None
    holds = OPERATIONS[operation](value, limit) if operation and value is not None else None
    return {
        "name": name,
        "value": None if value is None else rounded(value),
        "unit": unit,
        "goal": goal,
        "holds": holds,
    }


def rounded(value: float) -> float:
    """Return four digits of a measure; a count stays as it is."""
    return float(value) if float(value).is_integer() else float(f"{value:.4g}")


def line(row: dict[str, Any]) -> str:
    """Return a row for people."""
    value = (row.get("skipped") and f"skipped: {row['skipped']}") or f"{row['value']} {row['unit']}"
    verdict = {True: "holds", False: "MISSED", None: row.get("exempt", "")}[row["holds"]]
    return f"{row['name']:44} {value:16} {row['goal'] or '':10} {verdict}".rstrip()


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print a row at once, as JSON or for people."""
    print(json.dumps(row) if as_json else line(row), flush=True)


def seconds(run: Callable[[], object]) -> float:
    """Return the CPU seconds of one call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def ratio(slow: Callable[[], object], fast: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Return the median of slow / fast over `repeats` turns, and the median CPU seconds of each."""
    fast(), slow()  # allocator, caches
    pairs = [(seconds(slow), seconds(fast)) if i % 2 else (seconds(fast), seconds(slow))[::-1] for i in range(repeats)]
    return statistics.median(a / b for a, b in pairs), *(statistics.median(one) for one in zip(*pairs, strict=True))


def provenance() -> dict[str, Any]:
    """Return the commit, whether the code has changed since, and the versions."""

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "lifelong", "strategies", "benchmarks/*.py")
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return {"commit": git("rev-parse", "HEAD") or None, "changed_since": bool(changed), **versions}


def write(path: Path, facts: dict[str, Any], rows: Iterable[dict[str, Any]], key: str = "figures") -> None:
    """Write the facts and the rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**provenance(), **facts, key: list(rows)}, indent=1) + "\n")
