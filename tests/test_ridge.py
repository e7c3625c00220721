"""Streaming ridge regression against the regression on all samples at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lifelong.checks import Toy, learner
from lifelong.errors import ConfigError
from lifelong.labels import LabelMap
from lifelong.models.closed_form import RidgeHead
from lifelong.release.snapshot import Snapshot
from strategies.ridge import StreamingRidge

C, D = 3, 4


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(C), torch.randint(C, (count,), generator=random)])
    return torch.randn(len(y), D, generator=random, dtype=torch.float64), y


def head(width: int, ridge: float = 1.0) -> RidgeHead:
    made = RidgeHead(D, C, width, ridge).eval()
    made.reset(torch.Generator().manual_seed(0))
    return made


@settings(max_examples=25)
@given(
    count=st.integers(0, 40),
    size=st.integers(1, 50),
    width=st.sampled_from([0, 6]),
    ridge=st.floats(0.01, 10),
    seed=st.integers(0, 2**31),
)
def test_it_equals_the_batch_closed_form_whatever_the_order_and_the_batches(
    count: int, size: int, width: int, ridge: float, seed: int
) -> None:
    """As least squares with sqrt(ridge) I rows appended, a way that never forms a Gram matrix."""
    x, y = data(count, seed)
    made = head(width, ridge)
    for rows in torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).split(size):
        made.update(x[rows], y[rows])
        made(x[:1])
    h = (x @ made.lift.double()).relu() if width else x
    eye = ridge**0.5 * torch.eye(h.shape[1], dtype=torch.float64)
    goal = torch.cat([F.one_hot(y, C).double(), torch.zeros(len(eye), C, dtype=torch.float64)])
    weight = torch.linalg.lstsq(torch.cat([h, eye]), goal).solution

    torch.testing.assert_close(made(x), h @ weight, rtol=1e-7, atol=1e-7)


@settings(max_examples=25)
@given(count=st.integers(1, 30), width=st.sampled_from([0, 6]), seed=st.integers(0, 2**31))
def test_forgetting_is_never_having_seen(count: int, width: int, seed: int) -> None:
    x, y = data(20, seed)
    gone, names = data(count, seed + 1)
    one, other = head(width), head(width)
    one.update(x, y)
    one.update(gone, names)
    one.update(gone, names, sign=-1)
    other.update(x, y)

    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(one(x), other(x), rtol=1e-9, atol=1e-9)


def test_a_class_without_samples_is_never_predicted_and_old_columns_stay() -> None:
    made = head(6)
    made.update(*data(20, 1))
    at, _ = data(5, 2)
    before = made(at)
    made.grow(C + 2, torch.Generator())

    assert bool(made(at)[:, C:].isneginf().all())
    torch.testing.assert_close(made(at)[:, :C], before)


def test_what_rounding_made_indefinite_is_solved_all_the_same() -> None:
    made = head(6, ridge=0.01)
    made.update(*data(20, 1))
    made.gram.diagonal()[2] = -5.0
    at, _ = data(5, 2)
    damped = made.gram + 0.01 * torch.eye(6, dtype=torch.float64)
    assert torch.linalg.eigvalsh(damped)[0] < 0

    torch.testing.assert_close(made(at), made.lifted(at) @ torch.linalg.inv(damped) @ made.targets.T)


def test_a_step_makes_no_matrix_of_the_width_anew() -> None:
    """Five of them, made and freed with every batch, were a swing of the process's memory by 5 % at 1,000 features."""
    made, (x, y) = head(300), data(20, 1)
    made.update(x, y)
    made(x)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        made.update(x, y)
        made(x)

    made_anew = {e.name: e.self_cpu_memory_usage for e in seen.events() if e.self_cpu_memory_usage > 0}
    assert made_anew  # it does see them
    assert max(made_anew.values()) < made.gram.nbytes
    assert "room" not in made.state_dict()


def test_random_features_are_drawn_from_the_models_own_generator() -> None:
    made = {seed: learner(StreamingRidge(width=8), seed=seed).model.head.lift for seed in (0, 1)}

    assert torch.equal(made[0], learner(StreamingRidge(width=8)).model.head.lift)
    assert not torch.equal(made[0], made[1])


def test_the_strategy_makes_one_pass_and_a_server_rebuilds_its_model() -> None:
    made = learner(StreamingRidge(width=32))
    for experience in Toy().experiences(2):
        made.fit(experience, 3)
    assert made.model.head.counts.tolist() == [40, 40, 40, 40]
    probe = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    snapshot = Snapshot.of(made.model, LabelMap(made.labels.tolist()), probe_x=probe)

    torch.testing.assert_close(snapshot.build()(probe).logits, made.model.eval()(probe).logits)


@pytest.mark.parametrize("arguments", [{"ridge": 0.0}, {"width": -1}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="got"):
        RidgeHead(3, **arguments)
