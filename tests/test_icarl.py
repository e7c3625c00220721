"""iCaRL: herding, targets and answers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.labels import LabelMap
from lifelong.models.exemplar import ExemplarHead
from lifelong.release.snapshot import Snapshot
from lifelong.types import Batch
from strategies.icarl import ICaRL, herded


@given(size=st.integers(1, 12), count=st.integers(0, 14), width=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_herding_takes_the_row_that_brings_the_running_mean_nearest(
    size: int, count: int, width: int, seed: int
) -> None:
    """Algorithm 4 by trying every free row at every place."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(size, width, generator=random, dtype=torch.float64) + 1
    z = features / features.norm(dim=1, keepdim=True)
    mean, chosen = z.mean(0), herded(features, count).tolist()

    assert len(chosen) == len(set(chosen)) == min(size, count)
    for k, row in enumerate(chosen):
        tried = {i: float((mean - z[[*chosen[:k], i]].mean(0)).norm()) for i in range(size) if i not in chosen[:k]}
        assert tried[row] <= min(tried.values()) + 1e-9


def test_the_loss_is_binary_with_the_previous_models_targets_for_what_it_knew() -> None:
    strategy = ICaRL()
    made, (one, two) = learner(strategy), list(Toy().experiences(2))
    made.fit(one, 2)
    assert isinstance(two.train, Batch)
    two.register(made.labels)
    batch = two.encoded(two.train, made.labels)
    old = made.model.train()(batch.x).logits.detach()
    made.model.grow(4)
    with torch.no_grad():
        for p in made.model.parameters():
            p.mul_(1.2)
    out = made.model(batch.x)
    target = torch.cat([old.sigmoid(), F.one_hot(batch.y - 2, 2)], 1)
    p = out.logits.sigmoid()

    expected = -(target * p.log() + (1 - target) * (1 - p).log()).sum(1).mean()
    torch.testing.assert_close(strategy.loss(made.model, batch, out), expected, rtol=1e-4, atol=1e-5)


def test_answers_are_the_nearest_mean_of_exemplars() -> None:
    strategy = ICaRL(capacity=20)
    made = learner(strategy)
    stream = list(Toy().experiences(2))
    for experience in stream:
        made.fit(experience, 3)
    assert [len(b) for b in strategy.exemplars.values()] == [5] * 4
    assert all(bool((b.y == c).all()) for c, b in strategy.exemplars.items())
    unit = {c: F.normalize(made.embed(b.x), dim=1).mean(0) for c, b in strategy.exemplars.items()}
    means = torch.stack([unit[c] / unit[c].norm() for c in range(4)])
    assert isinstance(stream[0].train, Batch)
    x = torch.cat([e.train.x for e in stream])  # type: ignore[union-attr]
    nearest = (F.normalize(made.embed(x), dim=1) @ means.T).argmax(1)

    assert made.predict(x) == made.labels.decode(nearest)


def test_exemplars_keep_their_order_when_the_room_shrinks() -> None:
    """The first ones of the list are kept: they were the best for their number."""
    strategy = ICaRL(capacity=24)
    made, (one, two, _) = learner(strategy), list(Toy().experiences(3))
    made.fit(one)
    before = {c: b.ids.tolist() for c, b in strategy.exemplars.items()}
    made.fit(two)

    assert [len(ids) for ids in before.values()] == [12, 12]
    assert all(strategy.exemplars[c].ids.tolist() == ids[:6] for c, ids in before.items())


def test_a_server_rebuilds_the_model_and_gets_the_same_answers() -> None:
    made = learner(ICaRL())
    for experience in Toy().experiences(2):
        made.fit(experience)
    probe = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    snapshot = Snapshot.of(made.model, LabelMap(made.labels.tolist()), probe_x=probe)

    torch.testing.assert_close(snapshot.build()(probe).logits, made.model.eval()(probe).logits)


def test_the_head_answers_linearly_while_training_and_before_there_is_a_mean() -> None:
    head = ExemplarHead(3, 2)
    head.reset(torch.Generator().manual_seed(0))
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    linear = head.linear(z)
    assert torch.equal(head.eval()(z), linear)
    head.place(1, z)

    assert torch.equal(head.train()(z), linear)
    assert head.eval()(z).argmax(1).tolist() == [1] * 4
    assert bool(head(z)[:, 0].isneginf().all())


def test_more_classes_than_room_leaves_no_exemplars_and_still_goes_on() -> None:
    made = learner(ICaRL(capacity=1))
    for experience in Toy().experiences(2):
        made.fit(experience)
    assert made.strategy.summary() == {"memory": 0.0}
    assert digest(made.state()) == digest(made.state())


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"ratio": -1}, {"pool": 0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="got"):
        ICaRL(**arguments)
