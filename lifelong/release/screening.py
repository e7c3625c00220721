"""Checks that need no held-out rows: the candidate by itself, and side by side with the live version."""

from __future__ import annotations

from lifelong.errors import ArtifactError
from lifelong.models import Classifier
from lifelong.release.report import SKIPPED, Check
from lifelong.release.rules import check_weights
from lifelong.release.snapshot import Snapshot

FIRST = "first version: nothing to compare with"


def rebuilt(candidate: Snapshot) -> tuple[Classifier | None, list[Check]]:
    """Return the candidate's model, if there is one, with the checks `finite` and `probe`."""
    try:
        check_weights(candidate.weights)
    except ArtifactError as error:
        return None, [Check("finite", False, str(error)), skipped("probe", "finite")]
    finite = Check("finite", True, f"{len(candidate.weights)} tensors are finite")
    try:
        return candidate.build(), [finite, Check("probe", True, f"{len(candidate.probe.x)} rows reproduced")]
    except ArtifactError as error:
        return None, [finite, Check("probe", False, str(error))]


def same_labels(candidate: Snapshot, live: Snapshot | None) -> Check:
    """Check that class indices keep their meaning."""
    if live is None:
        return Check("labels", True, FIRST)
    before, after = live.labels, candidate.labels
    if after[: len(before)] == before:
        return Check("labels", True, f"{len(before)} kept, {len(after) - len(before)} new")
    at = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after))
    now = repr(after[at]) if at < len(after) else "nothing"
    detail = (
        f"class {at} is {before[at]!r} in {called(live)} and {now} in the candidate; labels may only be appended: "
        f"let the run begin with the data that {called(live)} learned, or give it a registry of its own"
    )
    return Check("labels", False, detail)


def same_input(candidate: Snapshot, live: Snapshot | None) -> Check:
    """Check that clients may go on sending what they send."""
    if live is None:
        return Check("input", True, FIRST)
    if candidate.input == live.input:
        return Check("input", True, f"unchanged: {live.input}")
    detail = f"{called(live)} takes {live.input}, the candidate {candidate.input}; clients would have to change"
    return Check("input", False, detail)


def skipped(name: str, because: str | None) -> Check:
    """Return the check `name` as one that could not be computed because another failed."""
    return Check(name, False, f"{SKIPPED}{because} failed")


def called(snapshot: Snapshot) -> str:
    """Return what to call a snapshot in a sentence."""
    return "the candidate" if snapshot.version is None else f"version {snapshot.version}"
