"""Memory aware synapses against the closed form of a linear model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.checks import Toy, learner
from lifelong.errors import ConfigError
from lifelong.learning.fisher import sensitivity
from lifelong.models import build
from lifelong.types import Batch
from strategies.mas import MAS


@settings(max_examples=20)
@given(count=st.integers(1, 9), size=st.integers(1, 10), seed=st.integers(0, 2**31))
def test_the_sensitivity_of_a_linear_model_is_the_closed_form(count: int, size: int, seed: int) -> None:
    """d ||Wx + b||^2 / dW = 2 (Wx + b) x^T, absolute, mean over samples; labels do not matter."""
    model = build(
        {"backbone": {"name": "identity", "inputs": [4]}, "head": {"name": "linear", "classes": 3}}, seed=seed
    )
    model = model.double()
    x = torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = sensitivity(model, Batch.of(x, torch.zeros(count, dtype=torch.int64)), size=size)
    logits = model(x).logits.detach()

    torch.testing.assert_close(found["head.weight"], 2 * logits.abs().T @ x.abs() / count)
    torch.testing.assert_close(found["head.bias"], 2 * logits.abs().mean(0))


def test_sensitivities_of_experiences_add_up_and_pull_to_the_latest_weights() -> None:
    strategy = MAS(pull=0.01, samples=100)
    made = learner(strategy)
    total: dict[str, torch.Tensor] = {}
    for experience in Toy().experiences(2):
        made.fit(experience)
        assert isinstance(experience.train, Batch)
        new = sensitivity(made.model, experience.encoded(experience.train, made.labels))
        for name, k in new.items():
            grown = torch.zeros_like(k)
            if name in total:
                grown[: len(total[name])] = total[name]
            total[name] = grown + k

    torch.testing.assert_close(strategy.held.stiffness, total, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(strategy.held.anchor[n], p) for n, p in made.model.named_parameters())
    with torch.no_grad():
        for p in made.model.parameters():
            p.add_(0.5)
    batch = experience.encoded(experience.train, made.labels)
    extra = strategy.penalty(made.model, batch, made.model(batch.x))
    assert extra is not None
    assert extra.item() == pytest.approx(0.01 * 0.25 * sum(float(k.sum()) for k in total.values()), rel=1e-3)


def test_a_negative_pull_is_refused() -> None:
    with pytest.raises(ConfigError, match="got -1"):
        MAS(pull=-1)
