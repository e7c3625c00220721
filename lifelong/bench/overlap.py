"""Whether two streams share samples: nothing may be tuned on what it is judged on.

Samples are compared by the SHA-256 of their numbers in order and in sorted order: the second also finds an image whose
pixels were put into another order, as permuted scenarios do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.streams.scenario import Scenario
from lifelong.types import Batch


def fingerprints(x: Tensor) -> list[bytes]:
    """Return 32 bytes for each of the samples `[N, ...]`: equal for equal numbers, in whatever order they stand."""
    rows = x.reshape(len(x), -1).sort(1).values.contiguous().cpu().numpy()
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]


def samples(stream: Scenario) -> set[bytes]:
    """Return the fingerprints of all training and test samples of `stream`.

    Raises:
        DataError: An experience is no batch.
    """
    found: set[bytes] = set()
    done: set[int] = set()  # a test set that all experiences share is read once
    for experience in stream:
        for part in (experience.train, experience.test):
            if part is None or id(part) in done:
                continue
            if not isinstance(part, Batch):
                raise DataError(f"experience {experience.name!r} is no batch; cut it with from_data first")
            if part is experience.test:
                done.add(id(part))
            found.update(fingerprints(part.x.float()))
    return found


def refuse_shared(tuned_on: Scenario, judged_on: Scenario) -> None:
    """Raise `ConfigError` if the two streams come from the same data set or share a single sample."""
    if tuned_on.data.get("sha256") and tuned_on.data.get("sha256") == judged_on.data.get("sha256"):
        raise ConfigError(
            f"{tuned_on.name} and {judged_on.name} are cut from the same data ({tuned_on.data.get('name')}); "
            "tune on another data set, or choose the protocol first-task"
        )
    shared = samples(tuned_on) & samples(judged_on)
    if shared:
        raise ConfigError(
            f"{len(shared)} samples of {tuned_on.name}, which settings would be tuned on, are in {judged_on.name} too; "
            "leave them out of one of the two"
        )


def refuse_unlike(tuned_on: Scenario, judged_on: Scenario) -> None:
    """Raise `ConfigError` unless both have one signature: kind and classes of each experience (online: of all)."""
    ours, theirs = _shape(judged_on), _shape(tuned_on)
    if ours != theirs:
        raise ConfigError(
            f"{tuned_on.name} is {_said(theirs)} and {judged_on.name} is {_said(ours)}; settings carry over between "
            "streams of one signature only"
        )


def _shape(stream: Scenario) -> tuple[str, list[int]]:
    if stream.kind == "online":  # how many experiences there are is a matter of how many samples there are
        return stream.kind, [len(stream.classes)]
    return stream.kind, [len(e.classes) for e in stream]


def _said(shape: tuple[str, Iterable[int]]) -> str:
    return f"{shape[0]} with {', '.join(map(str, shape[1]))} classes"


def leaked(stream: Scenario) -> int:
    """Return how many different test samples of `stream` are among its training samples too."""
    train = [fingerprints(e.train.x.float()) for e in stream if isinstance(e.train, Batch)]
    seen = set().union(*map(set, train)) if train else set()
    tests = {f for e in stream if isinstance(e.test, Batch) for f in fingerprints(e.test.x.float())}
    return len(seen & tests)
