"""The key-value bottleneck: a toy like the paper's figure 2, and Fashion-MNIST behind a frozen encoder.

Everything here is fed without boundaries (`partial_fit`): classes come two by two, and no method is told when.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from lifelong.data import load
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.models.features import cached_features
from lifelong.types import Batch
from strategies.dkvb import DiscreteKeyValueBottleneck
from strategies.nmc import NearestMean
from studies.study import Claim, Figures, Study

CACHE = Path(tempfile.gettempdir()) / "lifelong-features"
SIZE = 112  # pixels a side that the encoder sees
CHUNK = 500  # images per file of the cache
POOL, TEST_POOL = 5000, 2500  # images that are encoded once; each seed draws its own from them
TRAIN, TEST, KEYS = 3000, 2000, 1000
BOOKS, PAIRS, INIT_EPOCHS = 256, 512, 5
PROBE_LR, PROBE_EPOCHS = 0.1, 5


def learned(
    strategy: Strategy, parts: list[Batch], *, batch_size: int = 32, lr: float = 0.1, epochs: int = 1
) -> Learner:
    """Learn the parts one after another, each sample `epochs` times before the next part; no boundary is told."""
    spec = {"backbone": {"name": "identity", "inputs": [parts[0].x.shape[1]]}, "head": {"name": "linear"}}
    learner = Learner(build(spec), strategy, optim=Optim(lr=lr), batch_size=batch_size)
    for part in parts:
        for _ in range(epochs):
            learner.partial_fit(part.x, part.y, part.ids)
    return learner


def scored(name: str, strategy: Strategy, parts: list[Batch], test: Batch, **how: float) -> Figures:
    """Return `NAME.acc` on `test` and `NAME.seconds`."""
    begun = time.process_time()
    learner = learned(strategy, parts, **how)  # type: ignore[arg-type]
    spent = time.process_time() - begun
    right = sum(int(p == y) for p, y in zip(learner.predict(test.x), test.y.tolist(), strict=True))
    return {f"{name}.acc": right / len(test), f"{name}.seconds": spent}


def two_by_two(data: Batch, random: torch.Generator) -> list[Batch]:
    """Return the samples of two classes at a time, classes and samples in an order that is drawn."""
    classes = torch.randperm(int(data.y.max()) + 1, generator=random)
    rows = [torch.isin(data.y, pair).nonzero()[:, 0] for pair in classes.split(2)]
    return [data.take(r[torch.randperm(len(r), generator=random)]) for r in rows]


def toy(seed: int, root: str | None, small: bool) -> Figures:  # noqa: ARG001 - the same, small or not
    """Eight Gaussian classes in the unit square, two at a time; inputs without labels cover the square."""
    random = torch.Generator().manual_seed(seed)
    side = torch.tensor([0.15, 0.5, 0.85])
    centres = torch.cartesian_prod(side, side)[torch.randperm(9, generator=random)[:8]]
    y = torch.arange(8).repeat_interleave(100)
    train, test = (Batch.of(centres[y] + 0.035 * torch.randn(800, 2, generator=random), y) for _ in range(2))
    inputs, parts = torch.rand(2000, 2, generator=random), two_by_two(train, random)
    ours = DiscreteKeyValueBottleneck(books=20, pairs=64, dim_key=2, init=inputs, seed=seed)
    return scored("dkvb", ours, parts, test) | scored("probe", Strategy(), parts, test, lr=0.5, epochs=20)


def encoded(x: Tensor, seed: int) -> Tensor:
    """Return frozen EfficientNet-lite0 features; processes that start together begin at different chunks."""
    encoder = build(
        {"backbone": {"name": "lite", "inputs": list(x.shape[1:]), "size": SIZE}, "head": {"name": "linear"}}
    ).backbone
    parts = list(x.split(CHUNK))
    first = seed * (len(parts) // 2) % len(parts)
    for part in parts[first:] + parts[:first]:
        cached_features(encoder, part, folder=CACHE)
    return torch.cat([cached_features(encoder, part, folder=CACHE) for part in parts])


def drawn(seed: int, root: str | None, small: bool) -> tuple[Batch, Batch, dict[str, Tensor], torch.Generator]:
    """Return training and test samples as features, and features without labels: of other images, and of digits."""
    random = torch.Generator().manual_seed(seed)
    data = load("fashion-mnist", root=root)
    assert data.test is not None
    many, held = (800, 400) if small else (POOL, TEST_POOL)
    train, test = data.train[:many], data.test[:held]
    x, test_x = (b.x.flatten(1) if small else encoded(b.x, seed) for b in (train, test))
    rows, test_rows = torch.randperm(many, generator=random), torch.randperm(held, generator=random)
    count, keys, tests = (600, 200, 400) if small else (TRAIN, KEYS, TEST)
    unlabelled = {"same": x[rows[count : count + keys]]}
    if not small:
        unlabelled["digits"] = encoded(load("mnist10k", root=root).train.x[:keys], seed)
    own = Batch(x, train.y, train.ids, train.task).take(rows[:count])
    return own, Batch(test_x, test.y, test.ids, test.task).take(test_rows[:tests]), unlabelled, random


def fashion(seed: int, root: str | None, small: bool) -> Figures:
    """Fashion-MNIST five times two classes; small: 600 images as raw pixels, without an encoder."""
    train, test, unlabelled, random = drawn(seed, root, small)
    parts = two_by_two(train, random)
    mixed = [train.take(torch.randperm(len(train), generator=random))]
    sizes = {"books": 64, "pairs": 128} if small else {"books": BOOKS, "pairs": PAIRS}
    how = {**sizes, "init_samples": len(unlabelled["same"]), "init_epochs": INIT_EPOCHS, "seed": seed}

    def ours(init: Tensor | None) -> Strategy:
        return DiscreteKeyValueBottleneck(**how, init=init)  # type: ignore[arg-type]

    probe = {"lr": PROBE_LR, "epochs": PROBE_EPOCHS}
    found = scored("nmc", NearestMean(), parts, test)
    found |= scored("dkvb", ours(unlabelled["same"]), parts, test)
    found |= scored("dkvb_iid", ours(unlabelled["same"]), mixed, test)
    found |= scored("dkvb_stream_keys", ours(None), parts, test)
    if "digits" in unlabelled:
        found |= scored("dkvb_digit_keys", ours(unlabelled["digits"]), parts, test)
    found |= scored("probe", Strategy(), parts, test, **probe)
    return found | scored("probe_iid", Strategy(), mixed, test, **probe)


STUDIES = [
    Study(
        "bottleneck-toy",
        toy,
        [
            Claim(
                "dkvb-toy",
                "Eight classes in the plane, two at a time, without boundaries: the bottleneck learns them all",
                lambda f: f["dkvb.acc"],
                ">",
                0.95,
                paper="figure 2: the bottleneck keeps all classes, linear and MLP probes forget",
                methods=["dkvb", "probe"],
                smoke=True,
            ),
            Claim("dkvb-toy-probe", "... and a linear probe forgets", lambda f: f["probe.acc"], "<", 0.4, smoke=True),
        ],
        tuned="nothing; sizes are those of the test, keys are placed by 2,000 uniform inputs without labels",
    ),
    Study(
        "bottleneck-fashion",
        fashion,
        [
            Claim(
                "dkvb-order",
                "Two classes at a time, without boundaries, is as good as its own i.i.d. run (difference)",
                lambda f: f["dkvb.acc"] - f["dkvb_iid.acc"],
                ">=",
                -0.01,
                paper="class-incremental close to i.i.d. on frozen encoders (numbers not reachable)",
                methods=["dkvb", "dkvb_iid"],
                smoke=True,
            ),
            Claim(
                "dkvb-nmc",
                "At least as good as the nearest class mean on the same features (difference of accuracies)",
                lambda f: f["dkvb.acc"] - f["nmc.acc"],
                ">=",
                0.0,
                methods=["dkvb", "nmc"],
            ),
            Claim(
                "dkvb-probe",
                "A linear probe trained task by task is far below it (difference of accuracies)",
                lambda f: f["dkvb.acc"] - f["probe.acc"],
                ">",
                0.2,
                paper="linear probes collapse",
                methods=["dkvb", "probe"],
                smoke=True,
            ),
            Claim("dkvb-fashion", "Its accuracy", lambda f: f["dkvb.acc"], ">=", 0.0, required=False),
            Claim(
                "dkvb-stream-keys",
                "What keys cost that the stream's first 1,000 samples place, instead of other images of the same kind",
                lambda f: f["dkvb_stream_keys.acc"] - f["dkvb.acc"],
                "<=",
                0.0,
                required=False,
            ),
            Claim(
                "dkvb-digit-keys",
                "What keys cost that 1,000 images of digits place (0 where it was not measured)",
                lambda f: f.get("dkvb_digit_keys.acc", f["dkvb.acc"]) - f["dkvb.acc"],
                "<=",
                0.0,
                required=False,
            ),
        ],
        tuned="on features of mnist10k (books, pairs, lr); keys placed by 1,000 other training images without labels",
    ),
]
