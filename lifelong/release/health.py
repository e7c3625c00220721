"""Health of an embedding: how many directions it uses, how long its vectors are, how far it moved since the last one.

Everything comes from sums over samples: features are added block by block, and memory is that of a few D x D matrices.

Source: Garrido et al. 2023, "RankMe" (effective rank: exponential of the entropy of the singular values); Kornblith et
    al. 2019, "Similarity of Neural Network Representations Revisited" (linear CKA).
Differs: singular values are the roots of the eigenvalues of the Gram matrix, in float64; no constant is added to them.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lifelong.errors import DataError

FIGURES = ("effective_rank", "norm_mean", "norm_sd", "cosine_shift", "cka")


def effective_rank(gram: Tensor) -> float:
    """Return the effective rank (1..D) of features `[N, D]` from their Gram matrix `[D, D]`, Z^T Z; 0 for zeros.

    >>> effective_rank(torch.eye(5, dtype=torch.float64))
    5.0
    """
    values = torch.linalg.eigvalsh(gram.double()).clamp(min=0).sqrt()
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values / total
    return round(math.exp(-torch.special.xlogy(shares, shares).sum().item()), 9)


@final
class Health:
    """The figures of features that are added block by block."""

    def __init__(self) -> None:
        self._count, self._norms, self._cosines = 0, torch.zeros(2, dtype=torch.float64), 0.0
        self._sums: list[Tensor] = []  # of the features, and of the version's before it
        self._products: list[Tensor] = []  # Z^T Z, and with a version before: Z^T Z', Z'^T Z'

    def add(self, features: Tensor, before: Tensor | None = None) -> None:
        """Take features `[n, D]`, and those of the version before for the same samples, `[n, D']`; always or never.

        Raises:
            DataError: They do not belong together.
        """
        blocks = [features.double()] if before is None else [features.double(), before.double()]
        if any(block.dim() != 2 or len(block) != len(features) for block in blocks):
            raise DataError(f"need features [n, D] of the same samples, got {[list(b.shape) for b in blocks]}")
        if self._sums and [b.shape[1] for b in blocks] != [len(s) for s in self._sums]:
            raise DataError("all blocks need the same widths, and all or none the version before; start anew")
        z, pairs = blocks[0], [(a, b) for i, a in enumerate(blocks) for b in blocks[i:]]
        if not self._sums:
            self._sums = [torch.zeros_like(b[0:1].sum(0)) for b in blocks]
            self._products = [torch.zeros(a.shape[1], b.shape[1], dtype=torch.float64) for a, b in pairs]
        for kept, new in zip(self._sums, blocks, strict=True):
            kept += new.sum(0)
        for kept, (a, b) in zip(self._products, pairs, strict=True):
            kept += a.T @ b
        norms = z.norm(dim=1)
        self._norms += torch.stack([norms.sum(), norms.square().sum()])
        if before is not None:
            width = min(b.shape[1] for b in blocks)
            self._cosines += (normalize(z[:, :width], dim=1) * normalize(blocks[1][:, :width], dim=1)).sum().item()
        self._count += len(z)

    def figures(self) -> dict[str, float]:
        """Return what is defined of the figures.

        * `effective_rank`: Directions in use, 1..D (RankMe).
        * `norm_mean`, `norm_sd`: Mean and standard deviation of the lengths of the features.
        * `cosine_shift`: 1 minus the mean cosine of a sample's features now and before, on the coordinates that both
          have, 0..2: how far stored rows are from what would be stored now.
        * `cka`: Linear centred-kernel alignment with the version before, 0..1: 1 where features differ by a rotation
          and a scale only.

        Raises:
            DataError: No sample was added.
        """
        if not self._count:
            raise DataError("no features were added; add at least one block")
        mean = self._norms[0].item() / self._count
        spread = max(self._norms[1].item() / self._count - mean**2, 0.0) ** 0.5
        found = {"effective_rank": effective_rank(self._products[0]), "norm_mean": mean, "norm_sd": spread}
        if len(self._sums) > 1:
            found |= {"cosine_shift": 1 - self._cosines / self._count, "cka": self._cka()}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _cka(self) -> float:
        new, old = self._sums
        outer = ((new, new), (new, old), (old, old))
        centred = zip(self._products, outer, strict=True)
        zz, zy, yy = ((kept - torch.outer(a, b) / self._count).square().sum() for kept, (a, b) in centred)
        return (zy / (zz * yy).sqrt()).item()
