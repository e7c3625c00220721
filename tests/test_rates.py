"""The learning rate is the closed form at every step, whatever is interrupted."""

from __future__ import annotations

import math

import pytest
import streams
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong.checks import digest
from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Learner, Optim
from lifelong.learning.rates import Rate
from lifelong.types import Batch, Experience

COSINE = Rate(policy="cosine", floor=0.1, warmup=8, period=48)


def rates(made: Learner, sizes: list[int]) -> list[float]:
    """The rate of each of some steps."""
    found, random = [], torch.Generator().manual_seed(sum(sizes))
    made.labels.register([0, 1, 2])
    for size in sizes:
        x, y = torch.randn(size, streams.WIDTH, generator=random), torch.randint(3, (size,), generator=random)
        made.step(Batch.of(x, y))
        found.append(made._optimizer.param_groups[0]["lr"])
    return found


def test_cosine_by_hand():
    """Warm-up by a line, then half a cosine; first and last are the floor, the peak is at the end of warming up."""
    at = [COSINE.at(n, 8, 2.0) for n in (0, 4, 8, 28, 48, 1000)]
    assert at == pytest.approx([0.2, 1.1, 2.0, 1.1, 0.2, 0.2], rel=1e-12)
    quarter = 0.2 + 1.8 * 0.5 * (1 + math.cos(math.pi / 4))
    assert COSINE.at(18, 8, 2.0) == pytest.approx(quarter, rel=1e-12)


@given(n=st.integers(1, 10**9), size=st.integers(1, 64), lr=st.floats(1e-4, 10))
def test_power_is_the_capped_power_and_doubles_with_the_batch_below_the_cap(n, size, lr):
    rate = Rate(policy="power", scale=0.5, power=-0.5)
    plain = size * 0.5 / math.sqrt(n)
    assert rate.at(n, size, lr) == pytest.approx(min(lr, plain), rel=1e-12)
    if 2 * plain < lr:
        assert rate.at(n, 2 * size, lr) == pytest.approx(2 * rate.at(n, size, lr), rel=1e-12)
    assert rate.at(0, size, lr) == lr
    assert rate.at(2 * n, size, lr) <= rate.at(n, size, lr)


@given(n=st.integers(0, 2000), policy=st.sampled_from(["cosine", "power"]), warmup=st.integers(0, 400))
def test_it_has_no_leaps_while_it_warms_and_after(n, policy, warmup):
    rate = Rate(policy=policy, warmup=warmup, period=1500, scale=0.01)
    steepest = 1.0 / warmup if n < warmup else math.pi / 2 / (1500 - warmup) if policy == "cosine" else 0.6 / max(n, 1)
    assert abs(rate.at(n + 1, 1, 1.0) - rate.at(n, 1, 1.0)) <= steepest * (1 + 1e-9) or (policy == "power" and n == 0)


def test_steps_take_the_closed_form_and_an_experience_warms_cosine_anew():
    made = streams.learner(optim=Optim(lr=2.0, rate=COSINE))
    assert rates(made, [8, 8, 4]) == pytest.approx([COSINE.at(n, 8, 2.0) for n in (0, 8, 16)], rel=1e-12)
    made.begin(Experience(0, "one", (), iter(()), None))
    assert rates(made, [8, 8]) == pytest.approx([COSINE.at(n, 8, 2.0) for n in (0, 8)], rel=1e-12)
    power = streams.learner(optim=Optim(lr=2.0, rate=Rate(policy="power", scale=0.1)))
    rates(power, [8])
    power.begin(Experience(0, "one", (), iter(()), None))
    assert rates(power, [8]) == [0.8 * 8**-0.51]


def test_constant_changes_no_bit_and_adds_nothing_to_the_state():
    one, two = streams.learner(optim=Optim(lr=0.1)), streams.learner(optim=Optim(lr=0.1, rate=Rate(warmup=5)))
    assert rates(one, [8, 8]) == rates(two, [8, 8]) == [0.1, 0.1]
    assert digest(one.state()) == digest(two.state())
    assert "warmed" not in one.position


@pytest.mark.parametrize("rate", [COSINE, Rate(policy="power", scale=0.05, warmup=10)], ids=["cosine", "power"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_restored_learner_goes_on_with_the_same_rates_and_bits(rate, name):
    def make():
        return streams.learner(optim=Optim(name=name, lr=0.3, rate=rate))

    whole, first, second = make(), make(), make()
    for one in (whole, first):
        one.begin(Experience(0, "one", (), iter(()), None))
        rates(one, [8, 3])
    second.restore(first.state())
    assert rates(second, [8, 8, 5]) == rates(whole, [8, 8, 5])
    assert digest(second.state()) == digest(whole.state())


def test_what_is_out_of_range_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'cosine'"):
        Rate(policy="cosin")
    with pytest.raises(ConfigError, match="period longer than warmup=5 samples, got 5"):
        Rate(policy="cosine", warmup=5, period=5)
    with pytest.raises(ConfigError, match="power must be less than 0"):
        Rate(policy="power", power=0.5)
