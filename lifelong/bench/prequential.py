"""A stream without boundaries: each sample is predicted, then learned; beside it, answers that know nothing of it.

Source: Gama, Sebastiao & Rodrigues 2013, "On evaluating stream learning algorithms"; Zliobaite et al. 2015 on why a
number without the no-change and majority baselines says little about a stream whose labels follow each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lifelong.errors import DataError
from lifelong.learning import Learner
from lifelong.learning.prequential import Prequential
from lifelong.streams.scenario import Scenario
from lifelong.types import Batch

WINDOWS = 50  # points of the curve


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
    answers, curve, before = Prequential(), [], (0, 0, 0, 0)
    size = max(1, len(stream) // WINDOWS)
    for experience in stream:
        batch = experience.train
        if not isinstance(batch, Batch):
            raise DataError(f"experience {experience.name!r} is no batch; make the stream with online()")
        labels = [experience.names[i] for i in batch.y.tolist()] if experience.names else batch.y.tolist()
        answers.add(learner.predict(batch.x) if len(learner.labels) else [None] * len(labels), labels)
        fit(experience)
        if (experience.index + 1) % size == 0 or experience.index + 1 == len(stream):
            now = answers.seen, answers.right, answers.majority, answers.no_change
            samples, *right = (b - a for a, b in zip(before, now, strict=True))
            curve.append([answers.seen, *(r / max(1, samples) for r in right)])
            before = now
    found = answers.figures()
    shares = {"prequential": found["model"], "majority": found["majority"], "no_change": found["no_change"]}
    return {**shares, "samples": answers.seen, "curve": curve}
