"""A new version of ten classes searches what an old version of five wrote: bct, bt2, align, and nothing done.

Fashion-MNIST; test images are queries and gallery, none meets itself; recall at 1 unless another measure is named.
"""

from __future__ import annotations

from typing import Any

import torch

from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.release.compat import cross_matrix
from lifelong.types import Experience
from strategies.align import Align
from strategies.bct import BackwardCompatible
from strategies.bt2 import BasisTransformation
from studies.retrieval import COSINE, drawn, embedded, mixed, of_classes, searched, summed_up, version
from studies.study import Claim, Figures, Study

WIDTH, EXTRA = 32, 8
BT2: dict[str, Any] = {"extra": EXTRA}
TUNED = "on 1,000 training images held out, seeds 0 to 2: width of the features, weights of bt2"


def mlp(hidden: int = 128) -> dict[str, Any]:
    """Return the spec of an MLP."""
    return {"backbone": {"name": "mlp", "inputs": [1, 28, 28], "hidden": [hidden], "features": WIDTH}, "head": COSINE}


def conv(*channels: int) -> dict[str, Any]:
    """Return the spec of a small CNN."""
    body = {"name": "conv", "inputs": [1, 28, 28], "channels": list(channels), "features": WIDTH}
    return {"backbone": body, "head": COSINE}


def update(
    seed: int, root: str | None, small: bool, before: dict[str, Any], after: dict[str, Any], rows: int, epochs: int
) -> Figures:
    """Train an old version of five classes, and new ones of ten in every way; search with all of them."""
    train, test, held = drawn(root, seed, 1500 if small else rows, 500 if small else 2000, 500)
    epochs = 2 if small else epochs
    old, _ = version(before, None, of_classes(train, range(5)), epochs=epochs, seed=seed)
    z = embedded(old, test)
    found = searched("old", z, z, test.y)
    ways = {
        "independent": None,
        "bct": BackwardCompatible(old=old),
        "bt2": BasisTransformation(**BT2, old=old),
        "align": Align(old=old),
        "align_ridge": Align("ridge", old=old),
    }
    for name, strategy in ways.items():
        new, seconds = version(after, strategy, train, epochs=epochs, seed=seed + 100)
        found |= searched(name, embedded(new, test), z, test.y) | {f"{name}.seconds": seconds}
        if name == "bt2":
            found |= mixed(embedded(new, test), z, test.y, embedded(new, held), embedded(old, held), held.y)
    return found


def of_mlps(seed: int, root: str | None, small: bool) -> Figures:
    """An MLP follows an MLP."""
    return update(seed, root, small, mlp(), mlp(), 6000, 10)


def of_convs(seed: int, root: str | None, small: bool) -> Figures:
    """A CNN follows a smaller CNN."""
    return update(seed, root, small, conv(6, 12), conv(8, 16), 4000, 6)


def chain(seed: int, root: str | None, small: bool) -> Figures:
    """Six versions of 5, 6, ... 10 classes, each trained on all images of its classes."""
    train, test, _ = drawn(root, seed, 1500 if small else 4000, 500 if small else 2000)
    found: Figures = {}
    optim = Optim(name="adam", lr=1e-3)
    for name, strategy in {"bt2": BasisTransformation(**BT2), "bct": BackwardCompatible()}.items():
        learner = Learner(build(mlp(), seed=seed), strategy, optim=optim, batch_size=64, seed=seed)
        features, widths = [], []
        for index in range(6):
            data = of_classes(train, range(5 + index))
            learner.fit(Experience(index, f"{5 + index} classes", list(range(5 + index)), data), 2 if small else 6)
            features.append(embedded(learner.model, test))
            widths.append(learner.model.dim)
        c = cross_matrix(features, features, test.y, test.y, same=True)
        found |= summed_up(name, c)
        late, early = torch.tril_indices(6, 6, -1)
        found |= {f"{name}.least": (c[late, early] - c.diagonal()[early]).min().item()}
        found |= {f"{name}.grown": float(widths[-1] - widths[0])}
    return found


def _claims(name: str, gain: float) -> list[Claim]:
    return [
        Claim(f"{name}/bt2-beats-old", "bt2: new queries in the old gallery beat the old ones there",
              lambda f: f["bt2.cross_r1"] - f["old.own_r1"], ">", gain,
              "CIFAR-100: 38.7 against 33.6", ["bt2"], smoke=False),
        Claim(f"{name}/independent-finds-nothing", "an independent model's queries in the old gallery",
              lambda f: f["independent.cross_r1"], "<", 0.2, "CIFAR-100: .8 against 33.6", ["independent"]),
        Claim(f"{name}/bt2-costs-nothing", "bt2 among its own rows, against an independent model",
              lambda f: f["bt2.own_r1"] - f["independent.own_r1"], ">=", -0.015, "CIFAR-100: 62.4 against 62.7",
              ["bt2", "independent"], smoke=False),
        Claim(f"{name}/bt2-and-bct", "bt2 against bct in the old gallery",
              lambda f: f["bt2.cross_r1"] - f["bct.cross_r1"], ">=", 0.0, "CIFAR-100: 38.7 against 25.0",
              ["bt2", "bct"], smoke=False),
        Claim(f"{name}/bt2-and-align", "bt2 against the orthogonal map in the old gallery",
              lambda f: f["bt2.cross_r1"] - f["align.cross_r1"], ">", 0.0, None, ["bt2", "align"], smoke=False),
        Claim(f"{name}/mixed-slice", "a gallery of both versions: cosine of the slice against the padded cosine, map",
              lambda f: f["mixed.slice_map"] - f["mixed.padded_map"], ">", 0.0, required=False),
    ]  # fmt: skip


STUDIES: list[Study] = [
    Study("compatible-mlp", of_mlps, _claims("compatible-mlp", 0.02), TUNED),
    Study("compatible-conv", of_convs, _claims("compatible-conv", 0.02), TUNED),
    Study("compatible-chain", chain, [
        Claim("compatible-chain/pairs", "bt2: share of the 15 pairs of versions in which C[t, k] > C[k, k]",
              lambda f: f["bt2.ac_strict"], ">=", 0.0, "every pair", ["bt2"], required=False),
        Claim("compatible-chain/bt2-and-bct", "bt2 against bct, mean over all pairs (AA)",
              lambda f: f["bt2.aa"] - f["bct.aa"], ">", 0.0, None, ["bt2", "bct"], required=False),
        Claim("compatible-chain/width", "coordinates added by five updates", lambda f: f["bt2.grown"], "<=",
              5.0 * EXTRA, "A each", smoke=True),
    ], TUNED),
]  # fmt: skip
