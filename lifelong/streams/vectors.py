"""Streams of what an encoder that never learns makes of the samples: features of images, and of words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.data import DataSet
from lifelong.errors import ConfigError, DataError
from lifelong.streams.classes import class_incremental, few_shot
from lifelong.streams.domains import domains
from lifelong.streams.pieces import online, periods
from lifelong.streams.scenario import Scenario
from lifelong.types import Batch

CACHE = Path("~/.cache/lifelong/features")  # any file in it may be deleted at any time
WORD = re.compile(rb"[a-z0-9$!]+")


def features(data: DataSet, encoder: str = "lite0", size: int = 64, cache: Path | str = CACHE) -> DataSet:
    """Return a data set of the frozen encoder's features `[N, 1280]` of the images of `data`.

    They are computed once (2 to 20 seconds of CPU time for a thousand images) and kept in `cache` by the SHA-256 of
    weights, size and images.

    Args:
        data: Images.
        encoder: `lite0` or `lite2`, see `lifelong.models.encoders.Lite`.
        size: Pixels a side that images are resized to.
        cache: Folder.

    Raises:
        Unavailable: The encoder is not installed.
    """
    from lifelong.models import build

    body = {"name": "lite", "inputs": list(data.train.x.shape[1:]), "variant": encoder, "size": size}
    network = build({"backbone": body, "head": {"name": "prototype"}}).backbone
    assert isinstance(network, nn.Module)
    return _encoded(data, network, f"{data.name}@{encoder}-{size}", cache)


def text_features(data: DataSet, length: int = 64, cache: Path | str = CACHE) -> DataSet:
    """Return a data set of MiniLM's features `[N, 384]` of the texts of `data`, computed once and kept likewise.

    Args:
        data: Texts as padded bytes.
        length: Tokens of a text that are read, see `lifelong.models.texts.MiniLM`.
        cache: Folder.

    Raises:
        Unavailable: The encoder is not installed.
    """
    from lifelong.models.texts import MiniLM

    return _encoded(data, MiniLM(length), f"{data.name}@minilm-{length}", cache)


def of_features(
    data: DataSet, experiences: int | Sequence[int] = 5, *, encoder: str = "lite0", size: int = 64, seed: int = 0,
    order: Any = None,  # noqa: ANN401 - see `class_incremental`
    cache: Path | str = CACHE,
) -> Scenario:  # fmt: skip
    """Return `class_incremental` of `features`; arguments are those of both."""
    made = class_incremental(features(data, encoder, size, cache), experiences, order=order, seed=seed)
    return _told(made, encoder=encoder, size=size)


def few_features(
    data: DataSet, base: int = 6, ways: int = 1, shots: int = 5, *, encoder: str = "lite0", size: int = 64,
    seed: int = 0, cache: Path | str = CACHE,
) -> Scenario:  # fmt: skip
    """Return `few_shot` of `features`; arguments are those of both."""
    made = few_shot(features(data, encoder, size, cache), base, ways, shots, seed=seed)
    return _told(made, encoder=encoder, size=size)


def digit_shift(data: Sequence[DataSet]) -> Scenario:
    """Return handwritten digits of one data set, 28 pixels a side, then those of another, 8 pixels a side.

    The small ones fill their frame; they are enlarged to 20 pixels and put in the middle of 28, where the large ones
    are. The ten labels stay.

    Args:
        data: Two data sets of images `[N, 1, 28, 28]` and `[N, 1, 8, 8]`.
    """
    if len(data) != 2:
        raise ConfigError(f"a shift is from one data set to another, got {len(data)}")
    large, small = data
    return domains([large, _changed(small, framed)])


def framed(x: Tensor) -> Tensor:
    """Return images `[N, 1, h, w]` enlarged to 20 pixels a side in the middle of 28.

    >>> framed(torch.ones(1, 1, 8, 8)).sum()
    tensor(400.)
    """
    return F.pad(F.interpolate(x, (20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))


def online_words(data: DataSet, size: int = 10, *, width: int = 1024) -> Scenario:
    """Return texts as they came, a few at a time, without boundaries; see `hashed_words` for what is learned from.

    Args:
        data: Texts as padded bytes, in the order of their time.
        size: Texts per experience.
        width: Values per text.
    """
    made = online(_changed(data, lambda x: hashed_words(x, width)), size, order="file", test=False)
    return _told(made, words=width)


def words_by_time(data: DataSet, experiences: int = 6, *, width: int = 1024, held_out: float = 0.2) -> Scenario:
    """Return `periods` of texts; see `hashed_words` for what is learned from.

    Args:
        data: Texts as padded bytes, in the order of their time.
        experiences: How many parts.
        width: Values per text.
        held_out: Share of each part that is tested on.
    """
    made = periods(_changed(data, lambda x: hashed_words(x, width)), experiences, held_out=held_out)
    return _told(made, words=width)


def online_texts(data: DataSet, size: int = 10, *, length: int = 64, cache: Path | str = CACHE) -> Scenario:
    """Return `online_words` of `text_features` instead of hashed words."""
    made = online(text_features(data, length, cache), size, order="file", test=False)
    return _told(made, encoder="minilm", length=length)


def texts_by_time(
    data: DataSet, experiences: int = 6, *, length: int = 64, held_out: float = 0.2, cache: Path | str = CACHE
) -> Scenario:
    """Return `words_by_time` of `text_features` instead of hashed words."""
    made = periods(text_features(data, length, cache), experiences, held_out=held_out)
    return _told(made, encoder="minilm", length=length)


def hashed_words(text: Tensor, width: int = 1024) -> Tensor:
    """Return texts as vectors `[N, width]` of length 1: log of 1 + how often the words occur that share a place.

    A word's place is its CRC-32 modulo `width`, so no vocabulary has to be known, and none grows. (Weinberger et al.
    2009, "Feature Hashing", without signs.)

    Args:
        text: UTF-8 bytes `[N, L]` u8, padded with zeros; words are runs of letters, digits, `$` and `!`, in lower case.
        width: Places.

    >>> hashed_words(torch.tensor([list(b"Buy, buy! ")], dtype=torch.uint8), 8).count_nonzero()
    tensor(2)
    """
    if text.dtype != torch.uint8 or text.dim() != 2:
        raise DataError(f"texts are padded bytes [N, L] u8, got {text.dtype} of shape {list(text.shape)}")
    found = torch.zeros(len(text), width)
    for row, line in zip(found, text.numpy(), strict=True):
        places = [zlib.crc32(word) % width for word in WORD.findall(line.tobytes().lower())]
        row.copy_(torch.tensor(places, dtype=torch.int64).bincount(minlength=width))
    return F.normalize(found.log1p(), dim=1)


def _encoded(data: DataSet, network: nn.Module, name: str, cache: Path | str) -> DataSet:
    """Return `data` as the features that `network` makes of it."""
    from lifelong.models.features import cached_features

    made = _changed(data, lambda x: cached_features(network, x, folder=Path(cache).expanduser()))
    return replace(made, name=name)


def _changed(data: DataSet, change: Callable[[Tensor], Tensor]) -> DataSet:
    """Return `data` with other inputs."""
    parts = [None if b is None else Batch(change(b.x), b.y, b.ids, b.task) for b in (data.train, data.test)]
    assert parts[0] is not None
    return DataSet(data.name, parts[0], parts[1], data.classes, data.source, data.sha256)


def _told(made: Scenario, **options: Any) -> Scenario:  # noqa: ANN401 - plain values
    """Return `made` with more options in its signature."""
    return replace(made, options={**made.options, **options})
