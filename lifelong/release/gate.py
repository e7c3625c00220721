"""The gate: what may go live, and why not.

Every update is judged by the same ordered checks on rows that nobody trained on:

1. `finite`: no weight is NaN or infinite;
2. `probe`: the model, rebuilt from its own spec, answers the probe as the trainer's model did;
3. `labels`: the live version's labels are the first of the candidate's, so class indices keep their meaning;
4. `input`: clients need not change what they send;
5. `accuracy`: on all its classes, the candidate loses at most `max_accuracy_drop` against the live version;
6. `forgetting`: on the classes the live version knows, among themselves, it loses at most `max_forgetting`;
7. `compatibility`: for each space that is read today, the candidate's queries find more in that version's gallery
   than that version's own queries do (`C[new, k] > C[k, k]`, strictly).

A space that was not proven is not read: the returned snapshot says so. Nothing is ever re-embedded. Where both have the
same family and width, the other direction is measured too: a version whose queries find more in the candidate's rows
than in its own can read them after a rollback.

The report names the candidate's level: `patch` (same space and labels), `minor` (reads every space that is read today)
or `major` (does not, which is passed by choice only), and the health of its embedding on the held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from lifelong.errors import ArtifactError, ConfigError, DataError, UnknownName
from lifelong.models import Classifier, outputs
from lifelong.release.accuracy import Answers, accuracy_checks
from lifelong.release.compat import MEASURES, improves
from lifelong.release.health import Health
from lifelong.release.report import Check, Report
from lifelong.release.screening import called, rebuilt, same_input, same_labels, skipped
from lifelong.release.snapshot import Snapshot
from lifelong.release.spaces import Proof, probe_id, proof
from lifelong.types import Batch

__all__ = ["Check", "Gate", "Report"]

BLOCK = 4096  # rows whose products are summed at once


@final
class Gate:
    """Judges candidates on held-out rows.

    Args:
        held_out: Inputs and class indices of the candidate's labels; rows of classes that a version does not know
            (or of index -1) are left out where that version is measured.
        gallery: Rows to write as old galleries, `held_out` then being the queries. By default each class's rows
            of `held_out` go alternately to the gallery and to the queries, the first to the gallery.
        max_accuracy_drop: Share (0..1) of accuracy on all classes that an update may cost.
        max_forgetting: Share (0..1) of accuracy on the live version's classes, among themselves, that it may cost.
        compatible: Refuse a candidate that cannot read what is read today. False is for a major release: such a
            space is just not read any more, and the report says so.
        measure: Of cross-version retrieval: `map` (mean average precision) or `recall_at_1`.

    Raises:
        ConfigError: The limit is no share.
        DataError: There is nothing to measure on.
    """

    def __init__(
        self,
        held_out: Batch,
        *,
        gallery: Batch | None = None,
        max_accuracy_drop: float = 0.02,
        max_forgetting: float = 0.05,
        compatible: bool = True,
        measure: str = "map",
    ) -> None:
        if measure not in MEASURES:
            raise UnknownName.among("measure", measure, MEASURES)
        for name, share in (("max_accuracy_drop", max_accuracy_drop), ("max_forgetting", max_forgetting)):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is a share from 0 to 1, got {share}")
        if not len(held_out) or (gallery is not None and not len(gallery)):
            raise DataError("the gate needs held-out rows, got none; give it some that are not trained on")
        self.max_accuracy_drop, self.max_forgetting = max_accuracy_drop, max_forgetting
        self.compatible, self.measure = compatible, measure
        self._rows = held_out if gallery is None else Batch.cat([held_out, gallery])
        self._scored = torch.arange(len(self._rows)) < len(held_out)
        self._written = _alternate(held_out.y) if gallery is None else ~self._scored
        self._probe = ""  # its hash, once somebody asks

    def judge(
        self, candidate: Snapshot, live: Snapshot | None, older: Sequence[Snapshot] = ()
    ) -> tuple[Snapshot, Report]:
        """Return the candidate with its level, its health and the spaces that it proved to read, and the report.

        Each snapshot embeds the held-out rows once.

        Args:
            candidate: To be judged; it is not changed.
            live: What is served now; None for the first version.
            older: Snapshots of the other spaces that `live` reads; what it does not read is ignored.
        """
        model, checks = rebuilt(candidate)
        checks += [same_labels(candidate, live), same_input(candidate, live)]
        new = self._answers(candidate, model)
        now = self._answers(live) if live else None
        blocked = next((check.name for check in checks if not check.passed), None)
        if blocked:
            checks += [skipped("accuracy", blocked), skipped("forgetting", blocked)]
        else:
            limits = self.max_accuracy_drop, self.max_forgetting
            checks += accuracy_checks(new, now, self._rows.y, self._scored, *limits)
        proofs: list[Proof] = []
        readers: list[Proof] = []
        for space, old in _spaces_read(live, older).items():
            reader = now if now and old is live else self._answers(old) if old else None
            check, found = self._compatibility(space, new, reader, blocked)
            checks.append(check)
            proofs += found[:1]
            readers += found[1:]
        if live is None:
            checks.append(Check("compatibility", True, "no older space to read"))
        proven = candidate.with_proofs(proofs)
        level, health = _level(proven, live), _health(new, now, self._rows.y >= 0)
        metrics = {**candidate.metrics, **{f"embedding_{name}": value for name, value in health.items()}}
        judged = replace(proven, level=level, read_by=tuple(readers), metrics=metrics)
        return judged, Report(tuple(checks), level, health)

    def _answers(self, snapshot: Snapshot, model: Classifier | None = None) -> Answers:
        x, name = self._rows.x, called(snapshot)
        got = {"shape": list(x.shape[1:]), "dtype": str(x.dtype).removeprefix("torch.")}
        if got != snapshot.input:
            return Answers(snapshot, why=f"held-out rows are {got}, {name} takes {snapshot.input}")
        try:
            said = outputs(model or snapshot.build(), x)
        except ArtifactError as error:
            return Answers(snapshot, why=f"{name} cannot be run: {error}")
        if not torch.isfinite(said.features).all():
            return Answers(snapshot, why=f"{name} has features that are not finite on held-out rows")
        return Answers(snapshot, said)

    def _compatibility(
        self, space: str, new: Answers, old: Answers | None, blocked: str | None
    ) -> tuple[Check, list[Proof]]:
        """Return the check, the proof that the candidate reads the space, and that its version reads the candidate."""
        if space == new.snapshot.space.id:
            return Check("compatibility", True, f"the candidate writes into the same space {space}"), []
        why = _incomparable(new, old)
        if why is None and old is not None:
            check, proofs = self._measured(space, new, old)
        elif blocked:
            return skipped("compatibility", blocked), []
        else:
            check, proofs = Check("compatibility", False, f"space {space} is not proven: {why}"), []
        if not check.passed and not self.compatible:
            detail = f"NOT READ ANY MORE (major release): {check.detail}"
            return Check("compatibility", True, detail, check.value, check.limit), []
        return check, proofs

    def _measured(self, space: str, new: Answers, old: Answers) -> tuple[Check, list[Proof]]:
        """Measure `C[new, k]`, and `C[k, new]`, against `C[k, k]` on the classes that version k knows."""
        assert new.said is not None
        assert old.said is not None
        known, y = self._known(old.snapshot), self._rows.y
        asked, written = known & self._scored & ~self._written, known & self._written
        count, name = int(asked.sum()), called(old.snapshot)
        if not count or not written.any():
            detail = f"space {space} is not proven: no held-out queries or gallery rows of the classes of {name}"
            return Check("compatibility", False, detail), []
        cross, own, back = (
            MEASURES[self.measure](q.features[asked], y[asked], g.features[written], y[written])
            for q, g in ((new.said, old.said), (old.said, old.said), (old.said, new.said))
        )
        passed = improves(cross, own)
        detail = (
            f"space {space} of {name}: the candidate's queries reach {cross:.4f}, its own reach {own:.4f} "
            f"({self.measure}, {count} queries); {'proven' if passed else 'must be higher'}"
        )
        self._probe = self._probe or probe_id(self._rows, self._scored, self._written)
        about, theirs = (own, self.measure, count, self._probe), old.snapshot.space
        proofs = [proof(theirs, cross, *about)] if passed else []
        if passed and theirs.dim == new.snapshot.space.dim and improves(back, own):
            proofs.append(proof(theirs, back, *about))
        return Check("compatibility", passed, detail, cross, own), proofs

    def _known(self, snapshot: Snapshot) -> Tensor:
        return (self._rows.y >= 0) & (self._rows.y < len(snapshot.labels))


def _spaces_read(live: Snapshot | None, older: Sequence[Snapshot]) -> dict[str, Snapshot | None]:
    """Return who can speak for each space that is read now: of several versions the one that knows most classes."""
    if live is None:
        return {}
    spaces: dict[str, Snapshot | None] = {live.space.id: live}
    for space in sorted(live.space.reads - {live.space.id}):
        wrote = [old for old in older if old.space.id == space]
        spaces[space] = max(wrote, key=lambda old: len(old.labels), default=None)
    return spaces


def _incomparable(new: Answers, old: Answers | None) -> str | None:
    """Return why the candidate's queries cannot be measured in that gallery, or None."""
    if old is None:
        return "no snapshot of it was given; pass the version that wrote it as older"
    theirs, ours = old.snapshot, new.snapshot
    if theirs.space.family != ours.space.family:
        return f"its family is {theirs.space.family}, the candidate's is {ours.space.family}"
    if ours.labels[: len(theirs.labels)] != theirs.labels:
        return f"class indices of {called(theirs)} mean something else in the candidate"
    return new.why or old.why or None


def _level(proven: Snapshot, live: Snapshot | None) -> str:
    """Return what a candidate is beside the live version; a first version takes nothing away."""
    if live is not None and proven.space.id == live.space.id and proven.labels == live.labels:
        return "patch"
    return "minor" if live is None or live.space.reads <= proven.space.reads else "major"


def _health(new: Answers, now: Answers | None, counted: Tensor) -> dict[str, float]:
    """Return the figures of the candidate's embedding, beside the live version's where both can be asked."""
    if new.said is None or not counted.any():
        return {}
    health, before = Health(), now.said.features if now and now.said else None
    for rows in counted.nonzero().flatten().split(BLOCK):
        health.add(new.said.features[rows], None if before is None else before[rows])
    return health.figures()


def _alternate(y: Tensor) -> Tensor:
    """Return a mask `[N]`: the first, third, ... row of each class (even rows of all would split sorted data badly)."""
    mask = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        mask[(y == label).nonzero().squeeze(1)[::2]] = True
    return mask
