"""The data resolver: one function that finds a named data set, and says where it came from.

```
explicit root (npz or torchvision/IDX layout)  ->  else an error, or with download=True torchvision
no root: /usr/share/datasets (Debian's dataset-fashion-mnist)  ->  the packaged subset, under its own name
```
Nothing is ever made up: a set that is not there is an error that names the command which gets it.
Values of images become float32 in 0..1, `[N, channels, height, width]`; tables stay as they are, in file order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lifelong.datafiles import Array, digest, find_idx, read_idx, read_npz
from lifelong.datatable import KNOWN, Known
from lifelong.errors import ConfigError, DataError, NotFound, Unavailable, UnknownName
from lifelong.labels import Label
from lifelong.types import Batch

SYSTEM = Path("/usr/share/datasets")  # where Debian's data set packages unpack to
PACKAGED = Path(__file__).with_name("assets") / "fashion-mnist-small.npz"
SMALL = "fashion-mnist-small"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A named data set in memory.

    Args:
        name: Which set this is; the packaged subset never carries the name of the full set.
        train: Training samples; `y` indexes `classes`, ids are row numbers.
        test: Test samples, ids continue after those of `train`; None for a stream in file order.
        classes: What the class indices stand for.
        source: Where it was found, for people.
        sha256: Of the stored arrays; equal for the same arrays in another layout.
    """

    name: str
    train: Batch
    test: Batch | None
    classes: tuple[Label, ...]
    source: str
    sha256: str

    @property
    def counts(self) -> dict[str, int]:
        """Return how many samples there are to train and to test on."""
        return {"train": len(self.train), "test": 0 if self.test is None else len(self.test)}

    def facts(self) -> dict[str, Any]:
        """Return what a result has to say of its data, as plain values."""
        return {"name": self.name, "source": self.source, "sha256": self.sha256, "counts": self.counts}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `available`: where a set is, or (`found` false) the command that gets it."""

    name: str
    found: bool
    where: str
    counts: dict[str, int]


def load(name: str, *, root: Path | str | None = None, download: bool = False) -> DataSet:
    """Return the data set `name` (a key of `datatable.KNOWN`; case does not matter).

    Args:
        name: E.g. `fashion-mnist`; without a root it becomes `fashion-mnist-small` where the full set is not installed.
        root: Folder to look in, and nowhere else; None looks at the system's data sets and at what is packaged.
            Whatever the root, `digits` and `fashion-mnist-small` are those that come with what is installed.
        download: Let torchvision fetch a set that is not in `root`.

    Raises:
        UnknownName: No data set is called so.
        NotFound: It is not there; the message names the command that gets it.
        DataError: A file of it is damaged, cut short or another set.
        Unavailable: scikit-learn or torchvision would be needed, or the download failed.
    """
    name = _canonical(name)
    known = KNOWN[name]
    if name == SMALL:
        return _packaged()
    if name == "digits":
        return _digits(known)
    if root is not None:
        return _from_root(name, known, Path(root), download)
    if found := _find(name, known, SYSTEM):
        return _read(name, known, found)
    if download:
        raise ConfigError(f"download needs a folder to keep {name} in, got none; pass --data-root FOLDER")
    if name == "fashion-mnist":
        return _packaged()
    raise NotFound(f"{name} is neither packaged nor under {SYSTEM}, and no data root is given; {known.how('ROOT')}")


def available(root: Path | str | None = None) -> list[Row]:
    """Return one row per known data set: where `load` would find it, or how to get it. Reads no arrays."""
    return [_row(name, known, None if root is None else Path(root)) for name, known in KNOWN.items()]


def _row(name: str, known: Known, root: Path | None) -> Row:
    counts = {"train": known.counts[0], "test": known.counts[1]}
    if name == SMALL:
        return Row(name, True, "packaged", counts)
    if name == "digits":
        found_it = find_spec("sklearn") is not None
        return Row(name, found_it, "scikit-learn (load_digits)" if found_it else known.how(""), counts)
    try:
        found = _find(name, known, root or SYSTEM)
    except NotFound as error:
        return Row(name, False, str(error), counts)
    where = ", ".join(str(path) for path in found[:1]) or known.how(str(root or "ROOT"))
    return Row(name, bool(found), where, counts)


def _canonical(name: str) -> str:
    for key, known in KNOWN.items():
        if name and name.lower() in (key, known.torchvision.lower()):
            return key
    raise UnknownName.among("data set", name, KNOWN)


def _find(name: str, known: Known, root: Path) -> list[Path]:
    """Return the npz, the four IDX files or the torchvision folder of a set below `root`; [] if it has none."""
    npz = root / known.npz
    if npz.is_file():
        return [npz]
    if known.idx:
        for folder in (root / known.torchvision / "raw", root / name):
            if files := find_idx(folder):
                return files
    folder = root / known.folder
    return [folder] if known.folder and folder.is_dir() else []


def _from_root(name: str, known: Known, root: Path, download: bool) -> DataSet:
    if not root.is_dir() and not download:
        raise NotFound(f"data root {root} is not a folder; {known.how(str(root))}")
    if found := _find(name, known, root):
        return _read(name, known, found)
    if not download:
        raise NotFound(f"{name} is not in {root} (looked for {known.looked_for(name)}); {known.how(str(root))}")
    if not known.torchvision:
        raise NotFound(f"{name} is not in {root}, and torchvision does not offer it; {known.how(str(root))}")
    for train in (True, False):
        _torchvision(known, root, train, download=True)
    return _read(name, known, _find(name, known, root))


def _read(name: str, known: Known, found: Sequence[Path]) -> DataSet:
    if len(found) > 1:
        arrays = [read_idx(path) for path in found]
        where = found[0].parent
    elif found[0].is_dir():
        root = found[0].parent
        arrays = [a for train in (True, False) for a in _torchvision(known, root, train, download=False)]
        where = found[0]
    else:
        arrays = read_npz(found[0], known.keys)
        where = found[0]
    return _data_set(name, known, arrays, str(where))


def _packaged() -> DataSet:
    arrays = read_npz(PACKAGED, KNOWN[SMALL].keys)
    return _data_set(SMALL, KNOWN[SMALL], arrays, "packaged subset (8,000 + 2,000 real images)", str(PACKAGED))


def _digits(known: Known) -> DataSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise Unavailable("digits come with scikit-learn, which is not installed; pip install scikit-learn") from error
    bunch = load_digits()
    arrays: list[Array] = [np.asarray(bunch.images, np.uint8), np.asarray(bunch.target, np.int64)]
    return _data_set("digits", known, arrays, "scikit-learn (load_digits)")


def _torchvision(known: Known, root: Path, train: bool, *, download: bool) -> list[Array]:
    """Return images and labels through torchvision, which compares every file with its md5 before it opens it."""
    try:
        from torchvision import datasets
    except ImportError as error:
        raise Unavailable(
            f"{known.torchvision} is read by torchvision, which is not installed; pip install torchvision"
        ) from error
    try:
        found = getattr(datasets, known.torchvision)(root, train=train, download=download)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if download:
            raise Unavailable(f"downloading {known.torchvision} to {root} failed: {reason}") from error
        raise DataError(f"{root / known.folder} is incomplete or altered ({reason}); fetch it again") from error
    return [np.asarray(found.data), np.asarray(found.targets, np.int64)]


def _data_set(name: str, known: Known, arrays: Sequence[Array], source: str, file: str = "") -> DataSet:
    """Check the arrays of one set against what is known of it, and return them as tensors."""
    parts = known.parts(arrays, file or source)
    batches = [_batch(x, y, known, first) for (x, y), first in zip(parts, (0, known.counts[0]), strict=False)]
    test = batches[1] if len(batches) > 1 else None
    return DataSet(name, batches[0], test, known.classes, source, digest(arrays))


def _batch(x: Array, y: Array, known: Known, first: int) -> Batch:
    images = torch.from_numpy(x)
    if known.largest:
        images = images.float().div_(known.largest)
        images = images.movedim(-1, 1).contiguous() if images.dim() == 4 else images.unsqueeze(1)
    labels = torch.from_numpy(np.searchsorted(known.labels, y).astype(np.int64))
    return Batch.of(images, labels, ids=torch.arange(first, first + len(labels)))
