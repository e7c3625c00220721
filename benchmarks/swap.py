"""What a swap does to a large gallery: nothing; and what embedding it again would have cost.

    python benchmarks/swap.py --out benchmarks/results/swap.json        # 10,000, 100,000 and 1,000,000 rows; minutes
    python benchmarks/swap.py --sizes 1000,10000 --json                 # a look

Two versions are trained on Fashion-MNIST and published through the gate: the second reads what the first wrote.
Galleries of several sizes hold rows of the first version. The server's own slot then follows the registry's pointer
from the first to the second, galleries taking turns. One process, one thread; a swap is wall time from the pointer to
the live version.
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import figure, seconds, show, write

from lifelong.compose import model_spec, strategy
from lifelong.daemon import Stopped, Trainer
from lifelong.data import load
from lifelong.errors import ConfigError, LifelongError
from lifelong.gallery.embedded import FILE, EmbeddedGallery
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.plan import Plan
from lifelong.release.registry import Registry
from lifelong.release.snapshot import Snapshot
from lifelong.streams.scenarios import class_incremental
from serving.shelf import Shelf
from serving.slot import Slot

SIZES = (10_000, 100_000, 1_000_000)
SETTINGS = ["replay.capacity=2000", "replay.ratio=3", 'replay.policy="balanced"']
ADDED = 20_000  # rows in one call
ROWS = 64  # images embedded at once
Row = dict[str, Any]


class Quiet:
    """An observer that does not count."""

    def swapped(self, outcome: str, seconds: float) -> None:
        """Not of interest."""

    def polled(self) -> None:
        """Nor this."""


def trained(root: Path) -> tuple[Registry, torch.Tensor]:
    """Return a registry with two versions that the gate let through, of two and of four classes, and images."""
    data = load("fashion-mnist-small")
    stream = class_incremental(data, 5)
    spec = model_spec("mlp", data.train.x.shape[1:], "simplex")
    learner = Learner(
        build(spec, seed=0), strategy("replay+simplex", SETTINGS), optim=Optim(lr=0.1), seed=0, setting=stream
    )
    registry = Registry(root / "registry", create=True)
    trainer = Trainer(learner, stream, root / "run", registry=registry, plan=Plan(epochs=4, held_out=0.2))

    def enough(kind: str, facts: Mapping[str, Any]) -> None:
        if kind == "published" and facts["version"] == 2:
            trainer.stop.set()

    trainer.watch(enough)
    with suppress(Stopped):
        trainer.run()
    if registry.versions() != [1, 2]:
        raise ConfigError(f"the gate let versions {registry.versions()} through, not two; train for more epochs")
    return registry, data.train.x


def filled(state: Path, first: Snapshot, images: torch.Tensor, rows: int) -> Shelf:
    """Return a gallery of `rows` embeddings by the first version: of images, and of them again with a little noise."""
    base = first.build()(images).features.detach().numpy()
    random = np.random.default_rng(0)
    with EmbeddedGallery(state / "gallery", index="flat", background=False) as gallery:
        for start in range(0, rows, ADDED):
            some = np.arange(start, min(start + ADDED, rows))
            noise = 0.05 * random.standard_normal((len(some), base.shape[1]), np.float32)
            gallery.add(some, base[some % len(base)] + noise * (some >= len(base))[:, None], first.space)
        gallery.compact()
    return Shelf(state / "gallery")


def fingerprint(shelf: Shelf) -> tuple[int, str]:
    """Return how many rows there are, and the SHA-256 of all of them, read by SQLite alone."""
    digest, rows = hashlib.sha256(), 0
    base = Path(shelf.place) / FILE
    with closing(sqlite3.connect(f"{base.absolute().as_uri()}?mode=ro", uri=True)) as reader:
        for seq, name, space, vector in reader.execute("SELECT seq, id, space, vector FROM items ORDER BY seq"):
            digest.update(f"{seq} {name} {space} ".encode())
            digest.update(vector or b"")
            rows += 1
    return rows, digest.hexdigest()


def swaps(registry: Registry, slots: Sequence[Slot], turns: int) -> list[list[float]]:
    """Return the seconds of each slot's swaps from version 1 to version 2, in turns."""
    taken: list[list[float]] = [[] for _ in slots]
    for turn in range(turns + 1):
        for version in (1, 2):
            registry.promote(version)
            for slot, mine in list(zip(slots, taken, strict=True))[:: 1 if turn % 2 else -1]:
                begun = time.perf_counter()
                moved = slot.refresh()
                if version == 2 and turn:  # the first is for caches
                    mine.append(time.perf_counter() - begun)
                if slot.version != version or not (moved or not turn):
                    raise ConfigError(f"the slot did not follow to version {version}: {slot.rejected[:1]}")
    return taken


def encoding(second: Snapshot, images: torch.Tensor, turns: int) -> Iterator[tuple[str, float]]:
    """Yield the CPU seconds of embedding one row, by the served version and by a frozen encoder, if it is installed."""
    models = {"served": second.build()}
    try:
        spec = {"name": "lite", "inputs": [1, 28, 28], "variant": "lite0", "size": 64}
        models["lite0"] = build({"backbone": spec, "head": {"name": "linear"}}).eval()
    except LifelongError as error:
        print(f"lite0 is left out: {error}", file=sys.stderr)
    with torch.inference_mode():
        for name, model in models.items():
            few = turns if name == "served" else 3
            model(images[:ROWS])
            yield name, statistics.median(seconds(lambda m=model: m(images[:ROWS])) for _ in range(few)) / ROWS


def rows(sizes: Sequence[int], turns: int) -> Iterator[Row]:
    """Yield all figures."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        registry, images = trained(root)
        first, second = registry.load(1), registry.load(2)
        registry.promote(1)
        shelves = [filled(root / str(size), first, images, size) for size in sizes]
        slots = [Slot(registry.root, s, Path(s.place).parent, Quiet(), poll_seconds=3600, keep=0) for s in shelves]
        before = [fingerprint(shelf) for shelf in shelves]
        taken = swaps(registry, slots, turns)
        after = [fingerprint(shelf) for shelf in shelves]
        medians = [statistics.median(mine) for mine in taken]
        for size, slot, old, new, median in zip(sizes, slots, before, after, medians, strict=True):
            yield figure(f"swap_{size}_rows", new[0], "rows", ">=", size)
            yield figure(f"swap_{size}_rows_written", slot.shelf.view().sequence - size, "rows", "<=", 0)
            yield figure(f"swap_{size}_bits_changed", float(old != new), "of 1", "<=", 0)
            yield figure(f"swap_{size}_rows_unreadable", slot.live.unreadable_rows(), "rows", "<=", 0)
            yield figure(f"swap_{size}_seconds", median, "s")
        yield figure(f"swap_{sizes[-1]}_over_{sizes[0]}", medians[-1] / medians[0], "ratio", "<=", 1.5)
        for name, each in encoding(second, images, turns):
            yield figure(f"encode_{name}_row", each * 1e6, "us")
            for size, median in zip(sizes, medians, strict=True):
                yield figure(f"backfill_{name}_{size}_seconds", each * size, "s")
                yield figure(f"backfill_{name}_{size}_over_swap", each * size / median, "ratio")
        for shelf in shelves:
            shelf.close()


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="rows of each gallery, rising")
    parser.add_argument("--turns", type=int, default=15, help="swaps of each gallery")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--out", type=Path, help="also write the figures and the commit to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    taken = []
    for row in rows([int(size) for size in args.sizes.split(",")], args.turns):
        show(row, args.json)
        taken.append(row)
    if args.out:
        write(args.out, {"benchmark": "swap", "threads": 1, "turns": args.turns}, taken)
    return int(any(row["holds"] is False for row in taken))


if __name__ == "__main__":
    sys.exit(main())
