"""TRGP: GPM plus weights of a task's own along the spans of related tasks."""

from __future__ import annotations

import pytest
import torch
from digits import permuted_digits

from lifelong import checks
from lifelong.errors import ConfigError, DataError
from lifelong.learning import Learner, Optim, Strategy
from lifelong.learning.projection import own
from lifelong.learning.trust import related
from lifelong.models import build
from lifelong.models.layers import layers, matrix
from lifelong.models.scaling import Record
from lifelong.types import Batch, Experience
from strategies import gpm
from strategies.gpm import GPM
from strategies.trgp import TRGP

MLP = {"name": "mlp", "inputs": [12], "hidden": [10, 8]}
CONV = {"name": "conv", "inputs": [1, 4, 4], "channels": [3], "features": 8}
KW = {"threshold": 0.9, "samples": 60, "looks": 2}


def stream(tasks: int, backbone: dict = MLP, kind: str = "domain-il") -> list[Experience]:
    """Two classes of 30 samples per task; tasks share half of their directions, so they are related."""
    shape = backbone["inputs"]
    size, found = torch.Size(shape).numel(), []
    shared = torch.randn(2, size, generator=torch.Generator().manual_seed(99))
    for task in range(tasks):
        random = torch.Generator().manual_seed(task)
        y = torch.arange(60) % 2
        latent = torch.randn(60, 4, generator=random) + 2 * y[:, None]
        x = latent @ torch.cat([shared, torch.randn(2, size, generator=random)]) / 4
        labels = y + (2 * task if kind == "task-il" else 0)
        data = Batch.of(x.reshape(60, *shape), labels, torch.arange(60) + 60 * task)
        found.append(Experience(task, f"t{task}", labels.unique().tolist(), data, data, task=task))
    return found


def learner(strategy: Strategy, backbone: dict = MLP, kind: str = "domain-il", optim: Optim | None = None) -> Learner:
    model = build({"backbone": backbone, "head": {"name": "linear"}}, seed=1)
    return Learner(model, strategy, optim=optim or Optim(lr=0.1), batch_size=10, setting=checks.Toy(kind))


def weights(made: Learner) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in made.model.state_dict().items()}


@pytest.mark.parametrize("kind", ["task-il", "domain-il"])
def test_without_relations_it_ends_at_the_weights_of_gpm_bit_for_bit(monkeypatch, kind):
    """With an eps above 1 nothing is related; the bases are TRGP's in both."""
    monkeypatch.setattr(gpm, "grown", lambda memory, gram, share: own(memory, gram, share)[0])
    ends = []
    for strategy in (GPM(threshold=0.9, samples=60), TRGP(eps=1.1, **KW)):
        made = learner(strategy, kind=kind, optim=Optim(lr=0.05, momentum=0.9))
        for e in stream(3, kind=kind):
            made.fit(e, 2)
        ends.append(weights(made))

    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_without_task_ids_it_ends_at_the_weights_of_gpm_bit_for_bit_and_every_task_answers_with_them(monkeypatch):
    """However related tasks are: nobody could say whose scales to use. The bases are TRGP's in both."""
    monkeypatch.setattr(gpm, "grown", lambda memory, gram, share: own(memory, gram, share)[0])
    untold = stream(3)
    for e in untold:
        e.task = -1
    ends = []
    for strategy in (GPM(threshold=0.9, samples=60), TRGP(eps=0.0, **KW)):
        made = learner(strategy, optim=Optim(lr=0.05, momentum=0.9))
        for e in untold:
            made.fit(e, 2)
        ends.append(weights(made))

    assert made.strategy.summary()["related"] > 0
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    x = untold[0].test.x
    assert all(torch.equal(made.outputs(x, task).logits, made.outputs(x).logits) for task in range(3))


@pytest.mark.parametrize("backbone", [MLP, pytest.param(CONV, marks=pytest.mark.slow)], ids=["mlp", "conv"])
@pytest.mark.parametrize("kind", ["task-il", "domain-il"])
@pytest.mark.parametrize("optim", [Optim(lr=0.05, momentum=0.9), Optim(name="adamw", lr=0.01, weight_decay=0.1)])
def test_old_tasks_keep_their_answers(optim, kind, backbone):
    """With all energy protected, each task answers through its own scales as it did when it ended."""
    strategy = TRGP(threshold=1.0, samples=60, looks=2, eps=0.3)
    made, ends, used = learner(strategy, backbone, kind, optim), [], 0.0
    experiences = stream(3, backbone, kind)
    for e in experiences:
        made.fit(e, 2)
        ends.append(made.outputs(e.train.x, e.task))
        used += strategy.summary()["related"]

    assert used > 0
    for e, then in zip(experiences, ends, strict=True):
        now = made.outputs(e.train.x, e.task)
        torch.testing.assert_close(now.features, then.features, atol=1e-4, rtol=1e-4)
        columns = then.logits.shape[1]
        torch.testing.assert_close(now.logits[:, :columns], then.logits, atol=1e-4, rtol=1e-4)


def test_shared_weights_move_only_outside_of_the_memory():
    strategy = TRGP(eps=0.3, **KW)
    made = learner(strategy)
    first, second = stream(2)
    made.fit(first, 2)
    memory = {n: r.memory for n, r in strategy.trust.scaling.records.items()}
    before = {n: matrix(m).detach().clone() for n, m in layers(made.model).items()}
    made.fit(second, 2)

    assert strategy.summary()["related"] > 0
    for name, layer in layers(made.model).items():
        change = matrix(layer).detach() - before[name]
        assert (change @ memory[name]).norm() <= 1e-4 * change.norm()


def test_bases_are_shared_columns_and_scales_no_larger_than_they():
    strategy = TRGP(eps=0.3, **KW)
    made = learner(strategy)
    for e in stream(3):
        made.fit(e, 2)
    for record in strategy.trust.scaling.records.values():
        columns = record.memory.shape[1]
        torch.testing.assert_close(record.memory.T @ record.memory, torch.eye(columns), atol=1e-5, rtol=0)
        assert set(torch.cat(list(record.own.values())).tolist()) == set(range(columns))
        for task, older in record.related.items():
            assert len(older) <= 2
            assert all(t < task for t in older)
            assert [o.shape[0] for o in record.offsets[task]] == [len(record.own[t]) for t in older]
    assert made.model.scaling.live == {}


def test_a_model_baked_for_a_task_is_plain_and_answers_like_it():
    """And the shared weights are what an unknown task gets; the state dict knows nothing of scales."""
    made = learner(TRGP(eps=0.3, **KW))
    experiences = stream(3)
    for e in experiences:
        made.fit(e, 2)
    x = experiences[2].train.x
    plain, shared = made.model.baked(2), made.model.baked()

    assert plain.scaling is None
    assert plain.state_dict().keys() == build(made.model.spec()).state_dict().keys()
    torch.testing.assert_close(plain(x).logits, made.outputs(x, 2).logits)
    torch.testing.assert_close(shared(x).logits, made.outputs(x).logits)
    assert (plain(x).logits - shared(x).logits).abs().max() > 1e-3
    with torch.no_grad():
        plain.head.weight.zero_()
    assert made.model.head.weight.abs().sum() > 0


def test_each_sample_of_a_mixed_batch_is_answered_under_its_own_task():
    made = learner(TRGP(eps=0.3, **KW))
    experiences = stream(3)
    for e in experiences:
        made.fit(e, 2)
    x, tasks = experiences[0].train.x[:30], torch.arange(30) % 4 - 1  # -1 is unknown
    made.model.eval()
    said = made.model(x, tasks)
    for task in range(-1, 3):
        rows = tasks == task
        torch.testing.assert_close(said.logits[rows], made.outputs(x[rows], task).logits)
        torch.testing.assert_close(said.features[rows], made.outputs(x[rows], task).features)


def test_scales_are_trained_with_the_rest_and_only_while_their_task_runs():
    strategy = TRGP(eps=0.3, **KW)
    made = learner(strategy)
    first, second = stream(2)
    made.fit(first)
    seen: list[set[str]] = []
    made.fit(second, 2, on_step=lambda: seen.append({n for n in made._parameters if n.startswith("scaling.")}))

    assert seen[0]
    assert seen[-1] == set()
    offsets = [o for r in strategy.trust.scaling.records.values() for o in r.offsets[1]]
    assert offsets
    assert any(o.abs().max() > 1e-3 for o in offsets)


def test_related_are_the_two_with_the_largest_share_of_the_gradient():
    """Ties go to the older task; a zero gradient is related to nothing."""
    record = Record(torch.eye(4), {t: torch.tensor([t], dtype=torch.int32) for t in range(4)})
    gradient = torch.tensor([[3.0, 4.0, 0.0, 3.0]])

    assert related(record, gradient, range(4), 0.5, 2) == [1, 0]
    assert related(record, gradient, range(4), 0.6, 2) == [1]
    assert related(record, gradient, range(4), 1.1, 2) == []
    assert related(record, torch.zeros(1, 4), range(4), 0.0, 2) == []


def test_no_two_tasks_have_one_id():
    made = learner(TRGP(**KW))
    first, second = stream(2)
    made.fit(first)
    second.task = 0
    with pytest.raises(DataError, match="task id"):
        made.fit(second)


@pytest.mark.parametrize("wrong", [{"eps": -1.0}, {"looks": 0}, {"samples": 0}, {"threshold": 2.0}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TRGP(**wrong)


@pytest.mark.slow
def test_every_law_holds_but_that_it_keeps_something_of_each_task():
    assert [(v.law, v.outcome) for v in checks.check(TRGP) if v.outcome != "holds"] == [("bounded memory", "exempt")]


@pytest.mark.slow
def test_it_forgets_less_than_gpm_and_knows_more_in_the_end():
    ends = []
    for strategy in (GPM([0.95, 0.99, 0.99], 0), TRGP(threshold=[0.95, 0.99, 0.99], growth=0)):
        made = learner(strategy, {"name": "mlp", "inputs": [64], "hidden": [64, 64]}, optim=Optim(lr=0.05))
        experiences, learned = permuted_digits(4, seed=0), []
        for e in experiences:
            made.fit(e, 5)
            learned.append(made.score(e))
        final = [made.score(e) for e in experiences]
        ends.append((sum(final) / 4, (sum(learned) - sum(final)) / 3))

    assert ends[1][0] > ends[0][0]
    assert ends[1][1] < ends[0][1]
