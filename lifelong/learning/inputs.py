"""What may enter a step: inputs that fit the model and are finite, and the classes that a task may answer with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lifelong.batching import stack
from lifelong.errors import DataError
from lifelong.types import Batch


def check_inputs(x: Tensor, dtype: torch.dtype, shape: Sequence[int]) -> None:
    """Raise `DataError` unless `x` is `[N, *shape]` of `dtype` (or flattened, or the other way round) and finite."""
    if not isinstance(x, Tensor):
        raise DataError(f"inputs are a tensor [N, ...], got {type(x).__name__}; use torch.as_tensor")
    if x.dtype != dtype or x.shape[1:] != shape or not shape:
        _fits(x, dtype, tuple(shape))
    # A sum is one cheap pass, and no finite sum has a non-finite term; only a suspect is looked at closely.
    if not math.isfinite(x.sum().item()) and not bool(x.isfinite().all()):
        bad = int((~x.isfinite()).flatten(1).any(1).sum())
        raise DataError(f"{bad} of {len(x)} inputs hold NaN or infinity; drop or repair them, nothing was learned")


def check_classes(y: Tensor, known: int) -> None:
    """Raise `DataError` unless there are class indices `y` `[N]`, all of them of `known` labels."""
    if not len(y):
        raise DataError("a step needs at least one sample, got none")
    low, high = (v.item() for v in y.aminmax())
    if low < 0 or high >= known:
        raise DataError(
            f"class indices run from 0 to {known - 1} ({known} known labels), got {low if low < 0 else high}; "
            "register the label first, or hand it to partial_fit"
        )


def unlabelled(x: object, y: object, ids: object, first: int) -> tuple[Batch, list[object]]:
    """Return samples without class indices, and their labels as they were given.

    Args:
        x: Inputs `[N, ...]`, tensor, array or list.
        y: N labels.
        ids: Sample ids `[N]`; None counts from `first`.
        first: See `ids`.

    Raises:
        DataError: They do not belong together, or ids are no integers.
    """
    inputs = x if isinstance(x, Tensor) else stack(list(x))  # type: ignore[call-overload]
    labels = y.tolist() if isinstance(y, Tensor | np.ndarray) else list(y)  # type: ignore[call-overload]
    try:
        numbers = torch.arange(first, first + len(labels)) if ids is None else torch.as_tensor(ids)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"ids must be integers [N], got {type(ids).__name__} ({error}); number the samples") from error
    return Batch.of(inputs, torch.zeros(len(labels), dtype=torch.int64), numbers), labels


def task_mask(tasks: Mapping[int, Sequence[int]], classes: int) -> Tensor:
    """Return a mask `[M, C]`: row t allows the class indices of task t, the last row (task -1) allows all.

    There are rows for as many tasks again (they allow nothing yet), so that `allow` can fill them in.
    """
    mask = torch.zeros(2 * max(tasks, default=-1) + 4, classes, dtype=torch.bool)
    mask[-1] = True
    for task, own in tasks.items():
        mask[task, own] = True
    return mask


def allow(mask: Tensor | None, task: int, own: Sequence[int]) -> Tensor | None:
    """Return `mask` with the classes of a task filled in, or None if it has no room for them and must be made anew.

    So a new task costs the same however many came before it.
    """
    if mask is None or task + 1 >= len(mask) or max(own, default=-1) >= mask.shape[1]:
        return None
    mask[task, list(own)] = True
    return mask


def answered(model: nn.Module, logits: Tensor, task: Tensor) -> Tensor:
    """Return `logits` `[N, C]`, in a task-incremental setting with -inf for classes of other tasks than `task` `[N]`.

    Every loss on samples of a task goes through here, the learner's own as well as those of remembered samples.
    """
    allowed = getattr(model, "allowed", None)
    return logits if allowed is None else logits.masked_fill(~allowed[task], -torch.inf)


def _fits(x: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    given = tuple(x.shape[1:])
    flat = math.prod(given) == math.prod(shape) and 1 in (len(given), len(shape))  # rows for images, or back
    if x.dim() < 2 or x.dtype != dtype or not (given == shape or flat):
        raise DataError(
            f"inputs must be {dtype} of shape [N, {', '.join(map(str, shape))}], got {x.dtype} of shape {list(x.shape)}"
        )
