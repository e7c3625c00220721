"""Whether two streams share samples: nothing may be tuned on what it is judged on.

Samples are compared by the SHA-256 of their numbers. Between two streams these are sorted first: that also finds an
image whose pixels were put into another order, as permuted scenarios do. Within one stream they are taken as
they stand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from lifelong.bench.store import Store
from lifelong.errors import ConfigError, DataError, LifelongError
from lifelong.streams.scenario import Scenario
from lifelong.streams.scenarios import scenario as make_scenario
from lifelong.types import Batch


def fingerprints(x: Tensor, *, ordered: bool = False) -> list[bytes]:
    """Return 32 bytes for each sample of `[N, ...]`: equal for equal numbers, in whatever order unless `ordered`."""
    flat = x.flatten(1) if x.dim() > 1 else x[:, None]
    rows = (flat if ordered else flat.sort(1).values).contiguous().cpu().numpy()
    return [hashlib.sha256(row.tobytes()).digest() for row in rows]


def samples(stream: Scenario) -> set[bytes]:
    """Return the fingerprints of all training and test samples of `stream`.

    Raises:
        DataError: An experience is no batch.
    """
    found: set[bytes] = set()
    shared: object = None  # a test set that all experiences share is read once
    for experience in stream:
        for part in (experience.train, experience.test):
            if part is None or part is shared:
                continue
            if not isinstance(part, Batch):
                raise DataError(f"experience {experience.name!r} is no batch; cut it with from_data first")
            if part is experience.test:
                shared = part
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


def refuse_other_data(store: Store, root: Path | None) -> None:
    """Raise `ConfigError` if finished cells of `store` were run on other data than their scenarios are cut from now.

    A job names its data; what stands under that name may have changed since, and no mean may go over both.
    """
    held = [(job, found["signature"]["data"]) for job in store.jobs() if (found := store.result(job))]
    distinct = {(job.scenario, data.get("sha256")): (job, data) for job, data in held}
    for job, before in distinct.values():
        try:
            now = make_scenario(job.scenario, root, job.seed, **job.options).data
        except LifelongError:  # its cells will fail, and say why
            continue
        if now.get("sha256") != before.get("sha256"):
            then, here = (f"{data.get('name')}, sha256 {str(data.get('sha256'))[:12]}" for data in (before, now))
            raise ConfigError(
                f"{store.folder} holds cells of {job.scenario} that were run on other data ({then}, and now {here}); "
                "choose another --out, or bring the data back"
            )


def leaked(stream: Scenario) -> list[tuple[int, int]]:
    """Return the test samples of `stream` that are among its training samples too, as ids: (training, test), ascending.

    Of equal training samples the first is named. Where every experience shows the same samples in another way, one
    experience is looked at; what is read lazily is not.
    """
    again = stream.options.get("change") in ("permuted", "rotated")
    parts = [(e.train, e.test) for e in (stream.experiences[:1] if again else stream)]
    trained: dict[bytes, int] = {}
    for train, _ in parts:
        if isinstance(train, Batch):
            for found, number in zip(fingerprints(train.x, ordered=True), train.ids.tolist(), strict=True):
                trained.setdefault(found, number)
    pairs, done = set(), set()
    for _, test in parts:
        if isinstance(test, Batch) and id(test) not in done:  # all experiences may share one
            done.add(id(test))
            named = zip(fingerprints(test.x, ordered=True), test.ids.tolist(), strict=True)
            pairs |= {(trained[found], number) for found, number in named if found in trained}
    return sorted(pairs)


def report(stream: Scenario, most: int = 20) -> dict[str, Any]:
    """Return how many test samples are `leaked`, and the ids of the first of them, as plain values."""
    pairs = leaked(stream)
    return {"leaked": len(pairs), "train_and_test_ids": [list(pair) for pair in pairs[:most]]}
