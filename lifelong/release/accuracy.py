"""Two questions about accuracy that a growing set of classes keeps apart.

`accuracy`: is the candidate, on all the classes that it knows, at least as good as what is served now? The live version
answers for classes that it does not know too, and is wrong there: that is why there is an update.
`forgetting`: on the classes that the live version knows, chosen among those alone, how much has been lost? More
classes to choose from make any classifier worse on each of them; that is not forgetting, and does not count here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from lifelong.release.report import Check
from lifelong.release.screening import FIRST, called
from lifelong.release.snapshot import Snapshot
from lifelong.types import Output

ROUNDING = 1e-12  # 0.9 - 0.02 is a little more than 0.88 in binary


@final
@dataclass(frozen=True)
class Answers:
    """What a snapshot says of the held-out rows, or why it cannot be asked."""

    snapshot: Snapshot
    said: Output | None = None
    why: str = ""

    def score(self, y: Tensor, rows: Tensor, among: int) -> float:
        """Return the share (0..1) of `rows` predicted right, the classes to choose from being the first `among`."""
        assert self.said is not None
        predicted = self.said.logits[rows, :among].argmax(1)
        return (predicted == y[rows]).double().mean().item()


def accuracy_checks(
    new: Answers, now: Answers | None, y: Tensor, scored: Tensor, drop: float, forgetting: float
) -> list[Check]:
    """Return the checks `accuracy` and `forgetting`.

    Args:
        new: The candidate's answers.
        now: The live version's; None for a first version.
        y: Class indices `[N]` of the held-out rows; -1 counts nowhere.
        scored: Mask `[N]` of the rows that count.
        drop: Share (0..1) that may be lost over all.
        forgetting: Share (0..1) that may be lost on known classes among themselves.
    """
    if why := next((answers.why for answers in (new, now) if answers and answers.why), None):
        return [Check("accuracy", False, why), Check("forgetting", False, why)]
    count = len(new.snapshot.labels)
    rows = scored & (y >= 0) & (y < count)
    if not rows.any():
        detail = f"no held-out row of the {count} classes of {called(new.snapshot)}"
        return [Check("accuracy", now is None, detail), Check("forgetting", now is None, detail)]
    own = new.score(y, rows, count)
    if now is None:
        return [Check("accuracy", True, f"{FIRST}; {own:.4f} of its own", own), Check("forgetting", True, FIRST)]
    live = now.score(y, rows, len(now.snapshot.labels))
    detail = (
        f"accuracy {own:.4f} on {int(rows.sum())} rows of all {count} classes, {called(now.snapshot)} has {live:.4f} "
        f"and at most {drop:g} may be lost"
    )
    overall = Check("accuracy", own >= live - drop - ROUNDING, detail, own, live - drop)
    return [overall, _forgetting(new, now, y, scored, forgetting)]


def _forgetting(new: Answers, now: Answers, y: Tensor, scored: Tensor, limit: float) -> Check:
    known = len(now.snapshot.labels)
    rows = scored & (y >= 0) & (y < known)
    if not rows.any():
        detail = f"no held-out row of the {known} classes of {called(now.snapshot)}"
        return Check("forgetting", not known, detail)
    before, after = now.score(y, rows, known), new.score(y, rows, known)
    detail = (
        f"accuracy {after:.4f} on {int(rows.sum())} rows of the {known} classes of {called(now.snapshot)} among "
        f"themselves, it has {before:.4f} and at most {limit:g} may be lost"
    )
    return Check("forgetting", after >= before - limit - ROUNDING, detail, after, before - limit)
