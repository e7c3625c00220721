"""Asymmetric cross-entropy: who competes with whom."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lifelong.errors import ConfigError
from lifelong.types import Batch, Output
from strategies.er_ace import AsymmetricReplay

MODEL = nn.Identity()


def step(seed: int = 0) -> tuple[AsymmetricReplay, Batch, torch.Tensor]:
    """Six new samples of classes 3 and 4 behind which stand six remembered ones of classes 0 to 2."""
    strategy = AsymmetricReplay()
    strategy.memory.add(Batch.of(torch.zeros(9, 1), torch.arange(9) % 3))
    mixed = strategy.augment(Batch.of(torch.ones(6, 1), 3 + torch.arange(6) % 2))
    logits = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    return strategy, mixed, logits


def test_the_loss_by_hand() -> None:
    """New samples among classes 3 and 4 only, remembered ones among all five; the two means add up."""
    strategy, mixed, logits = step()
    new = F.cross_entropy(logits[:6, 3:], mixed.y[:6] - 3)
    old = F.cross_entropy(logits[6:], mixed.y[6:])

    torch.testing.assert_close(strategy.loss(MODEL, mixed, Output(logits, logits)), new + old)


def test_new_samples_do_not_push_absent_classes() -> None:
    """The gradient at their logits is 0, and remembered samples do push the new classes."""
    strategy, mixed, logits = step()
    loss = strategy.loss(MODEL, mixed, Output(logits, logits))
    assert loss is not None
    loss.backward()

    assert logits.grad is not None
    assert not logits.grad[:6, :3].any()
    assert bool(logits.grad[:6, 3:].all())
    assert bool((logits.grad[6:, 3:] > 0).all())


def test_with_nothing_remembered_the_loss_is_left_as_it_is() -> None:
    strategy = AsymmetricReplay()
    batch = Batch.of(torch.ones(2, 1), torch.tensor([0, 1]))

    assert strategy.augment(batch) is batch
    assert strategy.loss(MODEL, batch, Output(batch.x, batch.x)) is None


def test_a_negative_ratio_is_refused() -> None:
    with pytest.raises(ConfigError, match="got -1"):
        AsymmetricReplay(ratio=-1)
