"""Features of a frozen encoder, kept on disk: otherwise a benchmark is all encoding time.

A cache file is `<key>.npy`, readable by numpy, followed by the SHA-256 of its bytes. The key is the SHA-256 of
everything that features depend on: weights, spec (size included), dtype and data. A hit gives the very same bits.
"""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lifelong import files
from lifelong.errors import ArtifactError, DataError, NotFound

log = logging.getLogger("lifelong.features")

_DIGEST_BYTES = 32


def cached_features(encoder: nn.Module, x: Tensor, *, folder: Path | str, rows: int = 256) -> Tensor:
    """Return the features `[N, D]` of inputs `[N, ...]`, from `folder` if they are there, else computed and kept.

    Args:
        encoder: A backbone (`spec()`, `dim`) whose answer to a row does not depend on other rows; used in eval mode.
        x: Inputs `[N, ...]`.
        folder: Of the cache; made if it is not there. Any file in it may be deleted at any time.
        rows: Inputs per pass.

    Raises:
        DataError: There are no inputs.
    """
    if not len(x):
        raise DataError("need at least one sample, got none")
    path = Path(folder) / f"{key(encoder, x)}.npy"
    shape = (len(x), int(encoder.dim))  # type: ignore[arg-type]
    try:
        return _read(path, shape)
    except NotFound:
        pass
    except (ArtifactError, DataError) as error:
        log.warning("cached features are damaged and computed again: %s", error)
    found = features(encoder, x, rows=rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _written(found)
    files.write_atomic(path, data + hashlib.sha256(data).digest())
    return found


@torch.inference_mode()
def features(encoder: nn.Module, x: Tensor, *, rows: int = 256) -> Tensor:
    """Return the features `[N, D]` of inputs `[N, ...]` on the CPU; the encoder's mode is as before afterwards."""
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    training = encoder.training
    encoder.eval()
    try:
        return torch.cat([encoder(part.to(device)).cpu() for part in x.split(rows)])
    finally:
        encoder.train(training)


def key(encoder: nn.Module, x: Tensor) -> str:
    """Return the 64 hex digits under which the features of `x` are kept."""
    weights = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        weights.update(f"{name} {_digest(tensor)}\n".encode())
    told = {"spec": encoder.spec(), "weights": weights.hexdigest(), "data": _digest(x)}  # type: ignore[operator]
    return files.digest(files.canonical_json(told))


def _digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's type, shape and bytes, whatever its layout in memory."""
    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype} {list(plain.shape)} ".encode()
    return files.digest(head + plain.flatten().view(torch.uint8).numpy().tobytes())


def _written(found: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, found.numpy(), allow_pickle=False)
    return buffer.getvalue()


def _read(path: Path, shape: tuple[int, int]) -> Tensor:
    stored = files.read_file(path)
    data, digest = stored[:-_DIGEST_BYTES], stored[-_DIGEST_BYTES:]
    if hashlib.sha256(data).digest() != digest:
        raise ArtifactError(f"{path} is cut short or altered")
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.shape != shape or array.dtype.kind != "f":
        raise ArtifactError(f"{path} holds {array.dtype} of shape {array.shape}, not floats of shape {shape}")
    return torch.from_numpy(array)
