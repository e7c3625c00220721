"""What the strategies cost: on long streams, beside Avalanche, and beside how they were built before.

    python benchmarks/strategies.py                     # everything; minutes, twice as many on a busy machine
    python benchmarks/strategies.py --only streams --json

Each module of `benchmarks/speed/` measures its own figures, as ratios of CPU time within one process and one thread.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from pathlib import Path

import speed
import torch
from figures import show, write


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    names = sorted(module.name for module in pkgutil.iter_modules(speed.__path__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per figure")
    parser.add_argument("--only", action="append", default=[], choices=names, help="a module; may be repeated")
    parser.add_argument("--out", type=Path, help="also write the figures and the commit to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun, rows = time.perf_counter(), []
    for name in args.only or names:
        for row in importlib.import_module(f"speed.{name}").rows():
            rows.append({"module": name, **row})
            show(row, args.json)
    minutes = (time.perf_counter() - begun) / 60
    print(f"{len(rows)} figures in {minutes:.1f} minutes", file=sys.stderr)
    if args.out:
        write(args.out, {"benchmark": "strategies", "minutes": round(minutes, 1), "threads": 1}, rows)
    return int(any(row["holds"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
