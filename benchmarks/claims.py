"""All claims of the methods, each trained on real data over several seeds, in one table.

    python benchmarks/claims.py                          # everything; well under 40 minutes on two cores
    python benchmarks/claims.py --smoke                  # one seed, small: does the machinery still work?
    python benchmarks/claims.py --only projection-pmnist --seeds 2

Prints one row per claim and, with --out, writes them to a file; with --only, the file's other studies are kept. A row
has the 95 % interval of its mean (Student's t): a claim may hold where that reaches beyond the limit, and then as many
seeds do not decide it. A study and seed is one process; two run at a time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from figures import provenance, write
from studies import STUDIES
from studies.study import Figures, Study

Cell = tuple[str, int]


def cell(name: str, seed: int, root: str | None, small: bool) -> tuple[Figures, float]:
    """Return the figures of one study and seed, and its CPU seconds."""
    torch.set_num_threads(1)
    begun = time.process_time()
    found = next(study for study in STUDIES if study.name == name).run(seed, root, small)
    return found, time.process_time() - begun


def measured(studies: Sequence[Study], seeds: int | None, root: str | None, small: bool, jobs: int) -> Iterator[Any]:
    """Yield each study with the figures of its seeds, as soon as the last of them is done."""
    cells = [(study.name, seed) for study in studies for seed in list(study.seeds)[:seeds]]
    found: dict[Cell, Figures] = {}
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=fresh) as pool:
        running = {pool.submit(cell, name, seed, root, small): (name, seed) for name, seed in cells}
        for done in as_completed(running):
            name, seed = running[done]
            found[name, seed], spent = done.result()
            print(f"{name} seed {seed}: {spent:.0f} s", file=sys.stderr, flush=True)
            study = next(one for one in studies if one.name == name)
            mine = [(n, s) for n, s in cells if n == name]
            if all(one in found for one in mine):
                yield study, [found[one] for one in mine]


def kept(file: Path, names: Sequence[str], anew: Sequence[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows and studies of an earlier file that still exist and are not measured anew."""
    if not anew or not file.exists():
        return [], {}
    found = json.loads(file.read_text())
    others = [name for name in names if name not in anew and name in found["studies"]]
    return [row for row in found["claims"] if row["study"] in others], {name: found["studies"][name] for name in others}


def line(row: dict[str, Any]) -> str:
    """Return a row for people."""
    spread = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
    verdict = ("holds" if row["holds"] else "DOES NOT HOLD") if row["required"] else "reported"
    return f"{row['name']:48} {row['ours']:9.4f}{spread:10} ({row['seeds']} seeds)  {row['goal']:10} {verdict}"


def main() -> int:
    """Run, print, and exit 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line per claim")
    parser.add_argument("--data-root", default=os.environ.get("LIFELONG_DATA"), help="folder with the data sets")
    parser.add_argument("--smoke", action="store_true", help="one seed of each study, made small")
    parser.add_argument("--only", action="append", default=[], help="a study's name; may be repeated")
    parser.add_argument("--seeds", type=int, help="how many seeds of each study (default: all it names)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--out", type=Path, help="also write the rows and the commit to this file")
    args = parser.parse_args()
    names = [study.name for study in STUDIES]
    unknown = set(args.only) - set(names)
    if unknown:
        parser.error(f"no study is called {sorted(unknown)[0]!r}; there are {', '.join(names)}")
    chosen = [study for study in STUDIES if not args.only or study.name in args.only]
    rows, figures = kept(args.out, names, args.only) if args.out else ([], {})
    begun = time.perf_counter()
    for study, found in measured(chosen, 1 if args.smoke else args.seeds, args.data_root, args.smoke, args.jobs):
        figures[study.name] = {"tuned": study.tuned, **provenance(), "figures": found}
        for claim in study.claims:
            row = {"study": study.name, **claim.row(found)}
            if args.smoke:
                row["required"] = claim.smoke
            rows.append(row)
            print(json.dumps(row) if args.json else line(row), flush=True)
    print(f"{len(chosen)} studies in {(time.perf_counter() - begun) / 60:.1f} minutes", file=sys.stderr)
    if args.out:
        write(args.out, {"benchmark": "claims", "studies": figures}, rows, key="claims")
    return int(any(row["required"] and not row["holds"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
