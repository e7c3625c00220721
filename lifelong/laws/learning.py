"""Laws about learning: new labels, refusals, and being better than nothing."""

from __future__ import annotations

import math

import torch

from lifelong.errors import ConfigError, DataError
from lifelong.learning import Learner, Strategy
from lifelong.trial import WIDTH, Make, Toy, digest, kind, learner, trained
from lifelong.types import Batch


def new_labels(make: Make) -> str | None:
    """Classes that appear in mid-stream are learned better than by a guess; old class indices keep their meaning."""
    made = learner(make(), kind(make))
    seen: list[object] = []
    for experience in Toy(kind(make)).experiences(3):
        made.fit(experience, 4)
        assert made.labels.tolist()[: len(seen)] == seen, "an old class index changed its meaning"
        seen = list(made.labels.tolist())
        guess = 1 / len(experience.classes if made.by_task else seen)  # among the classes that it may answer with
        score = made.score(experience)
        assert score > guess, f"right after learning {experience.name} it is {score:.2f} right; a guess is {guess:.2f}"
    return None


def nan_refused(make: Make) -> str | None:
    """A batch with NaN is refused with a `DataError`, as is one whose loss becomes NaN, and nothing has changed."""
    made = trained(make)
    made.begin(list(Toy(kind(make)).experiences(3))[2])  # in the middle of an experience, where old samples are drawn
    before = digest(made.state())
    for what, value in (("of NaN", torch.nan), ("with a loss of NaN", 3e38)):
        try:
            loss = made.step(Batch.of(torch.full((4, WIDTH), value), torch.zeros(4, dtype=torch.int64)))
        except DataError:
            assert before == digest(made.state()), f"the refused batch {what} left a trace"
        else:
            assert math.isfinite(value) and math.isfinite(loss), f"a batch {what} was learned"
    return None


def needs_enforced(make: Make) -> str | None:
    """A scenario that does not provide what it needs, or that it is not meant for, is refused at construction."""
    needs = make().needs
    poor = Toy("online", frozenset())
    wants = needs.boundaries or needs.task_id or needs.known_classes or needs.epochs or "online" not in needs.scenarios
    try:
        Learner(learner(Strategy()).model, make(), setting=poor)
    except ConfigError:
        assert wants, "it refuses an online stream, and declares no need that would explain it"
        return None
    assert not wants, "it accepts an online stream that does not provide what it needs"
    return None


def beats_naive(make: Make) -> str | None:
    """In one of the scenarios that it is meant for, it keeps more than naive training does."""
    said = []
    for of in dict.fromkeys([kind(make), "domain-il"]):
        if of not in make().needs.scenarios:
            continue
        scores = []
        for maker in (Strategy, make):
            made = learner(maker(), of)
            stream = list(Toy(of).experiences(3))
            for experience in stream:
                made.fit(experience, 4)
            scores.append(sum(made.score(e) for e in stream) / len(stream))
        if scores[1] > scores[0]:
            return None
        said.append(f"{of}: final mean accuracy {scores[1]:.3f}, naive training has {scores[0]:.3f}")
    raise AssertionError("; ".join(said))
