"""A new version of ten classes searches what an old version of five wrote: bct, bt2, align, and nothing done.

Fashion-MNIST; test images are queries and gallery, none meets itself; recall at 1 unless another measure is named. The
model that bt2 goes on from, and keeps whole, is the one that is called independent. bct trains from the same draw of
weights for as many passes as both together (MLPs), or goes on from the same model for as many passes as bt2 (CNNs).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lifelong.models import Classifier
from lifelong.release.compat import cross_matrix, mean_average_precision
from lifelong.types import Batch
from strategies.bct import BackwardCompatible
from strategies.bt2 import BasisTransformation
from studies.retrieval import COSINE, aligned, drawn, embedded, further, of_classes, searched, summed_up, version
from studies.study import Claim, Figures, Study

WIDTH, EXTRA = 32, 32
STEP, SIZES = (
    16,
    (1000, 1000, 2000, 4000, 8000, 8000),
)  # A of the chain, images that each of its versions was trained on
KNOWN = {"rows": 0, "scale": 10.0, "features": 60.0, "classes": 5.0}  # where the old version knew all classes
TUNED = "on 2,000 training images held out, seeds 10 to 14: width, weights and form of bt2, learning rates, passes"


def mlp(hidden: int = 128) -> dict[str, Any]:
    """Return the spec of an MLP."""
    return {"backbone": {"name": "mlp", "inputs": [1, 28, 28], "hidden": [hidden], "features": WIDTH}, "head": COSINE}


def conv(*channels: int) -> dict[str, Any]:
    """Return the spec of a small CNN."""
    body = {"name": "conv", "inputs": [1, 28, 28], "channels": list(channels), "features": WIDTH}
    return {"backbone": body, "head": COSINE}


def of_mlps(seed: int, root: str | None, small: bool) -> Figures:
    """An MLP follows an MLP."""
    train, test, _ = drawn(root, seed, 1500 if small else 6000, 500 if small else 2000, 500)
    epochs, more = (4, 3) if small else (10, 6)
    old, _ = version(mlp(), None, of_classes(train, range(5)), epochs=epochs, seed=seed)
    alone, seconds = version(mlp(), None, train, epochs=epochs, seed=seed + 100)
    found = {"independent.seconds": seconds} | unbound(old, alone, train, test)
    bct, seconds = version(mlp(), BackwardCompatible(old=old), train, epochs=epochs + more, seed=seed + 100)
    found |= {"bct.seconds": seconds} | asked("bct", bct, old, test)
    found |= updated("bt2", old, alone, train, test, more, seed)[1]
    return found | updated("bt2_means", old, alone, train, test, more, seed, rows=0, scale=10.0)[1]


def of_convs(seed: int, root: str | None, small: bool) -> Figures:
    """A CNN follows a smaller CNN; and the same CNN follows an MLP."""
    train, test, _ = drawn(root, seed, 1000 if small else 3000, 500 if small else 2000)
    epochs, more = (3, 3) if small else (8, 4)
    five = of_classes(train, range(5))
    old, _ = version(conv(6, 12), None, five, epochs=epochs, seed=seed, lr=2e-3)
    alone, seconds = version(conv(8, 16), None, train, epochs=epochs, seed=seed + 100, lr=2e-3)
    found = {"independent.seconds": seconds} | unbound(old, alone, train, test)
    bct, seconds = further(alone, BackwardCompatible(old=old), train, epochs=more, seed=seed + 100)
    found |= {"bct.seconds": seconds} | asked("bct", bct, old, test)
    found |= updated("bt2", old, alone, train, test, more, seed)[1]
    flat, _ = version(mlp(), None, five, epochs=epochs + 2, seed=seed)
    z = embedded(flat, test)
    found |= searched("mlp", z, z, test.y) | updated("bt2_mlp", flat, alone, train, test, more, seed)[1]
    return found


def chain(seed: int, root: str | None, small: bool) -> Figures:
    """A version of five classes, then five updates of all ten: on more images each, the last one a wider network."""
    sizes = tuple(max(200, size // 16) for size in SIZES) if small else SIZES
    train, test, _ = drawn(root, seed, max(sizes), 500 if small else 2000)
    five = of_classes(train[: sizes[0]], range(5))
    last, _ = version(mlp(), None, five, epochs=passes(sizes[0], 6), seed=seed)
    features, found = [embedded(last, test)], {}
    for index, size in enumerate(sizes[1:], 1):
        data, drawn_by, spec = train[:size], seed + 100 * index, mlp(256 if index == 5 else 128)
        alone, _ = version(spec, None, data, epochs=passes(size, 6), seed=drawn_by)
        strategy = BasisTransformation(STEP, old=last, new=alone, **({} if index == 1 else KNOWN))
        last, _ = further(alone, strategy, data, epochs=passes(size, 3), seed=drawn_by)
        features.append(embedded(last, test))
        found |= {f"independent.own_{index}": searched("a", *[embedded(alone, test)] * 2, test.y)["a.own_r1"]}
    c = cross_matrix(features, features, test.y, test.y, same=True)
    by_map = cross_matrix(features, features, test.y, test.y, same=True, measure=mean_average_precision)
    found |= summed_up("bt2", c) | summed_up("bt2_map", by_map) | pairs("c", c) | pairs("map", by_map)
    widths = [z.shape[1] for z in features]
    return found | {"grown": float(max(after - before for before, after in pairwise(widths)))}


def passes(size: int, least: int) -> int:
    """Return how often `size` images are passed over: as many steps for any number of them, within bounds."""
    return min(20, max(least, 8000 * least // size))


def pairs(name: str, c: Tensor) -> Figures:
    """Return all of C below and on its diagonal, and the least gain over a self-test."""
    late, early = torch.tril_indices(len(c), len(c), -1)
    kept = {f"{name}.{t}_{k}": c[t, k].item() for t in range(len(c)) for k in range(t + 1)}
    return kept | {f"{name}.least": (c[late, early] - c.diagonal()[early]).min().item()}


def asked(name: str, new: Classifier, old: Classifier, test: Batch) -> Figures:
    """Return what the new version's queries find in the old gallery and in its own."""
    return searched(name, embedded(new, test), embedded(old, test), test.y)


def unbound(old: Classifier, alone: Classifier, train: Batch, test: Batch) -> Figures:
    """Return what the old version finds for itself, and what a new one does that knows nothing of it."""
    z = embedded(old, test)
    found = searched("old", z, z, test.y) | asked("independent", alone, old, test)
    return found | aligned("align", alone, old, train, test)


def updated(
    name: str,
    old: Classifier,
    alone: Classifier,
    train: Batch,
    test: Batch,
    epochs: int,
    seed: int,
    **settings: Any,  # noqa: ANN401
) -> tuple[Classifier, Figures]:
    """Return the model that bt2 makes of `alone`, and what it finds."""
    strategy = BasisTransformation(EXTRA, old=old, new=alone, **settings)
    new, seconds = further(alone, strategy, train, epochs=epochs, seed=seed + 100)
    return new, asked(name, new, old, test) | {f"{name}.seconds": seconds}


def _claims(name: str) -> list[Claim]:
    return [
        Claim(f"{name}/bt2-beats-old", "bt2: new queries in the old gallery beat the old ones there",
              lambda f: f["bt2.cross_r1"] - f["old.own_r1"], ">", 0.02,
              "CIFAR-100: 38.7 against 33.6", ["bt2"]),
        Claim(f"{name}/independent-finds-nothing", "an independent model's queries in the old gallery",
              lambda f: f["independent.cross_r1"], "<", 0.2, "CIFAR-100: .8 against 33.6", ["independent"]),
        Claim(f"{name}/bt2-costs-nothing", "bt2 among its own rows, against an independent model",
              lambda f: f["bt2.own_r1"] - f["independent.own_r1"], ">=", -0.015, "CIFAR-100: 62.4 against 62.7",
              ["bt2", "independent"]),
        Claim(f"{name}/bt2-and-bct", "bt2 against bct in the old gallery",
              lambda f: f["bt2.cross_r1"] - f["bct.cross_r1"], ">=", 0.0, "CIFAR-100: 38.7 against 25.0",
              ["bt2", "bct"], smoke=True),
        Claim(f"{name}/bt2-and-align", "bt2 against the orthogonal map in the old gallery",
              lambda f: f["bt2.cross_r1"] - f["align_orthogonal.cross_r1"], ">", 0.0, None, ["bt2"], smoke=True),
        Claim(f"{name}/bt2-map", "mean average precision: new queries of bt2 in the old gallery beat the old ones",
              lambda f: f["bt2.cross_map"] - f["old.own_map"], ">", 0.0, "CIFAR-100: 27.7 against 24.4", ["bt2"]),
    ]  # fmt: skip


STUDIES: list[Study] = [
    Study("compatible-mlp", of_mlps, [
        *_claims("compatible-mlp"),
        Claim("compatible-mlp/means-and-bct", "bt2 with class means as published (rows=0) against bct",
              lambda f: f["bt2_means.cross_r1"] - f["bct.cross_r1"], ">=", 0.0, "CIFAR-100: 38.7 against 25.0",
              ["bt2_means", "bct"], required=False),
    ], TUNED),
    Study("compatible-conv", of_convs, [
        *_claims("compatible-conv"),
        Claim("compatible-conv/bt2-follows-an-mlp", "bt2: a CNN's queries in an MLP's gallery beat the MLP's own",
              lambda f: f["bt2_mlp.cross_r1"] - f["mlp.own_r1"], ">", 0.02, None, ["bt2_mlp"]),
        Claim("compatible-conv/following-costs-nothing", "the same CNN among its own rows, against an independent one",
              lambda f: f["bt2_mlp.own_r1"] - f["independent.own_r1"], ">=", -0.015),
    ], TUNED),
    Study("compatible-chain", chain, [
        Claim("compatible-chain/least", "bt2: least C[t, k] - C[k, k] of all 15 pairs of versions",
              lambda f: f["c.least"], ">", 0.0, "every pair", required=False),
        Claim("compatible-chain/pairs", "bt2: share of the 15 pairs in which C[t, k] > C[k, k]",
              lambda f: f["bt2.ac_strict"], ">=", 1.0, "every pair", required=False),
        Claim("compatible-chain/map-pairs", "bt2: the same share by mean average precision",
              lambda f: f["bt2_map.ac_strict"], ">=", 1.0, "every pair", required=False),
        Claim("compatible-chain/last-costs-nothing", "the last version among its own rows, against an independent one",
              lambda f: f["bt2.last"] - f["independent.own_5"], ">=", -0.015, required=False),
        Claim("compatible-chain/width", "the most coordinates that one of five updates added", lambda f: f["grown"],
              "<=", STEP, "A each", smoke=True),
    ], TUNED),
]  # fmt: skip
