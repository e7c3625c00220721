"""Quadratic pulls, and elastic weight consolidation as a sum of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError, UnknownName
from lifelong.learning.fisher import fisher
from lifelong.learning.quadratic import Quadratic, padded
from lifelong.types import Batch, Output
from strategies.ewc import EWC

seeds = st.integers(0, 2**31)


class Row(nn.Module):
    """One parameter."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40)
@given(pulls=st.integers(1, 5), seed=seeds)
def test_separate_pulls_are_one_quadratic_up_to_a_constant(pulls: int, seed: int) -> None:
    """Same gradient everywhere as the plain sum, of a weight that grows by a row at each pull."""
    held, terms = Quadratic(), []
    for k in range(1, pulls + 1):
        w, f = drawn(k, 2, seed=seed + k), drawn(k, 2, seed=seed - k).square()
        held.add({"w": w}, {"w": f})
        terms.append((w, f))
    model = Row(drawn(pulls + 1, 2, seed=seed))
    plain = torch.stack([(f * (model.w[: len(f)] - w).square()).sum() for w, f in terms]).sum()
    (expected,) = torch.autograd.grad(plain, [model.w])
    (found,) = torch.autograd.grad(held.energy(model), [model.w])

    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(held.slope("w", model.w.detach()), expected, rtol=1e-9, atol=1e-9)
    assert not found[pulls:].any()


@settings(max_examples=40)
@given(keep=st.floats(0, 1), seed=seeds)
def test_a_moved_pull_is_decayed_and_starts_from_the_latest_weights(keep: float, seed: int) -> None:
    held, w, f = Quadratic(), drawn(3, 2, seed=seed), drawn(3, 2, seed=seed + 1).square()
    held.move({"w": drawn(2, 2, seed=seed + 2)}, {"w": f[:2]})
    held.move({"w": w}, {"w": f}, keep=keep)
    here = drawn(3, 2, seed=seed + 3)
    stiffness = f + keep * torch.cat([f[:2], torch.zeros(1, 2)])

    torch.testing.assert_close(held.energy(Row(here)), (stiffness * (here - w).square()).sum())
    assert held.energy(Row(w)) == 0


def test_anchors_do_not_follow_the_live_weights() -> None:
    """The planted error is an anchor that aliases the weight: its pull is always 0."""
    for add in ("add", "move"):
        held, model = Quadratic(), Row(torch.ones(2))
        getattr(held, add)({"w": model.w}, {"w": torch.ones(2)})
        with torch.no_grad():
            model.w += 3.0
        assert held.energy(model).item() == pytest.approx(18.0)


def test_padding_keeps_old_entries_and_takes_new_ones_from_the_other() -> None:
    assert padded(torch.ones(1, 2), torch.zeros(2, 2)).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("online", [True, False])
def test_the_penalty_is_half_of_pull_times_fisher_times_squared_distance(online: bool) -> None:
    """Of all samples (there are fewer than `samples`), at the weights where the experience ended."""
    strategy = EWC(pull=7.0, online=online, samples=100)
    made, (one, two) = learner(strategy), list(Toy().experiences(2))
    made.fit(one, 2)
    end = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    assert isinstance(one.train, Batch)
    f = fisher(made.model, one.encoded(one.train, made.labels))
    found: list[float] = []
    penalty = strategy.penalty

    def noting(model: nn.Module, batch: Batch, out: Output) -> Tensor | None:
        extra = penalty(model, batch, out)
        expected = sum((f[n] * (p[: len(f[n])] - end[n]).square()).sum() for n, p in model.named_parameters())
        torch.testing.assert_close(extra, 3.5 * expected, rtol=1e-4, atol=1e-7)
        found.append(expected.item())
        return extra

    strategy.penalty = noting  # type: ignore[method-assign]
    made.fit(two)
    assert found[0] == 0 < found[-1]


def test_a_strong_pull_keeps_important_weights_nearer_than_a_weak_one() -> None:
    def moved(pull: float) -> float:
        made, (one, two) = learner(EWC(pull=pull)), list(Toy().experiences(2))
        made.fit(one, 2)
        start = {name: p.detach().clone() for name, p in made.model.named_parameters()}
        made.fit(two, 1)
        return sum((p[: len(start[n])] - start[n]).square().sum().item() for n, p in made.model.named_parameters())

    assert moved(100.0) < moved(0.0)


def test_what_the_modes_and_kinds_of_pull_do_differs() -> None:
    def trained(**arguments: object) -> str:
        made = learner(EWC(**arguments))  # type: ignore[arg-type]
        for experience in Toy().experiences(3):
            made.fit(experience)
        return digest(made.state()["model"])

    ends = {trained(), trained(online=False), trained(mode="expected"), trained(gamma=0.0), trained(samples=5)}
    assert len(ends) == 5


@pytest.mark.parametrize("arguments", [{"pull": -1}, {"gamma": 2}, {"samples": 0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="got"):
        EWC(**arguments)  # type: ignore[arg-type]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UnknownName, match="expected"):
        EWC(mode="expcted")
