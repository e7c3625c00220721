"""Cached features are the computed ones, bit for bit, or are computed again."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lifelong.errors import DataError
from lifelong.files import digest
from lifelong.models.features import cached_features, key


class Counting(nn.Module):
    """An encoder that counts the rows it was asked for."""

    dim = 3

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.size, self.rows = size, 0
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4) / 7)

    def spec(self) -> dict[str, Any]:
        return {"name": "counting", "size": self.size}

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.rows += len(x)
        return (x @ self.weight.T).sin()


X = torch.rand(10, 4, generator=torch.Generator().manual_seed(0))


def test_a_hit_gives_the_same_bits_without_asking_the_encoder(tmp_path: Path) -> None:
    encoder = Counting().train()
    first = cached_features(encoder, X, folder=tmp_path / "cache", rows=3)
    second = cached_features(encoder, X, folder=str(tmp_path / "cache"))

    torch.testing.assert_close(first, (X @ encoder.weight.T).sin().detach())
    assert torch.equal(first, second)
    assert first.dtype == second.dtype == torch.float32
    assert encoder.rows == len(X)
    assert encoder.training
    second.zero_()  # its own, writable memory
    assert torch.equal(cached_features(encoder, X, folder=tmp_path / "cache"), first)


def test_whatever_features_depend_on_is_in_the_key() -> None:
    moved, turned = Counting(), X.t().contiguous().t()
    with torch.no_grad():
        moved.weight[0, 0] += 1e-6
    same = key(Counting(), X)
    bits = X.clone()
    bits[3, 2] = torch.nextafter(bits[3, 2], torch.tensor(2.0))

    others = [
        key(moved, X),
        key(Counting(size=9), X),
        key(Counting(), bits),
        key(Counting(), X.double()),
        key(Counting(), X.reshape(10, 2, 2)),
        key(Counting(), X[:9]),
    ]
    assert len({same, *others}) == 7
    assert key(Counting(), turned) == key(Counting().requires_grad_(False), X) == same


def damaged(data: bytes) -> dict[str, bytes]:
    def sealed(array: Any) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue() + bytes.fromhex(digest(buffer.getvalue()))

    middle = len(data) // 2
    return {
        "empty": b"",
        "short": data[:-1],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "another shape": sealed(np.zeros((10, 2), np.float32)),
        "another type": sealed(np.zeros((10, 3), np.int64)),
    }


@pytest.mark.parametrize("kind", damaged(b"x"))
def test_a_damaged_file_is_computed_again_with_one_line_in_the_log(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Counting()
    first = cached_features(encoder, X, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damaged(whole)[kind])
    with caplog.at_level(logging.INFO):
        again = cached_features(encoder, X, folder=tmp_path)

    (line,) = [record.getMessage() for record in caplog.records]
    assert "damaged and computed again" in line
    assert "\n" not in line
    assert torch.equal(again, first)
    assert encoder.rows == 2 * len(X)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [whole]


def test_a_cache_file_is_what_numpy_reads(tmp_path: Path) -> None:
    found = cached_features(Counting(), X, folder=tmp_path)
    (path,) = tmp_path.glob("*.npy")

    np.testing.assert_array_equal(np.load(path, allow_pickle=False), found.numpy())


def test_an_encoder_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    encoder = Counting().train()
    with pytest.raises(RuntimeError):
        cached_features(encoder, torch.zeros(2, 5), folder=tmp_path)
    with pytest.raises(DataError, match="at least one sample"):
        cached_features(encoder, X[:0], folder=tmp_path)

    assert not list(tmp_path.iterdir())
    assert encoder.training
