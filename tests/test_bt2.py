"""BT2, BCT and Align as strategies: losses against their definition, versions against the one before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.errors import ConfigError, UnknownName
from lifelong.labels import LabelMap
from lifelong.learning import Chain, Learner, Optim, Strategy
from lifelong.learning.means import ClassMeans
from lifelong.learning.neighbours import OldRows
from lifelong.learning.optimizers import trained
from lifelong.models import Classifier, build
from lifelong.models.compatible import Basis, LearnedBasis
from lifelong.release.snapshot import Snapshot
from lifelong.types import Batch, Experience, Output
from strategies.align import Align
from strategies.bct import BackwardCompatible
from strategies.bt2 import BasisTransformation
from strategies.replay import Replay


def samples(index: int, count: int = 24) -> Experience:
    random = torch.Generator().manual_seed(index)
    y = torch.arange(count) % 2 + 2 * index
    data = Batch.of(torch.randn(count, 4, generator=random) + y[:, None], y, torch.arange(count) + 100 * index)
    return Experience(index, f"e{index}", [2 * index, 2 * index + 1], data, data)


def spec(features: int = 6, head: str = "linear") -> dict[str, Any]:
    return {
        "backbone": {"name": "mlp", "inputs": [4], "hidden": [8], "features": features},
        "head": {"name": head},
    }


def learner(strategy: Strategy, features: int = 6, seed: int = 0, head: str = "linear") -> Learner:
    model = build(spec(features, head), seed=seed)
    return Learner(model, strategy, optim=Optim(lr=0.05, momentum=0.9), batch_size=4, seed=seed)


def old_model(features: int = 6) -> Classifier:
    made = learner(Strategy(), features, seed=9)
    made.fit(samples(0), 3)
    return made.model


class Stop(Exception):
    """In the middle of an experience."""


def stopped(made: Learner, experience: Experience, steps: int = 3) -> None:
    """Learn a few steps of an experience, and leave it open."""
    first = made.counters["steps"]

    def stop() -> None:
        if made.counters["steps"] == first + steps:
            raise Stop

    with pytest.raises(Stop):
        made.fit(experience, on_step=stop)


def unit(z: Tensor) -> Tensor:
    return z / z.norm(dim=1, keepdim=True)


def means(z: Tensor, y: Tensor) -> Tensor:
    return unit(torch.stack([unit(z)[y == c].mean(0) for c in y.unique()]))


# ---- class means


def test_class_means_are_those_of_all_samples_and_absent_classes_take_no_part() -> None:
    """However they were cut into batches; classes 0 and 2 have no samples."""
    random = torch.Generator().manual_seed(0)
    z, y = torch.randn(9, 5, generator=random), torch.tensor([1, 3, 1, 3, 4, 4, 1, 3, 4])
    found = ClassMeans()
    for part in (slice(0, 2), slice(2, 7), slice(7, 9)):
        found.add(z[part], y[part])
    logits = 7.0 * unit(z) @ means(z, y).T
    expected = F.cross_entropy(logits, torch.tensor([{1: 0, 3: 1, 4: 2}[c] for c in y.tolist()]))
    torch.testing.assert_close(found.loss(z, y, 7.0), expected)

    again = ClassMeans()
    again.restore(found.state())
    assert torch.equal(again.loss(z, y, 7.0), found.loss(z, y, 7.0))
    again.clear()
    assert again.state() == {}


# ---- bct


def test_bct_adds_the_cross_entropy_under_the_frozen_models_class_means() -> None:
    """Means of what was trained on so far, by the model as it was when the experience began."""
    strategy = BackwardCompatible(pull=3.0, scale=5.0)
    made = learner(strategy)
    made.fit(samples(0))
    before = made.model.baked()
    stopped(made, samples(1))
    batch = Batch.cat([samples(1).train])  # every sample of it, in one batch
    strategy.means.clear()
    old = before(batch.x).features.detach()

    out = made.model(batch.x)
    value = strategy.penalty(made.model, batch, out)
    rows = means(old, batch.y)
    expected = 3.0 * F.cross_entropy(5.0 * unit(out.features) @ rows.T, batch.y - 2)
    torch.testing.assert_close(value, expected)


def test_the_first_version_has_nothing_to_be_compatible_with_unless_it_is_given() -> None:
    naive, plain, bound = (
        learner(Strategy()),
        learner(BackwardCompatible()),
        learner(BackwardCompatible(old=old_model())),
    )
    for made in (naive, plain, bound):
        made.fit(samples(0))
    x = samples(0).train.x
    assert torch.equal(naive.embed(x), plain.embed(x))
    assert not torch.equal(naive.embed(x), bound.embed(x))


def test_bct_needs_features_of_the_old_width() -> None:
    with pytest.raises(ConfigError, match="as wide as the old version's 5, got 6"):
        learner(BackwardCompatible(old=old_model(5))).fit(samples(0))


# ---- bt2


@pytest.mark.parametrize("rows", [0, 100])
def test_bt2_binds_to_the_old_version_to_its_classes_and_to_the_new_model_by_itself(rows: int) -> None:
    """Its classes are class means (`rows=0`), or its rows of other samples: here those of this very batch."""
    strategy = BasisTransformation(2, 2.0, own=1.5, classes=3.0, features=7.0, scale=7.0, rows=rows)
    made = learner(strategy)
    made.fit(samples(0))
    before = made.model.baked()
    stopped(made, samples(1))
    strategy.means.clear()
    strategy.rows.clear()
    batch, basis = samples(1).train, made.model.backbone
    assert isinstance(basis, LearnedBasis)
    old, alone = before(batch.x).features.detach(), basis.twin(batch.x)

    out = made.model(batch.x)
    value = strategy.penalty(made.model, batch, out)
    first, own = unit(out.features[:, :6]), unit(basis.net.inner(batch.x)[:, :6])
    classes = F.cross_entropy(7.0 * first @ means(old, batch.y).T, batch.y - 2)
    if rows:
        written = OldRows(rows)
        written.add(old, batch.y, batch.ids)
        classes = written.loss(first, batch.y, batch.ids, 7.0)
    expected = (
        1.5 * (1 - (own * unit(alone)).sum(1)).mean()
        + 3.0 * classes
        + 7.0 * (1 - (first * unit(old)).sum(1)).mean()
        + F.cross_entropy(basis.twin_head(alone), batch.y)
    )
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [0, 100])
def test_the_third_version_is_bound_in_the_coordinates_of_the_first_one_as_well(rows: int) -> None:
    """Half of the loss is that of the first 6 coordinates, the other half that of all 8 of the second version."""
    strategy = BasisTransformation(2, own=0.0, classes=3.0, features=7.0, scale=5.0, rows=rows)
    made = learner(Chain(Replay(20), strategy))
    for index in range(2):
        made.fit(samples(index))
    before = made.model.baked()
    stopped(made, samples(2))
    strategy.means.clear()
    strategy.rows.clear()
    batch, basis = samples(2).train, made.model.backbone
    old, out, expected = before(batch.x).features, made.model(batch.x), 0.0
    for width in (6, 8):
        first, written = OldRows(100), ClassMeans()
        first.add(old[:, :width], batch.y, batch.ids)
        written.add(unit(old), batch.y)
        written.sums = written.sums[:, :width]
        z = out.features[:, :width]
        found = first.loss(z, batch.y, batch.ids, 5.0) if rows else written.loss(z, batch.y, 5.0)
        expected = expected + 1.5 * found + 3.5 * (1 - (unit(z) * unit(old[:, :width])).sum(1)).mean()
    alone = F.cross_entropy(basis.twin_head(basis.twin(batch.x)), batch.y)
    torch.testing.assert_close(strategy.penalty(made.model, batch, out), expected + alone, rtol=1e-4, atol=1e-5)


def test_the_new_model_by_itself_is_trained_by_its_own_cross_entropy_alone() -> None:
    """So it is what it would have become without any old version: it does not know of one."""
    one, two = learner(BasisTransformation(2, features=0.0)), learner(BasisTransformation(2, features=50.0))
    for made in (one, two):
        made.fit(samples(0))
        stopped(made, samples(1), 5)
    x = samples(1).train.x
    assert torch.equal(one.model.backbone.twin(x), two.model.backbone.twin(x))
    assert not torch.equal(one.embed(x), two.embed(x))


def test_a_finished_version_is_folded_and_trains_no_more() -> None:
    made, widths = learner(Chain(Replay(20), BasisTransformation(3))), []
    for index in range(4):
        made.fit(samples(index))
        widths.append(made.model.dim)
    assert widths == [6, 9, 12, 15]
    assert isinstance(made.model.backbone, Basis)
    assert not trained(made.model)
    assert not [name for name in made.model.state_dict() if "twin" in name or "free" in name]


@pytest.mark.slow
def test_first_coordinates_come_to_mean_what_the_old_ones_meant() -> None:
    """Far nearer to the old version's features than those of the model by itself."""
    old = old_model()
    made = learner(BasisTransformation(2, classes=0.0, old=old), seed=1)
    made.fit(samples(0, 200), 10)
    alone = learner(Strategy(), seed=1)
    alone.fit(samples(0, 200), 10)
    x = samples(0).test.x
    target = old(x).features
    near = F.cosine_similarity(made.embed(x)[:, :6], target).mean()
    far = F.cosine_similarity(alone.embed(x), target).mean()
    assert near > 0.9
    assert far < 0.8


@pytest.mark.parametrize(("strategy", "kind"), [
    (lambda: BasisTransformation(2), "basis"), (lambda: Align(), "mapped"), (lambda: BackwardCompatible(), "mlp"),
])  # fmt: skip
def test_every_version_makes_a_snapshot_that_answers_alike(strategy: Any, kind: str) -> None:
    made = learner(Chain(Replay(20), strategy()))
    for index in range(2):
        made.fit(samples(index))
        snapshot = Snapshot.of(made.model, LabelMap(made.labels.tolist()), probe_x=samples(0).train.x[:3])
        assert snapshot.build().dim == made.model.dim
    assert snapshot.model["backbone"]["name"] == kind


def test_a_trained_new_model_is_followed_not_trained() -> None:
    old, new = old_model(), old_model(7)
    made = learner(BasisTransformation(2, old=old, new=new), features=7)
    stopped(made, samples(0))
    assert torch.equal(made.model.backbone.twin(samples(0).train.x), new.backbone(samples(0).train.x))
    with pytest.raises(ConfigError, match="give old as well"):
        BasisTransformation(new=new)


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_the_kind_of_the_head_is_kept(head: str) -> None:
    made = learner(BasisTransformation(2), head=head)
    for index in range(2):
        made.fit(samples(index))
    assert made.model.spec()["head"]["name"] == head
    assert made.score(samples(1)) > 0.4


def test_a_head_of_a_fixed_width_cannot_follow() -> None:
    made = learner(BasisTransformation(2, old=old_model()))
    made.model.with_head("simplex", classes=7)
    with pytest.raises(ConfigError, match="K - 1"):
        made.fit(samples(0))


@pytest.mark.parametrize("wrong", [{"extra": 0}, {"c": 0.0}, {"features": -1.0}, {"scale": 0.0}, {"rows": -1}])
def test_settings_of_bt2_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got"):
        BasisTransformation(**wrong)


@pytest.mark.parametrize("wrong", [{"pull": -1.0}, {"scale": 0.0}])
def test_settings_of_bct_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got"):
        BackwardCompatible(**wrong)


# ---- align


def test_align_turns_the_features_and_keeps_the_answers() -> None:
    """Logits and angles stay; features come nearer to the old ones, as the best rotation brings them."""
    strategy = Align()
    made, naive = learner(strategy, seed=1), learner(Strategy(), seed=1)
    for one in (made, naive):
        one.fit(samples(0))
    old = made.embed(samples(1).train.x)
    for one in (made, naive):
        one.fit(samples(1), 5)
    x = samples(1).train.x
    turned, free = made.embed(x), naive.embed(x)

    torch.testing.assert_close(made.outputs(x).logits, naive.outputs(x).logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(turned @ turned.T, free @ free.T, rtol=1e-4, atol=1e-4)
    u, _, v = torch.linalg.svd(unit(old).T @ unit(free))
    torch.testing.assert_close(turned, free @ (u @ v).T, rtol=1e-3, atol=1e-3)
    assert F.cosine_similarity(turned, old).mean() > F.cosine_similarity(free, old).mean()


def test_align_maps_onto_an_old_version_of_another_width() -> None:
    old = old_model(9)
    for kind in ("orthogonal", "ridge"):
        made = learner(Align(kind, old=old), head="cosine")
        made.fit(samples(0), 3)
        assert made.model.dim == 9
        assert made.score(samples(0)) > 0.6


def test_align_fits_on_rehearsed_samples_too_and_on_no_more_than_its_capacity() -> None:
    strategy = Align(capacity=7)
    made = learner(Chain(Replay(20), strategy))
    made.fit(samples(0))
    stopped(made, samples(1), 5)
    kept = strategy.pairs.store.all
    assert len(kept) == 7
    assert (kept.ids < 100).any()


def test_align_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ridge'"):
        Align("rigde")
    with pytest.raises(ConfigError, match="capacity"):
        Align(capacity=0)
    made = learner(Align())
    made.model.with_head("prototype")
    out = Output(torch.zeros(1, 6), torch.zeros(1, 1))
    made.strategy.old.take(old_model())
    made.strategy.penalty(made.model, samples(0).train, out)
    made.strategy.observe(made.model, samples(0).train, out)
    with pytest.raises(ConfigError, match="linear or cosine head"):
        made.strategy.end(made.model, samples(0))
