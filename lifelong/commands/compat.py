"""`lifelong compat`: the cross-version matrix of a registry, measured on test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lifelong.commands import tables
from lifelong.data import load
from lifelong.errors import DataError, UnknownName
from lifelong.models import outputs
from lifelong.release.compat import MEASURES, summary
from lifelong.release.registry import Registry
from lifelong.release.snapshot import Snapshot
from lifelong.types import Batch


def run(*, registry: Path, measure: str, data_root: Path | None, as_json: bool) -> None:
    """Print C, its summary, and where the numbers come from."""
    if measure not in MEASURES:
        raise UnknownName.among("measure", measure, MEASURES)
    found = Registry(registry)
    snapshots = [found.load(version) for version in found.versions()]
    if not snapshots:
        raise DataError(f"{registry} has no version yet; train one: lifelong train --registry {registry}")
    name = snapshots[-1].training.get("scenario", {}).get("data", {}).get("name")
    if not name:
        raise DataError("these versions do not say what data they were trained on; measure them in Python instead")
    data = load(name, root=data_root)
    if data.test is None:
        raise DataError(f"{name} has no test split to measure on")
    matrix = cross(snapshots, data.test, data.classes, measure)
    defined = summary(matrix).items() if len(snapshots) > 1 else []
    numbers = {name: value for name, value in defined if value == value}
    values = [[v for v in row if v == v] for row in matrix.tolist()]
    if as_json:
        versions = [s.version for s in snapshots]
        tables.emit({"measure": measure, "versions": versions, "matrix": values, "data": data.facts(), **numbers})
        return
    title = f"C[t, k]: {measure} of version t's queries in version k's gallery, classes that k knows ({data.source})"
    tables.matrix(title, values, "queries of", "v", "rows of v")
    tables.show("Summary", ["metric", "value"], list(numbers.items()))


def cross(snapshots: Sequence[Snapshot], test: Batch, classes: Sequence[object], measure: str) -> Tensor:
    """Return C `[T, T]` float64, NaN above the diagonal, on the classes that the gallery's version knows.

    Of each class the first, third, ... test image is written to the galleries, the others are queries: no image
    meets itself. Each version embeds the images once.
    """
    names = [str(c) for c in classes]
    y = torch.tensor([_index(snapshots[-1], names, int(i)) for i in test.y])
    features = [outputs(s.build(), test.x.reshape(len(test), *s.input["shape"])).features for s in snapshots]
    written = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        written[(y == label).nonzero().flatten()[::2]] = True
    size = len(snapshots)
    matrix = torch.full((size, size), torch.nan, dtype=torch.float64)
    for t in range(size):
        for k in range(t + 1):
            known = (y >= 0) & (y < len(snapshots[k].labels))
            q, g = known & ~written, known & written
            matrix[t, k] = MEASURES[measure](features[t][q], y[q], features[k][g], y[g])
    return matrix


def _index(snapshot: Snapshot, names: list[str], label: int) -> int:
    known = [str(known) for known in snapshot.labels]
    return known.index(names[label]) if names[label] in known else -1
