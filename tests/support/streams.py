"""Small labelled streams in an embedded log, and learners for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lifelong.following.follower import Follower
from lifelong.following.settings import Follow, StreamSetting
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.plan import Plan
from lifelong.sources.log import Log
from lifelong.sources.record import encode

WIDTH = 6


def samples(count: int, classes: int = 3, seed: int = 0) -> list[tuple[str, bytes]]:
    """Blobs around the axes, in a drawn order; ids count."""
    random = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (count,), generator=random)
    x = 2 * torch.eye(classes, WIDTH)[y] + 0.4 * torch.randn(count, WIDTH, generator=random)
    return [(f"s{seed}-{i}", encode(x[i], int(y[i]))) for i in range(count)]


def messy(count: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """The same with one in ten sent twice (later, again), and one in a hundred that is no sample."""
    clean, random = samples(count, seed=seed), torch.Generator().manual_seed(seed + 1)
    found = []
    for i, record in enumerate(clean):
        found.append(record)
        if torch.rand(1, generator=random) < 0.1:
            again = clean[max(0, i - int(torch.randint(40, (1,), generator=random)))]
            found.append(again)
        if torch.rand(1, generator=random) < 0.01:
            found.append((f"poison{seed}-{i}", b"no record at all"))
    return found


def log(folder: Path, records: list[tuple[str, bytes]]) -> Path:
    """A log that holds records as they are, duplicates too (an embedded log alone would leave them out)."""
    with Log(folder, create=True) as made:
        made._db.execute("DROP TABLE records")
        made._db.execute(
            'CREATE TABLE records("offset" INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT, time REAL, payload BLOB)'
        )
        for i, (sid, payload) in enumerate(records):
            made._db.execute("INSERT INTO records(sid, time, payload) VALUES (?, ?, ?)", (sid, float(i), payload))
    return folder


def learner(strategy: Any = None, settings: Follow | None = None, **options: Any) -> Learner:
    """A small network under `strategy`, a fresh one each time this is called."""
    spec = {"backbone": {"name": "mlp", "inputs": [WIDTH], "hidden": [8]}, "head": {"name": "linear"}}
    if "features" in options:
        spec["backbone"]["features"] = options.pop("features")
    told = StreamSetting(settings.named_kind, settings.provides) if settings else None
    optim = options.pop("optim", Optim(lr=0.1, momentum=0.9))
    return Learner(build(spec, seed=1), strategy, optim=optim, batch_size=8, seed=2, setting=told, **options)


def follower(source: Path, run: Path, make: Any = None, **options: Any) -> Follower:
    """A follower of the log in `source` until its end."""
    settings = {"until": "end", **options.pop("settings", {})}
    follow = Follow(**settings)
    plan = options.pop("plan", Plan(commit_every=options.pop("commit_every", 7), held_out=0.2, compatible=False))
    make = make or (lambda: learner(settings=follow))
    return Follower(make, Log(source, on_gap=follow.on_gap), run, plan=plan, settings=follow, **options)
