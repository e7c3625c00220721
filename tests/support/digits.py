"""A stream that methods without a memory of samples are compared on."""

from __future__ import annotations

import torch

from lifelong.types import Batch, Experience


def permuted_digits(tasks: int, seed: int) -> list[Experience]:
    """The 8x8 digits under a new order of pixels per task."""
    from sklearn.datasets import load_digits  # takes seconds to import

    digits, random = load_digits(), torch.Generator().manual_seed(seed)
    rows = torch.randperm(1797, generator=random)
    x, y = torch.tensor(digits.data, dtype=torch.float32)[rows] / 16, torch.tensor(digits.target)[rows]
    found = []
    for task in range(tasks):
        order = torch.randperm(64, generator=random) if task else torch.arange(64)
        data = Batch.of(x[:, order], y)
        found.append(Experience(task, f"p{task}", list(range(10)), data[:600], data[1200:], task=task))
    return found
