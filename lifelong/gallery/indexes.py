"""Which FAISS index a part gets, how it is trained, and how hard it is searched.

Kinds: `flat` compares with every row and is exact; `ivf` compares, in compressed form, with the lists of rows whose
centres are near; `hnsw` walks a graph; `fp16` compares with every row in half precision. Rows that an index finds are
ranked by their exact scores, whatever the kind. How hard an index is searched (its `effort`) is measured when it is
built: the least effort that finds, for a sample of its own rows, TARGET of their true neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import faiss
import numpy as np

from lifelong.gallery.inputs import Doubles, Floats

KINDS = ("flat", "ivf", "hnsw", "fp16")
LARGE = 50_000  # rows from which `auto` is `ivf`: below, comparing with every row takes less than a millisecond or two
SMALL = 1_000  # rows below which every kind is `flat`
NARROW = 192  # up to this width, 8 bits per coordinate are scanned; above, 4 bits per 4 coordinates choose first
TARGET = 0.985  # share of the true 10 nearest that a sample of rows has to find
EFFORTS = (8, 16, 32, 64, 128, 256, 512)  # lists that are looked into, or length of HNSW's queue
SAMPLE = 128
TRAINED = 64  # rows per list that train its centres
REFINED = 5  # candidates by 4 bits for each one by 8
WIDER = 2  # candidates by 8 bits for each one by the exact score
CHUNK = 65_536  # rows added at once
LEAST = -2.0  # less than any cosine, more than where there is no row
ROUNDING = 2.0**-24
Selector = Any  # FAISS's stubs describe C++, not the wrappers that Python sees
Integers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
_faiss: Any = faiss


def kind_for(choice: str, rows: int) -> str:
    """Return the kind of index of a segment of so many rows; `choice` is `auto` or a kind."""
    kind = ("ivf" if rows >= LARGE else "flat") if choice == "auto" else choice
    return kind if rows >= SMALL else "flat"


def selector(mask: Mask) -> Selector:
    """Return what tells FAISS which rows it may find."""
    return _faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


def scan(queries: Floats, vectors: Floats, k: int, chosen: Selector = None) -> tuple[Floats, Integers]:
    """Return scores and rows, `[M, k]`, of the best of all chosen rows; -1 where there are fewer."""
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    pointers = [_faiss.swig_ptr(array) for array in (queries, vectors)]
    sizes = vectors.shape[1], len(queries), len(vectors), k
    _faiss.knn_inner_product(*pointers, *sizes, _faiss.swig_ptr(scores), _faiss.swig_ptr(rows), chosen)
    return scores, rows


def kth(scores: Floats, k: int) -> Doubles:
    """Return the k-th largest score of each row of `[N, F]`, -inf if there are fewer."""
    if scores.shape[1] < k:
        return np.full(len(scores), -np.inf)
    return np.partition(scores, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k].astype(np.float64)


def error(width: int) -> float:
    """Return by how much a float32 product of two unit vectors may be off."""
    return (width + 8) * ROUNDING


@final
@dataclass(frozen=True, slots=True)
class Quick:
    """An index that may miss a few.

    Args:
        index: FAISS's.
        kind: One of KINDS.
        effort: See `EFFORTS`; 0 for `fp16`, which always looks at all.
        recall: Share (0..1) of true neighbours that it found when it was built.
        bytes: Size, most of it touched by searches.
        scales: What rows of each width were multiplied by; empty where all have one width.
    """

    index: Any
    kind: str
    effort: int = 0
    recall: float = 1.0
    bytes: int = 0
    scales: dict[int, float] = field(default_factory=dict)
    _plain: list[Any] = field(default_factory=list)  # parameters without a selector, made once

    @classmethod
    def built(cls, kind: str, vectors: Floats) -> Quick:
        """Return a trained index of `vectors` `[N, D]`."""
        index = _faiss.index_factory(vectors.shape[1], _recipe(kind, *vectors.shape), _faiss.METRIC_INNER_PRODUCT)
        lists = 2 ** _lists_log2(len(vectors))
        index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // (TRAINED * lists))]))
        for start in range(0, len(vectors), CHUNK):
            index.add(vectors[start : start + CHUNK])
        return cls(index, kind)._tuned(vectors)

    @classmethod
    def read(cls, path: Path, kind: str, effort: int, recall: float, scales: dict[int, float]) -> Quick:
        """Return the index in a file, which stays on disk as far as it is not used."""
        index = _faiss.read_index(str(path), _faiss.IO_FLAG_MMAP_IFC)
        return cls(index, kind, effort, recall, path.stat().st_size, scales)

    def write(self, path: Path) -> None:
        """Write the index into a file."""
        _faiss.write_index(self.index, str(path))

    def search(self, queries: Floats, k: int, chosen: Selector = None, more: int = 1) -> Integers:
        """Return WIDER times as many rows as wanted, `[M, WIDER * k]`, -1 where nothing was found.

        Args:
            queries: `[M, D]`.
            k: Rows wanted; who knows their exact scores finds the best among what is returned.
            chosen: Rows that may be found; None for all.
            more: How many times its usual effort.
        """
        if chosen is None and more == 1:
            if not self._plain:
                self._plain.append(self._parameters(None, self.effort))
            parameters = self._plain[0]
        else:
            parameters = self._parameters(chosen, self.effort * more)
        rows: Integers = self.index.search(queries, WIDER * k, params=parameters)[1]
        return rows

    def _parameters(self, chosen: Selector, effort: int) -> Any:  # noqa: ANN401 - of FAISS
        if self.kind == "fp16":
            return _faiss.SearchParameters(sel=chosen)
        if self.kind == "hnsw":
            return _faiss.SearchParametersHNSW(sel=chosen, efSearch=effort)
        lists = _faiss.SearchParametersIVF(sel=chosen, nprobe=effort)
        if isinstance(self.index, _faiss.IndexRefine):
            return _faiss.IndexRefineSearchParameters(k_factor=REFINED, base_index_params=lists)
        return lists

    def _tuned(self, vectors: Floats) -> Quick:
        queries = np.ascontiguousarray(vectors[:: max(1, len(vectors) // SAMPLE)][:SAMPLE])
        k = min(11, len(vectors))  # each finds itself
        truth = scan(queries, vectors, k)[1]
        quick, recall = self, 0.0
        for effort in _efforts(self.kind, len(vectors)):
            quick = Quick(self.index, self.kind, effort)
            found = quick.search(queries, k)
            recall = float(np.mean([len(set(a) & set(b)) - 1 for a, b in zip(truth, found, strict=True)])) / (k - 1)
            if recall >= TARGET:
                break
        return Quick(self.index, self.kind, quick.effort, recall)


def _efforts(kind: str, rows: int) -> Sequence[int]:
    if kind == "fp16":
        return (0,)
    if kind == "hnsw":
        return [effort for effort in EFFORTS if effort >= 32]  # its queue must hold what is asked for
    lists = 2 ** _lists_log2(rows)
    return [*(effort for effort in EFFORTS if effort < lists), lists]


def _recipe(kind: str, rows: int, width: int) -> str:
    if kind != "ivf":
        return {"hnsw": "HNSW32", "fp16": "SQfp16"}[kind]
    lists = f"IVF{2 ** _lists_log2(rows)}"
    if width <= NARROW:
        return f"{lists},SQ8"
    groups = max(m for m in range(1, width // 4 + 1) if not width % m)
    # an awkward width, a prime one say, has no groups of 4 to 8
    return f"{lists},PQ{groups}x4fs,Refine(SQ8)" if groups >= width // 8 else f"{lists},SQ8"


def _lists_log2(rows: int) -> int:
    """About 4 sqrt(rows) lists, as FAISS advises, and no fewer than 39 rows to train each."""
    return max(0, min(round(math.log2(4 * math.sqrt(rows))), int(math.log2(max(1, rows / 39)))))
