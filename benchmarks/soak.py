"""The long proofs, as one file of results: every end-to-end test at its full count (see `make soak`).

    python benchmarks/soak.py --out benchmarks/results/soak.json
    python benchmarks/soak.py --out benchmarks/results/soak.json tests/e2e/test_follow_kill.py      # these anew

Prints one JSON line per figure: how many proofs held, failed, and were skipped. Each has the commit that it ran on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def outcomes(report: Path) -> dict[str, str]:
    """Return `held`, `failed` or `skipped` for each test of a JUnit report; a proof that did not run holds nothing."""
    found = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        bad = any(case.find(tag) is not None for tag in ("failure", "error"))
        skipped = case.find("skipped") is not None
        found[f"{case.get('classname')}::{case.get('name')}"] = "failed" if bad else "skipped" if skipped else "held"
    return found


def figures(tests: dict[str, str]) -> list[dict[str, object]]:
    """Return how many proofs held, failed, and did not run."""
    count = {kind: list(tests.values()).count(kind) for kind in ("held", "failed", "skipped")}
    rows: list[dict[str, object]] = [
        {"name": "soak_proofs", "value": count["held"], "unit": "tests", "goal": ">= 1", "holds": count["held"] >= 1}
    ]
    rows += [
        {"name": f"soak_{kind}", "value": count[kind], "unit": "tests", "goal": "0", "holds": not count[kind]}
        for kind in ("failed", "skipped")
    ]
    return rows


def main() -> int:
    """Run pytest on what is marked e2e with LIFELONG_SOAK set, and write what came of each test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="File for the results.")
    parser.add_argument(
        "--json", action="store_true", help="Print figures as JSON lines (the default, and only, form)."
    )
    parser.add_argument("paths", nargs="*", help="Only these files; what is known of others stays as it is.")
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        line = [sys.executable, "-m", "pytest", "-m", "e2e", "--timeout=3000", f"--junitxml={report}", *options.paths]
        subprocess.run(line, cwd=ROOT, env={**os.environ, "LIFELONG_SOAK": "1"}, check=False)
        tests = {name: {"outcome": what, "commit": commit.strip()} for name, what in outcomes(report).items()}
    if options.paths and options.out and options.out.exists():
        tests = json.loads(options.out.read_text())["tests"] | tests
    rows = figures({name: test["outcome"] for name, test in tests.items()})
    for row in rows:
        print(json.dumps(row))
    if options.out:
        result = {"figures": rows, "tests": tests}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
