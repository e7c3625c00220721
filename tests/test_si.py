"""The path integral and the pull of synaptic intelligence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.types import Batch, Experience, Output
from strategies.si import SynapticIntelligence

NOTHING = Batch.of(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))
OUT = Output(NOTHING.x, NOTHING.x)


class Bowl(nn.Module):
    """Loss sum a (w - b)^2 / 2."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__()
        self.a, self.b, self.w = a, b, nn.Parameter(torch.zeros_like(a))

    def loss(self) -> Tensor:
        return (self.a * (self.w - self.b).square()).sum() / 2


def descend(model: Bowl, strategy: SynapticIntelligence, steps: int, lr: float) -> None:
    """Plain gradient descent with the strategy's hooks, in the learner's order."""
    strategy.begin(model, Experience(0, "bowl", [], NOTHING))
    for _ in range(steps):
        extra = strategy.penalty(model, NOTHING, OUT)
        loss = model.loss() if extra is None else model.loss() + extra
        model.zero_grad()
        loss.backward()
        before = {"w": model.w.detach().clone()}
        with torch.no_grad():
            model.w -= lr * model.w.grad
        strategy.project_delta(model, before)
    strategy.end(model, Experience(0, "bowl", [], NOTHING))


@settings(max_examples=30)
@given(a=st.floats(0.1, 2), b=st.floats(-3, 3), steps=st.integers(1, 20), lr=st.floats(0.01, 0.4))
def test_the_path_integral_of_gradient_descent_on_a_quadratic(a: float, b: float, steps: int, lr: float) -> None:
    """By hand: w_t = b - b r^t with r = 1 - lr a, each step adds lr (a b r^t)^2, and w has moved by b (1 - r^T)."""
    model = Bowl(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    strategy = SynapticIntelligence(damping=0.1)
    descend(model, strategy, steps, lr)
    r = 1 - lr * a
    path = sum(lr * (a * b * r**t) ** 2 for t in range(steps))

    expected = path / ((b * (1 - r**steps)) ** 2 + 0.1)
    torch.testing.assert_close(float(strategy.held.stiffness["w"]), expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(float(strategy.held.anchor["w"]), b - b * r**steps, rtol=1e-8, atol=1e-12)


def test_with_small_steps_the_path_integral_is_the_fall_of_the_loss() -> None:
    """Equation 2 of the paper, weight by weight: each weight's part of the loss at the start minus at the end."""
    a, b = torch.tensor([1.0, 0.5]).double(), torch.tensor([2.0, -1.0]).double()
    model, strategy = Bowl(a, b), SynapticIntelligence(damping=1e-9)
    descend(model, strategy, 1000, 0.004)
    fall = (a * b.square() - a * (model.w.detach() - b).square()) / 2

    torch.testing.assert_close(strategy.held.stiffness["w"] * model.w.detach().square(), fall, rtol=8e-3, atol=1e-6)


def test_the_own_pull_is_not_part_of_the_path() -> None:
    """The second experience's integral uses the gradient of the loss alone."""
    a, b, lr, pull = 1.0, 2.0, 0.1, 0.7
    model = Bowl(torch.tensor([a]).double(), torch.tensor([b]).double())
    strategy = SynapticIntelligence(pull=pull)
    descend(model, strategy, 5, lr)
    k, anchor = float(strategy.held.stiffness["w"]), float(strategy.held.anchor["w"])
    model.b = torch.tensor([-1.0]).double()
    w, path = anchor, 0.0
    for _ in range(4):
        g = a * (w + 1.0)
        step = -lr * (g + 2 * pull * k * (w - anchor))
        path, w = path - g * step, w + step
    descend(model, strategy, 4, lr)

    torch.testing.assert_close(float(strategy.held.stiffness["w"]), k + path / ((w - anchor) ** 2 + 0.1))


def test_a_pull_above_zero_moves_the_weights_on_the_cpu() -> None:
    """No silent no-op: an anchor that aliases the live weights would give the weights of naive training."""

    def trained(pull: float) -> str:
        made = learner(SynapticIntelligence(pull=pull))
        for experience in Toy().experiences(2):
            made.fit(experience)
        return digest(made.state()["model"])

    assert trained(1.0) != trained(0.0)


def test_a_weight_that_grows_in_mid_experience_starts_where_it_grew() -> None:
    made, (one, two) = learner(SynapticIntelligence()), list(Toy().experiences(2))
    late = [(x, str(int(y))) for x, y in zip(one.train.x, one.train.y, strict=True)]  # type: ignore[union-attr]
    late += [(x, "new") for x in two.train.x]  # type: ignore[union-attr]
    made.shuffle = False
    made.fit(Experience(0, "late", [], late))
    strategy = made.strategy
    assert isinstance(strategy, SynapticIntelligence)

    assert made.labels.tolist() == ["0", "1", "new"]
    assert strategy.held.stiffness["head.weight"].shape == made.model.head.weight.shape
    assert bool(strategy.held.stiffness["head.weight"][2].any())


@pytest.mark.parametrize("arguments", [{"pull": -1.0}, {"damping": 0.0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="got"):
        SynapticIntelligence(**arguments)
