"""`lifelong compat`: the cross-version matrix of a registry, measured on test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lifelong.commands import pictures, tables
from lifelong.data import DataSet, load
from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.models import outputs
from lifelong.release.compat import MEASURES, Measure, recall_at_5, summary, templates
from lifelong.release.locate import locate as located
from lifelong.release.snapshot import Snapshot
from lifelong.types import Batch

ALL: dict[str, Measure] = {**MEASURES, "recall_at_5": recall_at_5}
GALLERIES = ("rows", "templates")


def run(
    *, registry: Path | str, measure: str, gallery: str, data_root: Path | None, picture: Path | None, as_json: bool
) -> None:
    """Print and draw C, print its summary, and where the numbers come from."""
    if measure not in ALL:
        raise UnknownName.among("measure", measure, ALL)
    if gallery not in GALLERIES:
        raise UnknownName.among("gallery", gallery, GALLERIES)
    if gallery == "templates" and measure != "recall_at_1":
        raise ConfigError(f"one template of each class makes {measure} hard to read; use --measure recall_at_1")
    snapshots, data = _found(registry, data_root)
    assert data.test is not None
    matrix = cross(snapshots, data.test, data.classes, measure, by_template=gallery == "templates")
    numbers = {name: value for name, value in summary(matrix).items() if value == value} if len(matrix) > 1 else {}
    values = [[v for v in row if v == v] for row in matrix.tolist()]
    title = f"C[t, k]: {measure} of version t's queries in version k's {gallery}, classes that k knows ({data.source})"
    if picture:
        pictures.matrix(picture, values, f"{measure} across versions")
    if as_json:
        versions = [s.version for s in snapshots]
        about = {"measure": measure, "gallery": gallery, "versions": versions, "data": data.facts()}
        tables.emit({**about, "matrix": values, **numbers})
        return
    tables.heat(title, values, "queries of", "v", "rows of v")
    tables.console.print("darker is better; ! does not beat the self-test of the version that wrote the rows")
    tables.show("Summary", ["metric", "value"], list(numbers.items()))


def cross(
    snapshots: Sequence[Snapshot], test: Batch, classes: Sequence[object], measure: str, *, by_template: bool = False
) -> Tensor:
    """Return C `[T, T]` float64, NaN above the diagonal, on the classes that the gallery's version knows.

    Of each class the first, third, ... test image is written to the galleries, the others are queries: no image
    meets itself. Each version embeds the images once.

    Args:
        snapshots: T versions, oldest first.
        test: Images.
        classes: What their labels stand for.
        measure: `map`, `recall_at_1` or `recall_at_5`.
        by_template: A gallery holds one template of each class instead of its rows.
    """
    names = [str(c) for c in classes]
    y = torch.tensor([_index(snapshots[-1], names, int(i)) for i in test.y])
    features = [outputs(s.build(), test.x.reshape(len(test), *s.input["shape"])).features for s in snapshots]
    written = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        written[(y == label).nonzero().flatten()[::2]] = True
    size = len(snapshots)
    matrix = torch.full((size, size), torch.nan, dtype=torch.float64)
    for k in range(size):
        known = (y >= 0) & (y < len(snapshots[k].labels))
        q, g = known & ~written, known & written
        rows = templates(features[k][g], y[g]) if by_template else (features[k][g], y[g])
        for t in range(k, size):
            matrix[t, k] = ALL[measure](features[t][q], y[q], *rows)
    return matrix


def _found(registry: Path | str, data_root: Path | None) -> tuple[list[Snapshot], DataSet]:
    found = located(registry)
    snapshots = [found.load(version) for version in found.versions()]
    if not snapshots:
        raise DataError(f"{registry} has no version yet; train one: lifelong train --registry {registry}")
    told = snapshots[-1].training.get("scenario", {}).get("data", {})
    if not (name := told.get("name")):
        raise DataError("these versions do not say what data they were trained on; measure them in Python instead")
    data = load(name, root=data_root)
    if told.get("sha256") not in (None, data.facts()["sha256"]):
        raise DataError(
            f"{name} is other data here (sha256 {data.facts()['sha256'][:12]}) than these versions were trained on "
            f"({told['sha256'][:12]}); name their folder with --data-root, or measure them in Python"
        )
    if data.test is None:
        raise DataError(f"{name} has no test split to measure on")
    return snapshots, data


def _index(snapshot: Snapshot, names: list[str], label: int) -> int:
    known = [str(known) for known in snapshot.labels]
    return known.index(names[label]) if names[label] in known else -1
