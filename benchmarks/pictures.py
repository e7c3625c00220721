"""Pictures for the pages, from results: the matrix across versions, search over versions, the cost of a backfill.

    lifelong demo --out demo-run
    python benchmarks/swap.py --out benchmarks/results/swap.json
    python benchmarks/pictures.py --demo demo-run/demo.json --swap benchmarks/results/swap.json

Only one thing is measured here: how independent models, each trained anew on everything so far, find rows that
their predecessors stored. Same images, same model, same rows as in the demo.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import figures
import torch

from lifelong import files
from lifelong.commands import demo_report, pictures
from lifelong.commands.demo import EPOCHS, EXPERIENCES, HELD_OUT, OPTIM, ROWS_PER_CLASS
from lifelong.compose import model_spec
from lifelong.data import load
from lifelong.learning import Learner
from lifelong.models import build
from lifelong.streams.scenarios import class_incremental
from lifelong.streams.validation import validation
from lifelong.types import Batch, Experience

IMAGES = figures.ROOT / "docs" / "images"
SERVED, FROZEN = "encode_served_row", "encode_lite0_row"


def independent(seed: int) -> dict[str, list[float]]:
    """Return recall at 1 over versions of models that know nothing of each other; see `demo_report.by_version`."""
    data = load("fashion-mnist-small")
    assert data.test is not None
    seen: list[Batch] = []
    rows, models = [], []
    for t, part in enumerate(validation(class_incremental(data, EXPERIENCES), HELD_OUT, seed=seed)):
        assert isinstance(part.train, Batch)
        seen.append(part.train)
        first = [(part.train.y == c).nonzero().flatten()[:ROWS_PER_CLASS] for c in part.train.y.unique()]
        rows.append(part.train.take(torch.cat(first)))
        every = Batch.cat(seen)
        spec = model_spec("mlp", data.train.x.shape[1:], "simplex")  # as wide as the demo's
        learner = Learner(build(spec, seed=seed + t), optim=OPTIM, seed=seed + t)
        learner.fit(Experience(0, "all", every.y.unique().tolist(), every), EPOCHS)
        models.append(learner.model)
    return demo_report.by_version(models, rows, data.test)


def of_demo(path: Path, out: Path) -> None:
    """Draw what a demo measured."""
    said: dict[str, Any] = files.parse_json(files.read_file(path))
    pictures.matrix(out / "compatibility.png", said["cross_version"]["map"], "Mean average precision across versions")
    found, alone = said["search_by_version"], independent(said["seed"])
    series = {
        "compatible versions, no row touched": found["compatible"]["as_stored"],
        "independent versions, every row embedded again": alone["re-embedded"],
        "ordinary head with rehearsal, no row touched": found["plain"]["as_stored"],
        "independent versions, no row touched": alone["as_stored"],
    }
    for name, values in series.items():
        print(f"{name:50}", " ".join(f"{value:.3f}" for value in values))
    pictures.over_versions(
        out / "versions.png", series, "Newest queries over the rows of all versions", "recall at 1, classes so far"
    )


def of_swaps(path: Path, out: Path) -> None:
    """Draw what a swap takes beside a backfill."""
    rows = {row["name"]: row["value"] for row in files.parse_json(files.read_file(path))["figures"]}
    sizes = sorted(int(name.split("_")[1]) for name in rows if name.startswith("swap_") and name.endswith("_rows"))
    encode = rows.get(FROZEN) or rows[SERVED]
    by = "EfficientNet-lite0 at 64 pixels" if FROZEN in rows else "the served network"
    swap = [rows[f"swap_{size}_seconds"] for size in sizes]
    title = f"A swap beside a backfill\n({by}, {encode / 1e3:.2g} ms a row, one thread)"
    pictures.backfill(out / "backfill.png", sizes, swap, encode / 1e6, title)


def main() -> int:
    """Draw what there are results for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="demo.json of a demo")
    parser.add_argument("--swap", type=Path, help="results of benchmarks/swap.py")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.demo:
        of_demo(args.demo, args.out)
    if args.swap:
        of_swaps(args.swap, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
