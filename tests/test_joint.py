"""The two upper lines: from the first weights each time, or going on."""

from __future__ import annotations

import pytest
import torch

from lifelong import plugins
from lifelong.checks import Toy, digest
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.types import Batch, Experience
from strategies.cumulative import Cumulative
from strategies.joint import Joint

SPEC = {"backbone": {"name": "mlp", "inputs": [12], "hidden": [8], "features": 5}, "head": {"name": "linear"}}


def learner(strategy: Strategy, optim: Optim, kind: str = "class-il") -> Learner:
    return Learner(build(SPEC, seed=4), strategy, optim=optim, batch_size=16, shuffle=False, setting=Toy(kind))


def trained(strategy: Strategy, stream: list[Experience], optim: Optim, kind: str = "class-il") -> str:
    made = learner(strategy, optim, kind)
    for experience in stream:
        made.fit(experience, 2)
    return digest(made.state()["model"])


def at_once(stream: list[Experience]) -> Experience:
    every = Batch.cat([e.train for e in stream])  # type: ignore[misc]
    return Experience(0, "all", [c for e in stream for c in e.classes], every, names=stream[0].names)


@pytest.mark.parametrize("optim", [Optim(lr=0.1, momentum=0.9), Optim(name="adam", lr=0.01)], ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_joint_ends_where_training_on_everything_at_once_ends(count: int, optim: Optim) -> None:
    """Bit for bit: nothing of the earlier trainings is left, neither in the weights nor in the optimizer."""
    stream = list(Toy().experiences(3))[:count]

    assert trained(Joint(), stream, optim) == trained(Strategy(), [at_once(stream)], optim)


def test_cumulative_goes_on_from_where_it_is() -> None:
    """It ends where one model ends that is given the first, then the first two, by hand; joint ends elsewhere."""
    stream, optim = list(Toy().experiences(2)), Optim(lr=0.1, momentum=0.9)
    both = at_once(stream)
    by_hand = [stream[0], Experience(1, "both", both.classes, both.train, names=both.names)]

    assert trained(Cumulative(), stream, optim) == trained(Strategy(), by_hand, optim)
    assert trained(Cumulative(), stream, optim) != trained(Joint(), stream, optim)


@pytest.mark.parametrize("make", [Joint, Cumulative])
def test_with_task_ids_each_sample_keeps_its_task(make: type[Strategy]) -> None:
    strategy = make()
    made = learner(strategy, Optim(lr=0.1), "task-il")
    for experience in Toy("task-il").experiences(3):
        made.fit(experience, 3)
    kept = strategy.samples.seen  # type: ignore[attr-defined]

    assert torch.equal(kept.task, kept.y // 2)
    assert min(made.score(e) for e in Toy("task-il").experiences(3)) > 0.8


def test_frozen_weights_are_left_alone() -> None:
    made = learner(Joint(), Optim(lr=0.1))
    made.model.backbone.requires_grad_(False)
    made._rebuild()
    frozen = dict(made.model.backbone.named_parameters())
    for experience in Toy().experiences(2):
        made.fit(experience)

    assert all(p is frozen[name] and not p.requires_grad for name, p in made.model.backbone.named_parameters())


def test_er_is_another_name_for_replay() -> None:
    assert plugins.find("strategy", "er") is plugins.find("strategy", "replay")
