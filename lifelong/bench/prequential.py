"""A stream without boundaries: each sample is predicted, then learned; beside it, answers that know nothing of it.

Source: Gama, Sebastiao & Rodrigues 2013, "On evaluating stream learning algorithms"; Zliobaite et al. 2015 on why a
number without the no-change and majority baselines says little about a stream whose labels follow each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, final

from lifelong.errors import DataError
from lifelong.labels import Label
from lifelong.learning import Learner
from lifelong.streams.scenario import Scenario
from lifelong.types import Batch

WINDOWS = 50  # points of the curve


@final
class Baselines:
    """The most frequent label so far, and the last one."""

    def __init__(self) -> None:
        self._counts: Counter[Label] = Counter()
        self._most: Label | None = None
        self._last: Label | None = None

    def __call__(self, label: Label) -> tuple[bool, bool]:
        """Return whether majority and no-change are right about `label`, then learn it; of ties the older wins."""
        right = self._most == label, self._last == label
        self._counts[label] += 1
        self._last = label
        if self._most is None or self._counts[label] > self._counts[self._most]:
            self._most = label
        return right


def run(learner: Learner, stream: Scenario, fit: Callable[..., None]) -> dict[str, Any]:
    """Predict and learn every experience of `stream`; return the shares (0..1) of right answers.

    Args:
        learner: What is judged.
        stream: Its experiences are batches.
        fit: Called with each experience, after its samples were predicted.

    Returns:
        `prequential`, `majority`, `no_change`: over the whole stream. `curve`: those three over consecutive windows of
        about a fiftieth of it, with the number of samples at the end of each.

    Raises:
        DataError: An experience is no batch.
    """
    answers, totals, window, curve = Baselines(), [0, 0, 0], [0, 0, 0], []
    seen = start = 0
    size = max(1, len(stream) // WINDOWS)
    for experience in stream:
        batch = experience.train
        if not isinstance(batch, Batch):
            raise DataError(f"experience {experience.name!r} is no batch; make the stream with online()")
        labels = [experience.names[i] for i in batch.y.tolist()] if experience.names else batch.y.tolist()
        said = learner.predict(batch.x) if len(learner.labels) else [None] * len(labels)
        for answer, label in zip(said, labels, strict=True):
            for i, right in enumerate((answer == label, *answers(label))):
                window[i] += right
        seen += len(labels)
        fit(experience)
        if (experience.index + 1) % size == 0 or experience.index + 1 == len(stream):
            curve.append([seen, *(w / max(1, seen - start) for w in window)])
            totals = [t + w for t, w in zip(totals, window, strict=True)]
            window, start = [0, 0, 0], seen
    shares = dict(zip(("prequential", "majority", "no_change"), (t / max(1, seen) for t in totals), strict=True))
    return {**shares, "samples": seen, "curve": curve}
