"""Subspaces that layers' inputs live in: which of them to remember. O outputs, I inputs, K basis vectors.

Bases come from Gram matrices G = R'R of input rows R `[n, I]`, summed in float64 batch by batch: their eigenvectors are
R's right singular vectors and their eigenvalues its squared singular values, at a cost that does not grow with n.
Products of a few rows are taken in the rows' own type, which for float32 costs half as much: energies are then exact to
about 2e-9 of their sum (measured), where thresholds are read to three digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = 1e-8  # share of the energy below which a direction is rounding error
ROWS, COLUMNS = 1024, 144  # of one product


def added(gram_II: Tensor | None, rows_nI: Tensor) -> Tensor:
    """Return the Gram matrix `[I, I]` float64 of all rows so far and `rows_nI`."""
    wide = rows_nI.shape[1]
    upper = torch.zeros(wide, wide, dtype=torch.float64, device=rows_nI.device)
    for rows in rows_nI.split(ROWS):
        for left in range(0, wide, COLUMNS):  # what is below the diagonal is known by symmetry
            upper[left : left + COLUMNS, left:] += rows[:, left : left + COLUMNS].T @ rows[:, left:]
    gram = upper.triu() + upper.triu(1).T
    return gram if gram_II is None else gram_II + gram


def grown(memory_IK: Tensor, gram_II: Tensor, threshold: float) -> Tensor:
    """Return `memory_IK` and as few new columns as hold, all together, a share `threshold` of the energy.

    The new columns are the strongest directions that are left of the inputs outside of the memory.

    Args:
        memory_IK: Orthonormal columns, possibly none.
        gram_II: Of the inputs, float64.
        threshold: Share (0..1) of trace(G) to hold.
    """
    energy, directions = residual(memory_IK, gram_II)
    missing = threshold * gram_II.trace() - (gram_II.trace() - energy.sum())
    return _with(memory_IK, directions[:, : _fewest(energy, float(missing))])


def own(memory_IK: Tensor, gram_II: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Return the grown memory and which of its columns are the inputs' own basis, ids `[k]` int32 ascending.

    Old columns and directions outside of the memory compete: the own basis is the smallest set of both that holds a
    share `threshold` of the energy.

    Args:
        memory_IK: Orthonormal columns, possibly none.
        gram_II: Of the inputs, float64.
        threshold: Share (0..1) of trace(G) to hold.
    """
    energy, directions = residual(memory_IK, gram_II)
    held = memory_IK.double()
    pooled = torch.cat([((gram_II @ held) * held).sum(0), energy])
    order = pooled.argsort(descending=True, stable=True)
    ids = order[: _fewest(pooled[order], float(threshold * gram_II.trace()))].sort().values
    new = int((ids >= memory_IK.shape[1]).sum())  # the strongest come first, so these are the first `new` directions
    return _with(memory_IK, directions[:, :new]), ids.int()


def residual(memory_IK: Tensor, gram_II: Tensor) -> tuple[Tensor, Tensor]:
    """Return energies `[J]`, descending, and directions `[I, J]`, float64, of the inputs outside of the memory.

    Directions that hold nothing but rounding errors are left out.
    """
    held = memory_IK.double()
    left = gram_II - held @ (held.T @ gram_II)
    left = left - (left @ held) @ held.T
    energy, directions = torch.linalg.eigh((left + left.T) / 2)
    energy, directions = energy.flip(0).clamp(min=0), directions.flip(1)
    count = int((energy > NOTHING * gram_II.trace()).sum())
    count = min(count, len(gram_II) - held.shape[1])
    return energy[:count], directions[:, :count]


def _fewest(energy: Tensor, wanted: float) -> int:
    """Return how many of the leading energies it takes to hold `wanted`."""
    if wanted <= 0:
        return 0
    return min(int((energy.cumsum(0) < wanted).sum()) + 1, len(energy))


def _with(memory_IK: Tensor, new_IJ: Tensor) -> Tensor:
    """Return the memory followed by new columns, made orthonormal to the last bit that its type has."""
    if not new_IJ.shape[1]:
        return memory_IK
    held = memory_IK.double()
    new = torch.linalg.qr(new_IJ - held @ (held.T @ new_IJ)).Q
    return torch.cat([memory_IK, new.to(memory_IK)], 1)
