"""GDumb: a model of the memory and of nothing else."""

from __future__ import annotations

import pytest
import torch

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.learning.optimizers import trained
from strategies.gdumb import GDumb


def test_the_model_depends_on_the_memory_alone() -> None:
    """Other weights before the end, the same after it."""
    ends = []
    for noise in (0.0, 1.0):
        made = learner(GDumb(capacity=40, epochs=3))
        one, two = Toy().experiences(2)
        made.fit(one)
        with torch.no_grad():
            for p in made.model.parameters():
                p.add_(noise)
        made.fit(two)
        ends.append(digest(made.state()["model"]))
    assert ends[0] == ends[1]


def test_samples_do_not_train_the_model_until_the_end() -> None:
    """No parameter trains, also after the head has grown, so there is one pass and no optimizer."""
    made = learner(GDumb(capacity=40, epochs=2))
    weights: list[str] = []
    for experience in Toy().experiences(2):
        made.fit(experience, 5, on_step=lambda: weights.append(digest(made.state()["model"])))
        assert not trained(made.model)
        assert made.counters["samples"] == 80 * (experience.index + 1)
    assert len(set(weights[:5])) == 1 < len(set(weights))
    assert all(p.grad is None for p in made.model.parameters())


def test_classes_share_the_memory_equally() -> None:
    strategy = GDumb(capacity=30, epochs=1)
    made = learner(strategy)
    for experience in Toy().experiences(3):
        made.fit(experience)
    assert strategy.memory.store.all.y.bincount().tolist() == [5] * 6


@pytest.mark.slow
def test_with_room_for_everything_nothing_is_forgotten() -> None:
    made = learner(GDumb())
    stream = list(Toy().experiences(3))
    for experience in stream:
        made.fit(experience)
    assert min(made.score(e) for e in stream) > 0.95


def test_frozen_parts_stay_frozen_and_as_they_are_built() -> None:
    made = learner(GDumb(epochs=2))
    strategy = GDumb(epochs=2)
    made.model.backbone.requires_grad_(False)
    made.model.head.requires_grad_(True)
    strategy.adapt(made.model)
    assert strategy.trains == ["head.weight", "head.bias"]


@pytest.mark.parametrize("arguments", [{"epochs": 0}, {"lr": 0}, {"momentum": 1}, {"batch_size": 0}, {"capacity": 0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="got"):
        GDumb(**arguments)
