"""How far confidence can be trusted, and accuracy class by class."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.errors import DataError


def calibration_error(probabilities: Tensor, y: Tensor, bins: int = 15) -> float:
    """Return the expected calibration error: |accuracy - confidence| of equally wide bins, weighted by their samples.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.

    Args:
        probabilities: `[N, C]`, rows add up to 1.
        y: Class indices `[N]` i64; of a class that no column stands for, below 0: any answer is wrong.
        bins: Of confidence, (0, 1/bins], (1/bins, 2/bins], ...

    Raises:
        DataError: Shapes do not fit, or there is nothing to judge.
    """
    _check(probabilities, y)
    sure, said = probabilities.double().max(1)
    right = (said == y).double()
    which = (sure * bins).ceil().long().clamp(1, bins) - 1
    sums = torch.zeros(3, bins, dtype=torch.float64)
    for row, values in enumerate((torch.ones_like(sure), sure, right)):
        sums[row].index_add_(0, which, values)
    return float((sums[2] - sums[1]).abs().sum() / len(y))


def log_loss(probabilities: Tensor, y: Tensor) -> float:
    """Return the mean negative natural logarithm of what was given to the right class; 0 counts as 1e-12.

    To a class that no column stands for (an index below 0) nothing was given.
    """
    _check(probabilities, y)
    given = probabilities.double().gather(1, y.clamp(min=0)[:, None]).squeeze(1).masked_fill(y < 0, 0.0)
    return float(-given.clamp(min=1e-12).log().mean())


def class_accuracies(said: Tensor, y: Tensor, classes: int) -> list[float | None]:
    """Return the share of right answers for each class of `y` `[N]`; None where it has no sample."""
    counts = torch.bincount(y, minlength=classes)
    right = torch.bincount(y[said == y], minlength=classes)
    return [int(r) / int(n) if n else None for r, n in zip(right, counts, strict=True)]


def _check(probabilities: Tensor, y: Tensor) -> None:
    if probabilities.dim() != 2 or y.shape != probabilities.shape[:1] or not len(y):
        raise DataError(
            f"need probabilities [N, C] and N class indices, got {list(probabilities.shape)} and {list(y.shape)}"
        )
