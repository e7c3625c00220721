"""What must hold inside a snapshot; each rule is one function, used when it is made and when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lifelong.errors import ArtifactError, DataError
from lifelong.labels import plain_label
from lifelong.release.compat import improves
from lifelong.release.manifest import PROBE, WEIGHTS
from lifelong.release.report import LEVELS
from lifelong.types import Space

PROOF = {"space", "dim", "cross", "self", "measure", "n", "probe"}
# Of the largest value: float32 sums in another order (threads, processors) differ by 1e-6 to 1e-5 of it, while a
# model that is rebuilt wrongly differs by its whole size.
TOLERANCE = 1e-3


def check_labels(labels: Sequence[object], logits: Tensor) -> None:
    """Raise `DataError` unless labels are distinct strings or integers, at most one per column of `logits`."""
    plain = [plain_label(label) for label in labels]
    if len(set(plain)) != len(plain):
        raise DataError("a label occurs twice; the label of a column must be unique")
    if logits.dim() != 2 or len(labels) > logits.shape[1]:
        raise DataError(
            f"{len(labels)} labels do not fit logits of shape {list(logits.shape)}; "
            f"grow the head, or save the labels that belong to this model"
        )


def check_input(shape: tuple[int, ...], x: Tensor) -> None:
    """Raise `DataError` unless `x` is `[n, *shape]` with at least one row."""
    if x.dim() < 1 or not len(x) or tuple(x.shape[1:]) != shape:
        raise DataError(f"the model takes rows of shape {list(shape)}, got a probe of shape {list(x.shape)}")


def check_probe(given: Mapping[str, Any], space: Space, x: Tensor, features: Tensor, logits: Tensor) -> None:
    """Raise `DataError` unless the probe has rows of the declared input and features of the space's width."""
    if set(given) != {"shape", "dtype"} or not isinstance(given["shape"], list) or x.dim() < 1 or not len(x):
        raise DataError(f"need an input {{'shape', 'dtype'}} and at least one probe row, got {dict(given)}")
    dtype = str(x.dtype).removeprefix("torch.")
    if list(x.shape[1:]) != given["shape"] or dtype != given["dtype"]:
        raise DataError(f"the probe is {dtype} {list(x.shape)}, the input is {given['dtype']} {given['shape']}")
    if tuple(features.shape) != (len(x), space.dim) or len(logits) != len(x):
        raise DataError(
            f"{len(x)} probe rows in a space of width {space.dim} cannot have features {list(features.shape)} "
            f"and logits {list(logits.shape)}"
        )


def check_level(level: str | None) -> None:
    """Raise `DataError` unless `level` is known, or None: nobody has judged yet."""
    if level not in (None, *LEVELS):
        raise DataError(f"a level is one of {', '.join(LEVELS)}, or None before the gate has judged; got {level!r}")


def check_proofs(space: Space, proofs: Sequence[Mapping[str, Any]], read_by: Sequence[Mapping[str, Any]] = ()) -> None:
    """Raise `DataError` unless each readable space but its own has a proof in which the cross-test won.

    `read_by` are proofs of the other direction: of spaces whose versions read this one.
    """
    for proof in (*proofs, *read_by):
        if set(proof) != PROOF:
            raise DataError(f"a proof has {', '.join(sorted(PROOF))}, got {sorted(proof)}")
        if not improves(proof["cross"], proof["self"]):
            raise DataError(f"{proof['space']}: cross-test {proof['cross']} does not beat self-test {proof['self']}")
    proven = {proof["space"] for proof in proofs} | {space.id}
    if odd := space.reads ^ proven:
        raise DataError(f"readable and proven spaces differ in {sorted(map(str, odd))}; only the gate adds either")


def check_weights(weights: Mapping[str, Tensor], model: Mapping[str, Tensor] | None = None) -> None:
    """Raise `ArtifactError` unless weights have the names, shapes and types of `model`, or, without it, are finite."""
    if model is None:
        for name, tensor in weights.items():
            # A sum costs a tenth of a look at each number; it may overflow where none of them did.
            if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
                raise ArtifactError(f"{WEIGHTS}: {name!r} has values that are not finite; go back to an older version")
        return
    if missing := sorted(set(model) - set(weights)):
        raise ArtifactError(f"{WEIGHTS}: {missing[0]!r} is missing ({len(missing)} in all)")
    if extra := sorted(set(weights) - set(model)):
        raise ArtifactError(f"{WEIGHTS}: {extra[0]!r} is not in the model ({len(extra)} in all)")
    for name, want in model.items():
        got = weights[name]
        if got.shape != want.shape or got.dtype != want.dtype:
            raise ArtifactError(
                f"{WEIGHTS}: {name!r} is {got.dtype} {list(got.shape)}, the model has {want.dtype} {list(want.shape)}"
            )


def check_outputs(what: str, got: Tensor, want: Tensor) -> None:
    """Raise `ArtifactError` unless the rebuilt model's outputs `got` are those that the probe holds."""
    if got.shape != want.shape:
        raise ArtifactError(f"{PROBE}: the model's {what} are {list(got.shape)}, the probe's {list(want.shape)}")
    finite = want[torch.isfinite(want)].double().abs()
    limit = TOLERANCE * (finite.max().item() if finite.numel() else 0.0)
    near = (got.double() - want.double()).abs() <= limit
    if not (near | (got == want)).all():  # NaN is never near, equal infinities are
        raise ArtifactError(
            f"{PROBE}: the rebuilt model's {what} are not the recorded ones (limit {limit:.2g}); "
            f"was it saved by another version of its plug-in?"
        )
