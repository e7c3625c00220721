"""The small quadratic programme of gradient episodic memory, solved exactly."""

from __future__ import annotations

import torch
from torch import Tensor


def nonnegative(p: Tensor, q: Tensor) -> Tensor:
    """Return v >= 0 that minimises v^T p v / 2 + q^T v, for p = A A^T and q = A b (Lawson and Hanson's active set).

    Indices enter one at a time, the steepest first, and leave where they would become negative; the objective falls
    in each round, so no set of indices comes twice and the search ends.

    Args:
        p: `[T, T]` float64, symmetric positive semi-definite, for few T (each round solves a T x T system).
        q: `[T]` float64, in the range of p (so that a minimum exists).

    Source: Lawson and Hanson 1974, "Solving Least Squares Problems", chapter 23.
    """
    unit = torch.where(p.diagonal() > 0, p.diagonal().clamp(min=1e-300).rsqrt(), 0.0)  # rows of A to length 1
    p, q = p * unit * unit[:, None], q * unit
    v, free = torch.zeros_like(q), torch.zeros(len(q), dtype=torch.bool)
    value, small = 0.0, 1e-12 * float(q.abs().max())
    while True:
        descent = torch.where(free, -torch.inf, -(p @ v + q))
        if not bool((descent > small).any()):
            return v * unit
        free[descent.argmax()] = True
        found = _descend(p, q, v, free)
        lower = float(found @ p @ found / 2 + q @ found)
        if lower >= value:  # no progress but by rounding
            return v * unit
        v, value = found, lower


def _descend(p: Tensor, q: Tensor, v: Tensor, free: Tensor) -> Tensor:
    """Return the minimum over the free indices, fewer of them if it would be negative (`free` is edited)."""
    while True:
        target = torch.zeros_like(v)
        target[free] = torch.linalg.pinv(p[free][:, free], hermitian=True) @ -q[free]
        below = free & (target <= 0)
        if not bool(below.any()):
            return target
        room = torch.where(below & (v > 0), v / (v - target), torch.where(below, 0.0, torch.inf))
        first = room.argmin()
        v = v + room[first] * (target - v)
        v[first] = 0.0  # by name: rounding may leave it positive, and the search would not end
        free &= v > 0
        v = torch.where(free, v, 0.0)
