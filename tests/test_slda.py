"""Streaming discriminant analysis against the batch closed form and scikit-learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lifelong.checks import Toy, learner
from lifelong.errors import ConfigError
from lifelong.labels import LabelMap
from lifelong.models import build
from lifelong.models.closed_form import LDAHead
from lifelong.release.snapshot import Snapshot
from strategies.slda import StreamingLDA

C, D = 4, 5


def data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Correlated features around class means, each class at least once."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(D, D, generator=random, dtype=torch.float64)
    means = 2 * torch.randn(C, D, generator=random, dtype=torch.float64)
    y = torch.cat([torch.arange(C), torch.randint(C, (count,), generator=random)])
    return means[y] + torch.randn(len(y), D, generator=random, dtype=torch.float64) @ mix, y


def head(shrinkage: float = 1e-2) -> LDAHead:
    made = LDAHead(D, C, shrinkage).eval()
    made.reset(torch.Generator())
    return made


def closed_form(x: Tensor, y: Tensor, at: Tensor, s: float) -> Tensor:
    """-1/2 Mahalanobis distance to each class mean, from all samples at once, one class at a time."""
    means = torch.stack([x[y == c].mean(0) for c in range(C)])
    around = x - means[y]
    inverse = torch.linalg.inv((1 - s) * around.T @ around / len(x) + s * torch.eye(D, dtype=torch.float64))
    gaps = at[:, None] - means
    return -0.5 * torch.einsum("ncd,de,nce->nc", gaps, inverse, gaps)


@settings(max_examples=25)
@given(count=st.integers(0, 40), size=st.integers(1, 50), s=st.floats(1e-3, 1), seed=st.integers(0, 2**31))
def test_it_equals_the_batch_closed_form_whatever_the_order_and_the_batches(
    count: int, size: int, s: float, seed: int
) -> None:
    """Logits are the Gaussian log-likelihoods up to a number per sample."""
    x, y = data(count, seed)
    made = head(s)
    for rows in torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).split(size):
        made.update(x[rows], y[rows])
        made(x[:1])  # a solution in between must not be kept
    at, _ = data(3, seed + 1)
    found, expected = made(at), closed_form(x, y, at, s)

    torch.testing.assert_close(found - found[:, :1], expected - expected[:, :1], rtol=1e-6, atol=1e-6)


@settings(max_examples=25)
@given(count=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_forgetting_is_never_having_seen(count: int, seed: int) -> None:
    x, y = data(20, seed)
    gone, names = data(count, seed + 1)
    one, other = head(), head()
    one.update(x, y)
    one.update(gone, names)
    one.update(gone, names, sign=-1)
    other.update(x, y)

    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(one(x), other(x), rtol=1e-7, atol=1e-7)


@pytest.mark.slow  # scikit-learn takes seconds to import
def test_it_predicts_what_scikit_learn_predicts() -> None:
    """Equal priors; their shrinkage also scales the identity by the mean variance: s is translated."""
    lda = pytest.importorskip("sklearn.discriminant_analysis")
    x, y = data(400, 3)
    y[:] = torch.arange(len(y)) % C  # equal counts, hence equal weights in both estimates of the covariance
    x = x + 3 * torch.nn.functional.one_hot(y, D)
    means = torch.stack([x[y == c].mean(0) for c in range(C)])
    variance = float((x - means[y]).square().mean())  # of each feature, mean
    ours = 0.05
    theirs = ours / (ours + (1 - ours) * variance)
    other = lda.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=theirs, priors=[1 / C] * C)
    other.fit(x.numpy(), y.numpy())
    made = head(ours)
    made.update(x, y)

    at, _ = data(200, 5)
    assert made(at).argmax(1).tolist() == other.predict(at.numpy()).tolist()


def test_a_class_without_samples_is_never_predicted() -> None:
    made = head()
    made.grow(C + 2, torch.Generator())
    made.update(*data(20, 1))

    assert bool(made(data(5, 2)[0])[:, C:].isneginf().all())
    assert head()(torch.ones(2, D)).isneginf().all()


def test_the_strategy_makes_one_pass_and_a_server_rebuilds_its_model() -> None:
    made = learner(StreamingLDA())
    for experience in Toy().experiences(2):
        made.fit(experience, 3)
    assert made.model.head.counts.tolist() == [40, 40, 40, 40]
    probe = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    snapshot = Snapshot.of(made.model, LabelMap(made.labels.tolist()), probe_x=probe)

    torch.testing.assert_close(snapshot.build()(probe).logits, made.model.eval()(probe).logits)
    assert build(made.model.spec()).head.shrinkage == 1e-2


def test_loading_other_sums_drops_the_solution() -> None:
    one, other = head(), head()
    one.update(*data(20, 1))
    other.update(*data(20, 2))
    at, _ = data(3, 3)
    assert not torch.allclose(one(at), other(at))
    one.load_state_dict(other.state_dict())
    torch.testing.assert_close(one(at), other(at))


@pytest.mark.parametrize("shrinkage", [0.0, 1.5])
def test_a_shrinkage_out_of_range_is_refused(shrinkage: float) -> None:
    with pytest.raises(ConfigError, match="got"):
        LDAHead(3, shrinkage=shrinkage)


def test_logits_while_training_are_zeros() -> None:
    made = head()
    made.update(*data(20, 1))
    assert not made.train()(data(3, 2)[0]).any()
