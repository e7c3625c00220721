"""Maximally interfered retrieval against a look-ahead that is really taken."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

from lifelong.checks import Toy, learner
from lifelong.errors import ConfigError
from lifelong.types import Batch
from strategies.mir import InterferedReplay, interference


def trained(strategy: InterferedReplay) -> tuple[object, Batch]:
    """A learner in front of its second experience, and that experience's samples."""
    made, (one, two) = learner(strategy), list(Toy().experiences(2))
    made.fit(one, 2)
    two.register(made.labels)
    made.model.grow(4)
    made._rebuild()
    assert isinstance(two.train, Batch)
    return made, two.encoded(two.train, made.labels)


def test_interference_is_what_a_step_of_a_copy_does_to_each_sample() -> None:
    strategy = InterferedReplay()
    made, new = trained(strategy)
    model, old = made.model, strategy.memory.store.all  # type: ignore[attr-defined]
    found = interference(model, new, old, 0.3)
    other = copy.deepcopy(model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.3)
    before = F.cross_entropy(other(old.x).logits, old.y, reduction="none").detach()
    F.cross_entropy(other(new.x).logits, new.y).backward()
    optimizer.step()
    after = F.cross_entropy(other(old.x).logits, old.y, reduction="none").detach()

    torch.testing.assert_close(found, after - before, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None or not p.grad.any() for p in copy.deepcopy(learner(strategy).model).parameters())


def test_the_most_interfered_candidates_are_rehearsed() -> None:
    """All of the memory as candidates: the chosen ones are hurt more than all others."""
    strategy = InterferedReplay(candidates=1000, ratio=0.5, rate=0.2)
    made, new = trained(strategy)
    weights = {name: t.clone() for name, t in made.model.state_dict().items()}  # type: ignore[attr-defined]
    mixed = strategy.augment(new[:20])
    memory = strategy.memory.store.all
    harm = interference(made.model, new[:20], memory, 0.2)  # type: ignore[attr-defined]
    chosen = torch.isin(memory.ids, mixed.ids[20:])

    assert len(mixed) == 30
    assert int(chosen.sum()) == 10
    assert harm[chosen].min() >= harm[~chosen].max()
    assert all(torch.equal(weights[n], t) for n, t in made.model.state_dict().items())  # type: ignore[attr-defined]


def test_there_are_no_more_rehearsed_than_candidates() -> None:
    strategy = InterferedReplay(candidates=3)
    _, new = trained(strategy)
    assert len(strategy.augment(new[:20])) == 23


@pytest.mark.parametrize("arguments", [{"ratio": -1}, {"candidates": 0}, {"rate": 0}])
def test_settings_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="got"):
        InterferedReplay(**arguments)
