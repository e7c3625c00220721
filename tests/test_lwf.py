"""Learning without forgetting: what is distilled, and from what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong import files
from lifelong.checks import Toy, learner
from lifelong.errors import ConfigError
from lifelong.learning.checkpoint import pack, unpack
from lifelong.types import Batch, Experience
from strategies.lwf import LwF


def after_one(strategy: LwF) -> tuple[object, Batch, Tensor]:
    """A learner with a grown and moved model, new samples, and what the model said of them before."""
    made, (one, two) = learner(strategy), list(Toy().experiences(2))
    made.fit(one, 2)
    assert isinstance(two.train, Batch)
    before = made.outputs(two.train.x).logits
    data = two.encoded(two.train, learner_labels(made, two))
    made.model.grow(4)
    with torch.no_grad():
        for p in made.model.parameters():
            p.mul_(1.3)
    return made, data, before


def learner_labels(made: object, experience: Experience) -> object:
    experience.register(made.labels)  # type: ignore[attr-defined]
    return made.labels  # type: ignore[attr-defined]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_the_loss_is_the_divergence_from_the_previous_model_over_its_classes(temperature: float) -> None:
    """T^2 sum p log(p / q), written out; the two new columns take no part."""
    strategy = LwF(pull=3.0, temperature=temperature)
    made, batch, before = after_one(strategy)
    out = made.model(batch.x)  # type: ignore[attr-defined]
    p, q = (before / temperature).softmax(1), (out.logits[:, :2] / temperature).softmax(1)

    expected = 3.0 * temperature**2 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(strategy.penalty(made.model, batch, out), expected, rtol=1e-4, atol=1e-6)  # type: ignore[attr-defined]
    assert expected.item() > 0


def test_at_temperature_1_the_gradient_is_that_of_soft_targets() -> None:
    strategy = LwF(pull=1.0, temperature=1.0)
    made, batch, before = after_one(strategy)
    out = made.model(batch.x)  # type: ignore[attr-defined]
    extra = strategy.penalty(made.model, batch, out)  # type: ignore[attr-defined]
    assert extra is not None
    (found,) = torch.autograd.grad(extra, out.logits, retain_graph=True)
    (soft,) = torch.autograd.grad(F.cross_entropy(out.logits[:, :2], before.softmax(1)), out.logits)

    torch.testing.assert_close(found, soft, rtol=1e-4, atol=1e-7)
    assert not found[:, 2:].any()


def test_the_previous_model_is_frozen_and_survives_a_commit() -> None:
    """A copy, not an alias: the live model's steps do not move it."""
    strategy = LwF()
    made, batch, before = after_one(strategy)
    again = LwF()
    again.restore(unpack(*(lambda t, p: (t, files.parse_json(files.canonical_json(p))))(*pack(strategy.state()))))

    for previous in (strategy.previous, again.previous):
        torch.testing.assert_close(previous(batch.x).logits, before)
        assert not any(p.requires_grad for p in previous.model.parameters())  # type: ignore[union-attr]
    assert LwF().penalty(made.model, batch, made.model(batch.x)) is None  # type: ignore[attr-defined]


def test_without_a_pull_nothing_is_copied() -> None:
    made = learner(LwF(pull=0))
    made.fit(next(Toy().experiences(1)))
    assert made.strategy.state() == {"previous": {}}


@pytest.mark.parametrize("arguments", [{"pull": -1.0}, {"temperature": 0.0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="got"):
        LwF(**arguments)
