"""Cut the packaged Fashion-MNIST subset out of the full set: `python tools/make_small_set.py fashion_mnist.npz [OUT]`.

Of each class the first 800 training and the first 200 test images, in the order of the original file.
The same source gives the same arrays; the file itself is the same for the same zlib.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from lifelong.datafiles import Array, digest, read_npz

KEYS = ("x_train", "y_train", "x_test", "y_test")
FULL = "cfc11b6e90c69936149e6630f94d0f4c5da7915e83fd3f769022ce0f272d83dc"
OUT = Path(__file__).resolve().parent.parent / "lifelong" / "assets" / "fashion-mnist-small.npz"


def first_of_each(y: Array, count: int) -> Array:
    """Return the rows of the first `count` samples of each class in `y` `[N]`, ascending."""
    return np.sort(np.concatenate([np.flatnonzero(y == label)[:count] for label in np.unique(y)]))


def main(source: str, out: str | Path = OUT) -> int:
    """Write the subset of the npz `source` to `out` and print its checksums."""
    x_train, y_train, x_test, y_test = arrays = read_npz(Path(source), KEYS)
    if digest(arrays) != FULL:
        sys.stderr.write(f"{source} is not the original Fashion-MNIST: its arrays have sha256 {digest(arrays)}\n")
        return 3
    train, test = first_of_each(y_train, 800), first_of_each(y_test, 200)
    small = [x_train[train], y_train[train], x_test[test], y_test[test]]
    np.savez_compressed(out, allow_pickle=False, **dict(zip(KEYS, small, strict=True)))
    file = hashlib.sha256(Path(out).read_bytes()).hexdigest()
    sys.stdout.write(f"{out}\narrays sha256 {digest(small)}\nfile   sha256 {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
