"""The long proofs, as one file of results: every end-to-end test at its full count (see `make soak`).

Prints one JSON line per figure: how many proofs ran, and how many failed.
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


def main() -> int:
    """Run pytest on everything marked e2e with LIFELONG_SOAK set, and write what came of each test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="File for the results.")
    parser.add_argument(
        "--json", action="store_true", help="Print figures as JSON lines (the default, and only, form)."
    )
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        line = [sys.executable, "-m", "pytest", "-m", "e2e", "--timeout=3000", f"--junitxml={report}"]
        subprocess.run(line, cwd=ROOT, env={**os.environ, "LIFELONG_SOAK": "1"}, check=False)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    bad = ("failure", "error")
    tests = {f"{c.get('classname')}::{c.get('name')}": not any(c.find(b) is not None for b in bad) for c in cases}
    figures = [
        {"name": "soak_proofs", "value": len(tests), "unit": "tests", "goal": ">= 1", "holds": bool(tests)},
        {
            "name": "soak_failed",
            "value": len(tests) - sum(tests.values()),
            "unit": "tests",
            "goal": "0",
            "holds": all(tests.values()),
        },
    ]
    for figure in figures:
        print(json.dumps(figure))
    if options.out:
        result = {"commit": commit.strip(), "figures": figures, "tests": tests}
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(tests.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
