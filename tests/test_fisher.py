"""Importance of weights against closed forms, in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.learning.fisher import fisher, mean_gradient, sensitivity
from lifelong.models import Classifier, build
from lifelong.types import Batch

C, D = 3, 4
seeds = st.integers(0, 2**31)


def logistic(seed: int = 0) -> Classifier:
    model = build(
        {"backbone": {"name": "identity", "inputs": [D]}, "head": {"name": "linear", "classes": C}}, seed=seed
    )
    return model.double()


def samples(count: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, D, generator=random, dtype=torch.float64)
    return Batch.of(x, torch.randint(C, (count,), generator=random))


def residuals(model: Classifier, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return p `[N, C]` and the gradient of log p(y) by the logits, onehot - p."""
    p = model(batch.x).logits.softmax(1).detach()
    return p, F.one_hot(batch.y, C).double() - p


@settings(max_examples=20)
@given(count=st.integers(1, 12), size=st.integers(1, 13), seed=seeds)
def test_the_empirical_fisher_of_logistic_regression_is_the_closed_form(count: int, size: int, seed: int) -> None:
    """Mean of (onehot - p)_c^2 x_d^2, however many samples are looked at at a time."""
    model, batch = logistic(seed), samples(count, seed)
    _, r = residuals(model, batch)
    found = fisher(model, batch, size=size)

    torch.testing.assert_close(found["head.weight"], r.square().T @ batch.x.square() / count)
    torch.testing.assert_close(found["head.bias"], r.square().mean(0))


@settings(max_examples=20)
@given(count=st.integers(1, 12), size=st.integers(1, 13), seed=seeds)
def test_the_expected_fisher_of_logistic_regression_is_the_closed_form(count: int, size: int, seed: int) -> None:
    """E over y ~ p of (onehot - p)_c^2 is p_c (1 - p_c); labels do not matter."""
    model, batch = logistic(seed), samples(count, seed)
    p, _ = residuals(model, batch)
    found = fisher(model, Batch.of(batch.x, torch.zeros_like(batch.y)), "expected", size=size)

    torch.testing.assert_close(found["head.weight"], (p * (1 - p)).T @ batch.x.square() / count)
    torch.testing.assert_close(found["head.bias"], (p * (1 - p)).mean(0))


def test_squaring_a_batch_mean_gradient_is_another_number() -> None:
    """The planted error: it shrinks with the batch, so it is far from the mean of squares."""
    model, batch = logistic(), samples(64)
    F.cross_entropy(model(batch.x).logits, batch.y).backward()
    planted, right = model.head.weight.grad.square(), fisher(model, batch)["head.weight"]

    assert float(planted.sum()) < 0.5 * float(right.sum())


def test_importance_is_that_of_a_loop_over_single_samples_through_a_deep_model() -> None:
    model = build({"backbone": {"name": "mlp", "inputs": [D], "hidden": [5]}, "head": {"name": "linear", "classes": C}})
    model, batch = model.double(), samples(7)
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    sizes = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(7):
        for total, fold, value in (
            (squares, torch.square, -F.cross_entropy(model(batch.x[i : i + 1]).logits, batch.y[i : i + 1])),
            (sizes, torch.abs, model(batch.x[i : i + 1]).logits.square().sum()),
        ):
            grads = torch.autograd.grad(value, list(model.parameters()))
            for (name, _), g in zip(model.named_parameters(), grads, strict=True):
                total[name] += fold(g) / 7

    torch.testing.assert_close(fisher(model, batch, size=3), squares)
    torch.testing.assert_close(sensitivity(model, batch, size=3), sizes)


def test_measuring_leaves_the_model_as_it_was() -> None:
    """Weights, gradients and training mode; frozen parameters have no importance."""
    model, batch = logistic().train(), samples(4)
    model.head.bias.requires_grad_(False)
    before = {name: t.clone() for name, t in model.state_dict().items()}

    assert set(fisher(model, batch, "expected")) == {"head.weight"}
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_what_cannot_be_measured_is_refused() -> None:
    model, batch = logistic(), samples(4)
    with pytest.raises(UnknownName, match="empirical"):
        fisher(model, batch, "empiricl")
    with pytest.raises(DataError, match="none"):
        fisher(model, batch[:0])
    with pytest.raises(ConfigError, match="size"):
        mean_gradient(model, batch, lambda out, _: out.logits.sum(1), torch.abs, size=0)


def test_a_convolutional_model_is_measured_sample_by_sample_too() -> None:
    spec = {
        "backbone": {"name": "conv", "inputs": [1, 4, 4], "channels": [2], "features": 3},
        "head": {"name": "linear", "classes": 2},
    }
    model: nn.Module = build(spec)
    batch = Batch.of(torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0]))
    squares = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(3):
        loss = F.cross_entropy(model(batch.x[i : i + 1]).logits, batch.y[i : i + 1])
        for (name, _), g in zip(
            model.named_parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True
        ):
            squares[name] += g.square() / 3

    torch.testing.assert_close(fisher(model, batch), squares)
