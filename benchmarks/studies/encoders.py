"""A better frozen encoder takes the place of another one: EfficientNet-lite0 at 64 pixels, then lite2 at 112.

Fashion-MNIST, ten classes before and after; what trains is a small network on top of the encoder. Features of both
encoders are computed once and kept under `runs/features`. Without the encoders' packages the study cannot run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lifelong.models import build
from lifelong.models.features import cached_features
from lifelong.types import Batch
from strategies.bct import BackwardCompatible
from strategies.simplex import Simplex
from studies.compatible import asked, unbound, updated
from studies.retrieval import COSINE, drawn, embedded, searched, version
from studies.study import Claim, Figures, Study

CACHE = Path(__file__).resolve().parents[2] / "runs" / "features"
ENCODERS = (("lite0", 64), ("lite2", 112))
MEANS = {"rows": 0, "scale": 10.0}  # the old version knows all classes: its rows of training images tell nothing more
TUNED = "as compatible-mlp; class means or rows, and the weight of the old features: on 1,000 training images held out"
WIDE = 1280  # features of each encoder


def on(encoder: int, features: int = 32) -> dict[str, Any]:
    """Return the spec of a small network on one encoder's features, of the two that stand side by side."""
    columns = {"name": "columns", "inputs": [2 * WIDE], "first": encoder * WIDE, "count": WIDE}
    top = {"name": "mlp", "inputs": [WIDE], "hidden": [128], "features": features}
    return {"backbone": {"name": "stack", "parts": [columns, top]}, "head": COSINE}


def encoded(batch: Batch) -> Batch:
    """Return the features of both encoders side by side, `[N, 2560]`."""
    parts = []
    for variant, size in ENCODERS:
        body = {"name": "lite", "inputs": list(batch.x.shape[1:]), "variant": variant, "size": size}
        encoder = build({"backbone": body, "head": {"name": "linear"}}).backbone
        parts.append(cached_features(encoder, batch.x, folder=CACHE))
    return Batch(torch.cat(parts, 1), batch.y, batch.ids, batch.task)


def change(seed: int, root: str | None, small: bool) -> Figures:
    """Train on the first encoder, then in every way on the second; the images are the same for all seeds."""
    train, test, _ = drawn(root, 0, 200, 100) if small else drawn(root, 0, 3000, 1000)
    train, test = encoded(train), encoded(test)
    epochs = 2 if small else 10
    more = 1 if small else 6
    old, _ = version(on(0), None, train, epochs=epochs, seed=seed)
    alone, seconds = version(on(1), None, train, epochs=epochs, seed=seed + 100)
    found = {"independent.seconds": seconds} | unbound(old, alone, train, test)
    bct, seconds = version(on(1), BackwardCompatible(old=old), train, epochs=epochs + more, seed=seed + 100)
    found |= {"bct.seconds": seconds} | asked("bct", bct, old, test)
    found |= updated("bt2", old, alone, train, test, more, seed, **MEANS)[1]
    fixed = [
        embedded(version(on(which, 63), Simplex(distill=0.0), train, epochs=epochs, seed=seed + which)[0], test)
        for which in (0, 1)
    ]
    return found | searched("simplex", fixed[1], fixed[0], test.y) | searched("simplex_old", fixed[0], fixed[0], test.y)


STUDIES: list[Study] = [
    Study("encoder-change", change, [
        Claim("encoder-change/bt2-beats-old", "bt2: queries of the new encoder in the old gallery beat the old ones",
              lambda f: f["bt2.cross_r1"] - f["old.own_r1"], ">", 0.0, None, ["bt2"]),
        Claim("encoder-change/bt2-and-align", "bt2 against the orthogonal map in the old gallery",
              lambda f: f["bt2.cross_r1"] - f["align_orthogonal.cross_r1"], ">", 0.0, None, ["bt2", "align"]),
        Claim("encoder-change/bt2-costs-nothing", "bt2 among its own rows, against an independent model",
              lambda f: f["bt2.own_r1"] - f["independent.own_r1"], ">=", -0.015, None, ["bt2", "independent"]),
        Claim("encoder-change/simplex-beats-old", "simplex: queries of the new encoder in the old simplex gallery",
              lambda f: f["simplex.cross_r1"] - f["simplex_old.own_r1"], ">", 0.0, required=False),
        Claim("encoder-change/bt2-and-bct", "bt2 against bct in the old gallery",
              lambda f: f["bt2.cross_r1"] - f["bct.cross_r1"], ">=", 0.0, None, ["bt2", "bct"], required=False),
    ], TUNED),
]  # fmt: skip
