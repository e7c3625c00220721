"""`lifelong gallery ...`: what is done to a gallery beside serving it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn

from lifelong.commands import tables
from lifelong.errors import DataError, NotFound
from lifelong.gallery.base import Row
from lifelong.gallery.opening import opened
from lifelong.gallery.upgrade import Embed, Progress
from lifelong.gallery.upgrade import upgrade as upgraded
from lifelong.models import outputs
from lifelong.release.locate import locate as located

SECONDS = 5.0  # between two lines about how far it is


def upgrade(
    *, location: str, registry: Path | str, originals: Path, version: int | None, rate: float, batch: int, as_json: bool
) -> None:
    """Embed originals with a version and store the vectors in place of older ones."""
    if not originals.is_dir():
        raise NotFound(f"there is no folder of originals at {originals}; it holds one file ID.npy for each row")
    found = located(registry)
    number = version if version is not None else found.current()
    if number is None:
        raise NotFound(f"nothing is live in {registry}; name a version with --version")
    snapshot = found.load(number)
    if "://" not in location and not (Path(location) / "items.sqlite").is_file():
        raise NotFound(f"there is no gallery in {location}; name the folder that lifelong serve --state was given")
    embed = embedder(snapshot.build(), originals, tuple(int(n) for n in snapshot.input["shape"]))
    with opened(location, threads=1) as gallery:
        told = None if as_json else _teller(rate)
        done = upgraded(gallery, snapshot.space, embed, rate=rate, batch=batch, told=told)
    if as_json:
        tables.emit({"version": number, "space": snapshot.space.id, **asdict(done)})
        return
    tables.show(f"Upgrade to version {number}", ["rows", "number"], [[k, v] for k, v in asdict(done).items()])


def embedder(model: nn.Module, folder: Path, shape: tuple[int, ...]) -> Embed:
    """Return what embeds the rows whose originals lie in `folder` as `ID.npy`, arrays of `shape`."""

    def embed(rows: Sequence[Row]) -> dict[str, np.ndarray[Any, Any]]:
        samples = {row.id: sample for row in rows if (sample := _original(folder, row.id, shape)) is not None}
        if not samples:
            return {}
        with torch.inference_mode():
            features = outputs(model, torch.from_numpy(np.stack(list(samples.values())))).features.numpy()
        return dict(zip(samples, features, strict=True))

    return embed


def _original(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    path = folder / f"{name}.npy"
    if path.name != f"{name}.npy" or not path.is_file():  # an id with a slash names no file here
        return None
    try:
        sample = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"original {path} is not an array: {error}; replace or remove it") from error
    if sample.shape != shape:
        raise DataError(f"original {path} needs shape {list(shape)}, got {list(sample.shape)}; replace or remove it")
    return np.asarray(sample, np.float32)


def _teller(rate: float) -> Callable[[Progress], None]:
    last = time.monotonic()

    def tell(done: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            click.echo(f"{done.looked} of {done.rows} rows, {done.renewed} renewed (at most {rate:g} rows/s)")

    return tell
