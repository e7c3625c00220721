"""Data sets that this project does not know: a user's own npz file, and others of torchvision, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lifelong.data import DataSet, load
from lifelong.datafiles import Array, digest, read_npz
from lifelong.datatable import SPLIT_KEYS
from lifelong.errors import DataError, NotFound, Unavailable, UnknownName
from lifelong.labels import Label
from lifelong.types import Batch

TORCHVISION = "torchvision."


def find(name: str, *, root: Path | str | None = None) -> DataSet:
    """Return the data set `name`: of ours, of torchvision, or a file.

    Args:
        name: What `lifelong.data.load` knows; `torchvision.NAME`, read from `root` and never fetched; or the path of
            an npz with `x_train, y_train` and, where there is a test part, `x_test, y_test`: samples `[N, ...]` u8
            (become 0..1) or f32 (stay), labels integers or strings.
        root: Data root, see `load`.

    Raises:
        UnknownName: No data set is called so.
        NotFound: It is not there.
        DataError: The file is damaged or holds something else.
    """
    if name.endswith(".npz"):
        return _file(Path(name))
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION), root)
    return load(name, root=root)


def _file(path: Path) -> DataSet:
    train = read_npz(path, SPLIT_KEYS[:2])
    with np.load(path, allow_pickle=False) as file:
        tested = any(key in file.files for key in SPLIT_KEYS[2:])
    return _made(path.stem, [*train, *(read_npz(path, SPLIT_KEYS[2:]) if tested else [])], str(path))


def _torchvision(name: str, root: Path | str | None) -> DataSet:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise Unavailable(f"{name} is read by torchvision, which is not installed; pip install torchvision") from error
    if name not in datasets.__all__:
        raise UnknownName.among("data set of torchvision", name, datasets.__all__)
    if root is None:
        raise NotFound(f"{name} of torchvision is read from a data root; pass --data-root FOLDER")
    arrays: list[Array] = []
    for train in (True, False):
        try:
            found = getattr(datasets, name)(root, train=train, download=False)
            arrays += [np.asarray(found.data), np.asarray(found.targets)]
        except (OSError, RuntimeError) as error:
            code = f"from torchvision.datasets import {name} as D; D({str(root)!r}, download=True)"
            raise NotFound(f'{name} is not in {root}; get it with python -c "{code}"') from error
        except (TypeError, AttributeError) as error:
            raise DataError(
                f"{name} of torchvision has no data and targets in memory; give it to from_data instead"
            ) from error
    return _made(name.lower(), arrays, f"torchvision, {root}")


def _made(name: str, arrays: list[Array], source: str) -> DataSet:
    labels = [array if array.dtype.kind in "iuU" else None for array in arrays[1::2]]
    if any(y is None or x.shape[:1] != y.shape or not len(x) for x, y in zip(arrays[::2], labels, strict=True)):
        shapes = ", ".join(f"{a.dtype} {list(a.shape)}" for a in arrays)
        raise DataError(f"{source}: need samples [N, ...] and N integer or string labels, got {shapes}")
    if any(x.ndim < 2 or x.shape[1:] != arrays[0].shape[1:] for x in arrays[::2]):
        shapes = " and ".join(str(list(x.shape)) for x in arrays[::2])
        raise DataError(f"{source}: samples are arrays [N, ...] of one shape, training and test, got {shapes}")
    if len({y.dtype.kind == "U" for y in arrays[1::2]}) > 1:
        raise DataError(f"{source}: labels are integers, or strings, in both parts; got both kinds")
    known = sorted({label for y in labels if y is not None for label in y.tolist()})
    classes: tuple[Label, ...] = tuple(known)
    parts, first = [], 0
    for x, y in zip(arrays[::2], arrays[1::2], strict=True):
        index = torch.from_numpy(np.searchsorted(np.asarray(known), y).astype(np.int64))
        parts.append(Batch.of(_values(x, source), index, torch.arange(first, first + len(x))))
        first += len(x)
    return DataSet(name, parts[0], parts[1] if len(parts) > 1 else None, classes, source, digest(arrays))


def _values(x: Array, source: str) -> torch.Tensor:
    if x.dtype == np.uint8:
        images = torch.from_numpy(x).float().div_(255)
        if images.dim() == 4 and images.shape[-1] in (1, 3):
            return images.movedim(-1, 1).contiguous()
        return images.unsqueeze(1) if images.dim() == 3 else images
    if x.dtype != np.float32:
        raise DataError(f"{source}: samples are uint8, or float32, got {x.dtype}; convert them with astype")
    if bad := int((~np.isfinite(x)).reshape(len(x), -1).any(1).sum()):
        first = int((~np.isfinite(x)).reshape(len(x), -1).any(1).argmax())
        raise DataError(f"{source}: {bad} of {len(x)} samples hold NaN or infinity, the first is {first}; repair them")
    return torch.from_numpy(x)
