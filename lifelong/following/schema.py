"""What a sample of this stream has to look like; looked at outside of the training step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Self, final

import numpy as np
import torch

from lifelong.errors import DataError
from lifelong.labels import Label
from lifelong.models import Classifier
from lifelong.sources.record import Sample


@final
class Schema:
    """Refuses a sample that does not fit the model or the stream so far.

    Args:
        shape: Of one input.
        dtype: Of its values.
        max_classes: Different labels that the stream may bring.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, max_classes: int) -> None:
        self.shape, self.dtype, self.max_classes = tuple(shape), dtype, max_classes

    @classmethod
    def of(cls, model: Classifier, max_classes: int) -> Self:
        """Return what a model wants: its input shape, in the type of its weights."""
        return cls(model.input_shape, next((p.dtype for p in model.parameters()), torch.float32), max_classes)

    def check(self, sample: Sample, labels: Collection[Label]) -> None:
        """Raise `DataError` if `sample` does not fit, `labels` being those known so far."""
        x, y = sample.x, sample.y
        if x.dtype != self.dtype or tuple(x.shape) != self.shape:
            raise DataError(f"need {self.dtype} of shape {list(self.shape)}, got {x.dtype} of shape {list(x.shape)}")
        if not np.isfinite(x.numpy()).all():  # of a few numbers, faster than torch by an order
            raise DataError("it holds NaN or infinity")
        if y in labels:
            return
        other = next((label for label in labels if type(label) is not type(y)), None)
        if other is not None:
            raise DataError(f"labels are like {other!r} so far, got {y!r}")
        if len(labels) >= self.max_classes:
            raise DataError(f"label {y!r} would be one more than max_classes={self.max_classes}")
