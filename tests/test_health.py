"""Health of an embedding: against singular values, closed forms, and whatever the blocks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lifelong.errors import DataError
from lifelong.release.health import FIGURES, Health, effective_rank


def drawn(n, d, seed, rank=None):
    random = torch.Generator().manual_seed(seed)
    made = torch.randn(n, d, generator=random, dtype=torch.float64)
    if rank is not None:
        made = made[:, :rank] @ torch.randn(rank, d, generator=random, dtype=torch.float64)
    return made


def by_svd(z):
    values = torch.linalg.svdvals(z)
    shares = (values / values.sum()).clamp(min=1e-300)
    return math.exp(-(shares * shares.log()).sum().item())


def health(z, before=None, size=7):
    made = Health()
    for rows in torch.arange(len(z)).split(size):
        made.add(z[rows], None if before is None else before[rows])
    return made.figures()


@given(n=st.integers(1, 30), d=st.integers(1, 12), size=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_effective_rank_by_gram_in_blocks_is_that_of_the_singular_values(n, d, size, seed):
    z = drawn(n, d, seed)
    assert health(z, size=size)["effective_rank"] == pytest.approx(by_svd(z), rel=1e-5)


def test_effective_rank_counts_directions_in_use():
    """k orthogonal directions of one length give k; a collapsed embedding 1; zeros 0."""
    for k in (1, 3, 8):
        z = torch.zeros(48, 8, dtype=torch.float64)
        z[torch.arange(48), torch.arange(48) % k] = 1
        assert health(z)["effective_rank"] == pytest.approx(k)
    assert health(torch.ones(10, 5))["effective_rank"] == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.zeros(3, 3)) == 0
    assert health(drawn(50, 10, 0, rank=2))["effective_rank"] <= 2 + 1e-5


@given(size=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_figures_do_not_depend_on_the_blocks(size, seed):
    z, before = drawn(31, 6, seed), drawn(31, 4, seed + 1)
    assert health(z, before, size) == pytest.approx(health(z, before, 31))


def test_norms_by_hand():
    found = health(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    assert (found["norm_mean"], found["norm_sd"]) == (3.0, 2.0)
    assert set(found) == {"effective_rank", "norm_mean", "norm_sd"}


@given(seed=st.integers(0, 2**31))
def test_an_unchanged_embedding_has_not_drifted(seed):
    """Nor one that is only longer; what it gained in coordinates is not compared."""
    before = drawn(20, 5, seed)
    for now in (before, 3 * before, torch.cat([before, drawn(20, 2, seed + 1)], 1)):
        found = health(now, before)
        assert set(found) == set(FIGURES)
        assert found["cosine_shift"] == pytest.approx(0, abs=1e-9)
    assert health(3 * before, before)["cka"] == pytest.approx(1)


@given(seed=st.integers(0, 2**31))
def test_a_rotation_shifts_cosines_and_leaves_the_alignment_at_one(seed):
    """Rows that were stored become useless, though nothing about the geometry changed: the two tell it apart."""
    before = drawn(20, 5, seed)
    turn = torch.linalg.qr(drawn(5, 5, seed + 1)).Q
    found = health(before @ turn + 2, before)
    cosines = torch.nn.functional.cosine_similarity(before @ turn + 2, before, dim=1)
    assert found["cosine_shift"] == pytest.approx(1 - cosines.mean().item())
    assert found["cka"] == pytest.approx(1)


@given(n=st.integers(3, 25), d=st.integers(1, 6), e=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_alignment_is_that_of_centred_kernels(n, d, e, seed):
    """By the N x N kernels of the definition."""
    x, y = drawn(n, d, seed), drawn(n, e, seed + 1)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert health(x, y)["cka"] == pytest.approx(((k * m).sum() / k.norm() / m.norm()).item(), rel=1e-6)


def test_what_does_not_belong_together_is_refused():
    made = Health()
    with pytest.raises(DataError, match="no features"):
        made.figures()
    with pytest.raises(DataError, match="same samples"):
        made.add(torch.ones(3, 2), torch.ones(2, 2))
    made.add(torch.ones(3, 2))
    for features, before in ((torch.ones(3, 4), None), (torch.ones(3, 2), torch.ones(3, 2))):
        with pytest.raises(DataError, match="same widths"):
            made.add(features, before)
