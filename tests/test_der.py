"""Dark experience replay: what is remembered of a sample, and the loss on it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.learning import Chain
from lifelong.learning.dark import DarkMemory, distance
from lifelong.types import Batch, Experience, Output
from strategies.der import DarkReplay
from strategies.derpp import DarkReplayPlus
from strategies.er_ace import AsymmetricReplay
from strategies.naive import Naive
from strategies.replay import Replay

MODEL = nn.Identity()


def batch(count: int, first: int = 0) -> Batch:
    ids = torch.arange(first, first + count)
    return Batch.of(ids[:, None].float(), ids % 2, ids)


def test_logits_stay_with_their_samples_while_heads_grow_and_rows_are_replaced() -> None:
    memory, seen = DarkMemory(7, seed=1), {}
    for k in range(30):
        new = batch(5, 5 * k)
        logits = torch.randn(5, 2 + k // 10, generator=torch.Generator().manual_seed(k))
        memory.add(new, logits)
        seen.update(dict(zip(new.ids.tolist(), logits, strict=True)))
        drawn, then = memory.draw(7)
        for i, row in zip(drawn.ids.tolist(), then, strict=True):
            assert torch.equal(row[: len(seen[i])], seen[i])
            assert bool(row[len(seen[i]) :].isnan().all())
    twin = DarkMemory(7)
    twin.restore(memory.state())
    assert digest(twin.state()) == digest(memory.state())
    assert torch.equal(twin.draw(3)[1].nan_to_num(), memory.draw(3)[1].nan_to_num())


def test_the_distance_by_hand() -> None:
    """Known columns against what was said; later classes against the least likely; other tasks' classes not at all."""
    now = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -torch.inf]], requires_grad=True)
    then = torch.tensor([[0.5, 2.0], [4.0, torch.nan]])
    found = distance(now, then)
    terms = [0.5**2, 0.0, 2.5**2, 4.0**2, 3.0**2]
    found.backward()

    assert found.item() == pytest.approx(sum(terms) / 5)
    assert now.grad is not None
    torch.testing.assert_close(now.grad, torch.tensor([[0.2, 0.0, 1.0], [-1.6, -1.2, 0.0]]))


@pytest.mark.parametrize("make", [DarkReplay, DarkReplayPlus])
@pytest.mark.parametrize("epochs", [1, 3])
def test_what_is_remembered_is_what_was_last_said_of_a_sample_when_it_was_new(make, epochs: int) -> None:
    """In the step, before it was taken; of an earlier experience nothing is renewed, though its ids come again."""
    strategy = make(capacity=50)
    made, said = learner(strategy), {}
    observe = strategy.observe

    def noting(model: nn.Module, new: Batch, out: Output) -> None:
        for i, y, row in zip(new.ids.tolist(), new.y.tolist(), out.logits.detach(), strict=True):
            said[i, y] = row.clone()
        observe(model, new, out)

    strategy.observe = noting  # type: ignore[method-assign]
    for e in Toy().experiences(3):
        assert isinstance(e.train, Batch)
        same_ids = Batch.of(e.train.x, e.train.y)
        made.fit(Experience(e.index, e.name, e.classes, same_ids, names=e.names), epochs)
    kept, logits = strategy.memory.samples.store.all, strategy.memory.logits
    assert len(kept) == 50
    for i, y, row in zip(kept.ids.tolist(), kept.y.tolist(), logits, strict=True):
        assert torch.equal(row[: len(said[i, y])], said[i, y])


@pytest.mark.parametrize("after", [0, 2])
def test_the_loss_of_der_by_hand(after: int) -> None:
    """Cross-entropy of the new samples (and of what another strategy appended), distance of the remembered ones."""
    strategy = DarkReplay(alpha=0.7, ratio=0.5)
    strategy.memory.add(batch(20), torch.arange(40.0).view(20, 2))
    mixed = strategy.augment(batch(6, 100))
    assert len(mixed) == 9
    logits = torch.randn(9 + after, 3, generator=torch.Generator().manual_seed(0))
    whole = Batch.cat([mixed, batch(after, 200)]) if after else mixed
    other = torch.tensor([*range(6), *range(9, 9 + after)])
    then = torch.stack([torch.tensor([2.0 * i, 2.0 * i + 1, 2.0 * i]) for i in mixed.ids[6:].tolist()])

    expected = F.cross_entropy(logits[other], whole.y[other]) + 0.7 * F.mse_loss(logits[6:9], then)
    torch.testing.assert_close(strategy.loss(MODEL, whole, Output(logits, logits)), expected)


def test_the_loss_of_der_plus_plus_by_hand_and_what_is_left_of_it() -> None:
    strategy = DarkReplayPlus(alpha=0.7, beta=0.3)
    strategy.memory.add(batch(20), torch.arange(40.0).view(20, 2))
    mixed = strategy.augment(batch(4, 100))
    assert len(mixed) == 12
    logits = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    then = torch.stack([torch.tensor([2.0 * i, 2.0 * i + 1]) for i in mixed.ids[4:8].tolist()])
    out = Output(logits, logits)
    new, dark = F.cross_entropy(logits[:4], mixed.y[:4]), F.mse_loss(logits[4:8], then)

    expected = new + 0.7 * dark + 0.3 * F.cross_entropy(logits[8:], mixed.y[8:])
    torch.testing.assert_close(strategy.loss(MODEL, mixed, out), expected)
    strategy.beta = 0.0
    torch.testing.assert_close(strategy.loss(MODEL, mixed, out), new + 0.7 * dark)


def test_without_both_weights_it_is_naive() -> None:
    ends = set()
    for strategy in (Naive(), DarkReplayPlus(alpha=0, beta=0), DarkReplay(alpha=0)):
        made = learner(strategy)
        for experience in Toy().experiences(2):
            made.fit(experience)
        ends.add(digest(made.state()["model"]))
    assert len(ends) == 1


@pytest.mark.slow
def test_in_a_task_incremental_stream_the_distance_stays_finite() -> None:
    """Logits of other tasks' classes are -inf there."""
    for strategy in (DarkReplay(), DarkReplayPlus(), AsymmetricReplay()):
        made = learner(strategy, "task-il")
        stream = list(Toy("task-il").experiences(3))
        for experience in stream:
            made.fit(experience, 4)
        assert min(made.score(e) for e in stream) > 0.9


def test_it_chains_with_replay_and_two_losses_are_refused() -> None:
    first, second, _ = Toy().experiences(3)
    for chain in (Chain(DarkReplay(), Replay()), Chain(Replay(), DarkReplay())):
        made = learner(chain)
        made.fit(first, 2)
        made.fit(second, 4)
        assert made.score(first) > 0.5
    for other in (DarkReplayPlus(), DarkReplay()):
        with pytest.raises(ConfigError, match=f"DarkReplay and {type(other).__name__} both replace the loss"):
            Chain(DarkReplay(), other)


@pytest.mark.parametrize(
    "make", [lambda: DarkReplay(alpha=-1), lambda: DarkReplay(ratio=0), lambda: DarkReplayPlus(beta=-1)]
)
def test_settings_out_of_range_are_refused(make) -> None:
    with pytest.raises(ConfigError, match="got"):
        make()
