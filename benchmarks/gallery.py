"""What a gallery costs over raw FAISS: one Space, five of mixed widths, recall, batches, and reading while one writes.

    python benchmarks/gallery.py --out benchmarks/results/gallery.json      # 100,000 rows of 128, some minutes
    python benchmarks/gallery.py --rows 20000 --seconds 2                   # a look

One thread. Ratios are of CPU time, contenders taking turns; the tails of readers are wall time, with and without a
writer in turns. Vectors: clusters in 32 dimensions, embedded in 160, with noise; a Space of width D has the first D.

Three peers stand beside `ivf`. `faiss`: the same index as it is, which returns row numbers and scores of 8-bit vectors.
`refined`: FAISS's own way to exact scores, `IndexRefine` over the same index and the rows in float32, with as many
candidates as the gallery takes; it finds what the gallery finds, again as row numbers. `by_hand`: what the gallery
answers, ids and exact scores, by the least program in Python.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from figures import figure, ratio, show, write

from lifelong.gallery import indexes
from lifelong.gallery.base import Gallery, Hit
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.parts import Part
from lifelong.types import Space

WIDTH, WIDTHS = 128, (96, 112, 128, 144, 160)
SPACES = [Space(f"v{d}", d, frozenset(f"v{e}" for e in WIDTHS)) for d in WIDTHS]
ONE, NEWEST = Space("one", WIDTH), SPACES[-1]
WRITES_PER_SECOND = 100
Row = dict[str, Any]


def vectors(rows: int, seed: int) -> np.ndarray:
    """Return `[N, 160]`: 2,000 clusters in 32 dimensions, a little noise in all."""
    world, random = np.random.default_rng(0), np.random.default_rng(seed)
    centres, into = world.normal(size=(2000, 32)), world.normal(size=(32, max(WIDTHS))) / 32**0.5
    latent = centres[random.integers(2000, size=rows)] + 0.5 * random.normal(size=(rows, 32))
    return (latent @ into + 0.3 * random.normal(size=(rows, max(WIDTHS)))).astype(np.float32)


def filled(folder: Path, index: str, data: np.ndarray, spaces: list[Space]) -> EmbeddedGallery:
    """Return a compacted gallery of all rows of `data`, in equal shares of the spaces."""
    gallery = EmbeddedGallery(folder, threads=1, index=index, background=False)
    for at, space in enumerate(spaces):
        mine = range(at * len(data) // len(spaces), (at + 1) * len(data) // len(spaces))
        for start in range(mine.start, mine.stop, 5000):
            some = range(start, min(start + 5000, mine.stop))
            gallery.add(some, data[some.start : some.stop, : space.dim], space)
    gallery.compact()
    return gallery


def raw(gallery: EmbeddedGallery) -> Callable[[np.ndarray], object]:
    """Return FAISS's own search over the same rows, with the same index and effort."""
    (part,) = gallery.view().parts
    if part.quick:
        parameters = faiss.SearchParametersIVF(nprobe=part.quick.effort)
        return lambda queries: part.quick.index.search(queries, 10, params=parameters)
    flat = whole(part)
    return lambda queries: flat.search(queries, 10)


def refined(gallery: EmbeddedGallery) -> Callable[[np.ndarray], object]:
    """Return FAISS's own search that does as much: the same index and effort, then exact scores of as many rows."""
    (part,) = gallery.view().parts
    index = faiss.IndexRefine(part.quick.index, whole(part))
    lists = faiss.SearchParametersIVF(nprobe=part.quick.effort)
    parameters = faiss.IndexRefineSearchParameters(k_factor=indexes.WIDER, base_index_params=lists)
    return lambda queries: index.search(queries, 10, params=parameters)


def whole(part: Part) -> faiss.IndexFlatIP:
    """Return FAISS's index of all rows of a part in float32."""
    flat = faiss.IndexFlatIP(part.width)
    flat.add(np.array(part.vectors))
    return flat


def by_hand(gallery: EmbeddedGallery) -> Callable[[np.ndarray], object]:
    """Return the least that answers with ids and exact scores: FAISS, products with what it found, a list of ids."""
    (part,) = gallery.view().parts
    ids, parameters = list(part.ids), part.quick and faiss.SearchParametersIVF(nprobe=part.quick.effort)

    def search(queries: np.ndarray) -> object:
        unit = queries / np.linalg.norm(queries, axis=1)[:, None]
        rows = part.quick.index.search(unit, 20, params=parameters)[1]
        scores = np.einsum("mkd,md->mk", part.vectors[rows], unit)
        order = np.argsort(-scores)[:, :10]
        best = [np.take_along_axis(values, order, 1).tolist() for values in (rows, scores)]
        return [
            [Hit(ids[row], score, ONE.id, {}) for row, score in zip(*one, strict=True)]
            for one in zip(*best, strict=True)
        ]

    return search


def over_raw(index: str, gallery: EmbeddedGallery, queries: np.ndarray, repeats: int) -> Iterator[Row]:
    """Compare one Space with FAISS, and a batch of 64 with one query."""
    plain = raw(gallery)
    others = {"by_hand": by_hand(gallery), "refined": refined(gallery)} if index == "ivf" else {}
    queries = np.ascontiguousarray(queries[:, :WIDTH])
    milliseconds = {}
    for batch, turns in ((1, 10 * repeats), (64, repeats)):
        some = queries[:batch]
        times, ours, theirs = ratio(lambda: gallery.search(some, ONE, 10), lambda: plain(some), turns)  # noqa: B023
        yield figure(f"gallery_{index}_over_faiss_batch{batch}", times, "ratio", "<=", 1.1)
        yield figure(f"gallery_{index}_batch{batch}", ours * 1e3, "ms")
        yield figure(f"faiss_{index}_batch{batch}", theirs * 1e3, "ms")
        milliseconds[batch] = ours, theirs
        for name, other in others.items():
            times, _, _ = ratio(lambda: other(some), lambda: plain(some), turns)  # noqa: B023
            yield figure(f"{name}_{index}_over_faiss_batch{batch}", times, "ratio")
            times, _, _ = ratio(lambda: gallery.search(some, ONE, 10), lambda: other(some), turns)  # noqa: B023
            yield figure(f"gallery_{index}_over_{name}_batch{batch}", times, "ratio")
    ours, theirs = (many / one for many, one in zip(milliseconds[64], milliseconds[1], strict=True))
    yield figure(f"gallery_{index}_batch64_over_batch1", ours, "ratio", "<", 16.0)
    yield figure(f"faiss_{index}_batch64_over_batch1", theirs, "ratio")


def mixed(index: str, one: Gallery, five: EmbeddedGallery, queries: np.ndarray, repeats: int) -> Iterator[Row]:
    """Compare five Spaces with one of as many numbers."""
    limit = 1.3 if index == "flat" else 2.0
    for batch, turns in ((1, 10 * repeats), (64, repeats)):
        wide, narrow = queries[:batch], queries[:batch, :WIDTH]
        times, _, _ = ratio(lambda: five.search(wide, NEWEST, 10), lambda: one.search(narrow, ONE, 10), turns)  # noqa: B023
        yield figure(f"gallery_{index}_five_spaces_over_one_batch{batch}", times, "ratio", "<=", limit)
    yield figure(f"gallery_{index}_five_spaces_parts", len(five.view().parts), "parts")


def recall(index: str, five: Gallery, data: np.ndarray, queries: np.ndarray) -> Row:
    """Compare with numpy in float64: cosines of each row with as many first coordinates of the query."""
    scores = np.empty((len(queries), len(data)))
    for at, space in enumerate(SPACES):
        mine = slice(at * len(data) // len(SPACES), (at + 1) * len(data) // len(SPACES))
        q, x = (values[:, : space.dim].astype(np.float64) for values in (queries, data[mine]))
        scores[:, mine] = q @ x.T / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)
    best = np.argpartition(-scores, 10, axis=1)[:, :10]
    found = [{int(hit.id) for hit in hits} for hits in five.search(queries, NEWEST, 10)]
    share = float(np.mean([len(a & set(b)) / 10 for a, b in zip(found, best.tolist(), strict=True)]))
    return figure(f"gallery_{index}_five_spaces_recall_at_10", share, "share", ">=", 1.0 if index == "flat" else 0.97)


def tails(index: str, folder: Path, queries: np.ndarray, seconds: float) -> Iterator[Row]:
    """Read with and without a writer, in four turns each, with small segments being made in the background."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    with EmbeddedGallery(folder, threads=1, index=index, seal=64) as gallery:
        for turn in range(8):
            writing, stop = bool(turn % 2), threading.Event()
            writer = threading.Thread(target=keep_writing, args=(gallery, queries, stop, turn))
            if writing:
                writer.start()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                query = queries[len(taken[writing]) % len(queries)][None, :WIDTH]
                begun = time.perf_counter()
                gallery.search(query, ONE, 10)
                taken[writing].append(time.perf_counter() - begun)
            stop.set()
            if writing:
                writer.join()
    alone, beside = (float(np.quantile(taken[writing], 0.99)) for writing in (False, True))
    yield figure(f"gallery_{index}_read_p99_beside_writer_over_alone", beside / alone, "ratio", "<=", 3)
    yield figure(f"gallery_{index}_read_p99_beside_writer", beside * 1e3, "ms")


def keep_writing(gallery: Gallery, rows: np.ndarray, stop: threading.Event, turn: int) -> None:
    """Add a row a hundred times a second."""
    number, begun = 0, time.monotonic()
    while not stop.is_set():
        gallery.add([f"{turn}-{number}"], rows[number % len(rows)][None, :WIDTH], ONE)
        number += 1
        time.sleep(max(0.0, begun + number / WRITES_PER_SECOND - time.monotonic()))


def opening(index: str, folder: Path) -> Iterator[Row]:
    """Time opening, which reads no row that a segment has, and say how much memory is searched."""
    begun = time.perf_counter()
    with EmbeddedGallery(folder, readonly=True) as gallery:
        yield figure(f"gallery_{index}_open", time.perf_counter() - begun, "s")
        yield figure(f"gallery_{index}_memory", gallery.stats().bytes / 2**20, "MiB")


def rows(count: int, repeats: int, seconds: float) -> Iterator[Row]:
    """Yield all figures."""
    data, queries = vectors(count, 1), vectors(256, 2)
    for index in ("flat", "ivf"):
        with tempfile.TemporaryDirectory() as folder:
            one = filled(Path(folder) / "one", index, data, [ONE])
            five = filled(Path(folder) / "five", index, data, SPACES)
            yield from over_raw(index, one, queries, repeats)
            yield from mixed(index, one, five, queries, repeats)
            yield recall(index, five, data, queries)
            one.close(), five.close()
            yield from opening(index, Path(folder) / "one")
            yield from tails(index, Path(folder) / "one", queries, seconds)


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=5, help="per turn of reading, with and without a writer")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--out", type=Path, help="also write the figures and the commit to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    taken = []
    for row in rows(args.rows, args.repeats, args.seconds):
        show(row, args.json)
        taken.append(row)
    if args.out:
        facts = {"benchmark": "gallery", "rows": args.rows, "threads": 1, "faiss": faiss.__version__}
        write(args.out, facts | {"target": indexes.TARGET}, taken)
    return int(any(row["holds"] is False for row in taken))


if __name__ == "__main__":
    sys.exit(main())
