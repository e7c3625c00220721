"""What a gallery in PostgreSQL costs: storing, indexing, one and 64 queries, and recall.

    python benchmarks/pgvector.py --out benchmarks/results/pgvector.json    # 50,000 rows of 128, a few minutes
    python benchmarks/pgvector.py --rows 12000                              # a look

A real server on this machine, from the wheel of the tests. Wall time, medians: most of it passes in the server. The
embedded gallery answers the same queries in turns, exactly.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from figures import ROOT, figure, show, write
from gallery import ONE, WIDTH, vectors

from lifelong.gallery.base import Gallery
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.pgvector import PgVectorGallery

sys.path.insert(0, str(ROOT / "tests" / "support"))
STEP = 5000


def taken(run: Callable[[], object], repeats: int) -> float:
    """Return the median wall seconds of a call."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def filled(gallery: Gallery, data: np.ndarray) -> float:
    """Add all rows, and return the seconds that it took."""
    begun = time.perf_counter()
    for start in range(0, len(data), STEP):
        some = data[start : start + STEP]
        gallery.add(range(start, start + len(some)), some, ONE)
    return time.perf_counter() - begun


def rows(count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield all figures."""
    from postgres import served

    data, queries = vectors(count, 1)[:, :WIDTH], np.ascontiguousarray(vectors(256, 2)[:, :WIDTH])
    with served() as server, tempfile.TemporaryDirectory() as folder:
        one = PgVectorGallery(server.dsn(), schema="one", background=False)
        near = EmbeddedGallery(folder, threads=1, index="flat", background=False)
        filled(near, data)
        near.compact()
        yield figure("pgvector_add", count / filled(one, data), "rows/s")
        for batch in (1, 64):
            some = queries[:batch]
            seconds = taken(lambda: one.search(some, ONE, 10, exact=True), max(3, repeats // 5))  # noqa: B023
            yield figure(f"pgvector_exact_batch{batch}", seconds * 1e3, "ms")
        begun = time.perf_counter()
        one.compact()
        yield figure("pgvector_index", time.perf_counter() - begun, "s")
        for batch in (1, 64):
            some = queries[:batch]
            seconds = taken(lambda: one.search(some, ONE, 10), repeats)  # noqa: B023
            flat = taken(lambda: near.search(some, ONE, 10), repeats)  # noqa: B023
            yield figure(f"pgvector_hnsw_batch{batch}", seconds * 1e3, "ms")
            yield figure(f"pgvector_hnsw_over_embedded_flat_batch{batch}", seconds / flat, "ratio")
        found, truth = one.search(queries, ONE, 10), near.search(queries, ONE, 10)
        shared = [len({h.id for h in a} & {h.id for h in b}) / 10 for a, b in zip(found, truth, strict=True)]
        yield figure("pgvector_hnsw_recall_at_10", float(np.mean(shared)), "share", ">=", 0.95)
        exact = one.search(queries[:16], ONE, 10, exact=True)
        same = sum(a == b for a, b in zip(exact, truth, strict=False)) / len(exact)
        yield figure("pgvector_exact_equals_embedded", same, "share", ">=", 1.0)
        yield figure("pgvector_bytes_per_row", one.stats().bytes / count, "bytes")
        one.close(), near.close()


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--out", type=Path, help="also write the figures and the commit to this file")
    args = parser.parse_args()
    seen = []
    for row in rows(args.rows, args.repeats):
        show(row, args.json)
        seen.append(row)
    if args.out:
        write(args.out, {"benchmark": "pgvector", "rows": args.rows}, seen)
    return int(any(row["holds"] is False for row in seen))


if __name__ == "__main__":
    sys.exit(main())
