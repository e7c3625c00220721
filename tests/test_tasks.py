"""With task ids every loss on remembered samples is that of a head per task: other tasks' columns take no part."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lifelong.checks import Toy, learner
from lifelong.learning import Learner, Strategy, gradients
from lifelong.learning.fisher import fisher, sensitivity
from lifelong.learning.inputs import answered, task_mask
from lifelong.models import Classifier, build
from lifelong.types import Batch
from strategies.agem import AveragedGEM
from strategies.ewc import EWC
from strategies.gdumb import GDumb
from strategies.gem import GEM
from strategies.lwf import LwF
from strategies.mas import MAS
from strategies.mir import InterferedReplay, interference

TASKS = {0: [0, 2], 1: [1, 3, 4]}


def model() -> Classifier:
    """Five classes of two tasks; weights in float64."""
    made = build({"backbone": {"name": "mlp", "inputs": [4], "hidden": [6]}, "head": {"name": "linear", "classes": 5}})
    made.allowed = task_mask(TASKS, 5)
    return made.double()


def samples(count: int = 12) -> Batch:
    random = torch.Generator().manual_seed(3)
    task = torch.arange(count) % 2
    y = torch.tensor([TASKS[t][i % len(TASKS[t])] for i, t in enumerate(task.tolist())])
    return Batch.of(torch.randn(count, 4, generator=random, dtype=torch.float64), y, None, task)


def of_heads(made: Classifier, batch: Batch) -> Tensor:
    """Losses `[N]` with a head per task, sample by sample: rows of the one matrix, and a softmax over those alone."""
    losses = []
    for i in range(len(batch)):
        own = TASKS[int(batch.task[i])]
        features = made.backbone(batch.x[i : i + 1])
        logits = features @ made.head.weight[own].T + made.head.bias[own]
        losses.append(F.cross_entropy(logits, torch.tensor([own.index(int(batch.y[i]))])))
    return torch.stack(losses)


def test_the_gradient_on_remembered_samples_is_that_of_a_head_per_task() -> None:
    made, batch = model(), samples()
    expected = torch.autograd.grad(of_heads(made, batch).mean(), list(made.parameters()))

    torch.testing.assert_close(gradients.of_loss(made, batch), torch.cat([g.flatten() for g in expected]))


def test_without_task_ids_it_is_that_of_all_classes() -> None:
    made, batch = model(), samples()
    made.allowed = None
    logits = made(batch.x).logits

    assert answered(made, logits, batch.task) is logits
    expected = torch.autograd.grad(F.cross_entropy(logits, batch.y), list(made.parameters()))
    torch.testing.assert_close(gradients.of_loss(made, batch), torch.cat([g.flatten() for g in expected]))


@pytest.mark.parametrize("mode", ["empirical", "expected"])
def test_the_fisher_is_that_of_a_head_per_task(mode: str) -> None:
    """Against a loop over samples (and, for the expectation, over the task's own classes)."""
    made, batch = model(), samples()
    total = [torch.zeros_like(p) for p in made.parameters()]
    for i in range(len(batch)):
        one = batch[i : i + 1]
        for c in TASKS[int(one.task)] if mode == "expected" else one.y.tolist():
            loss = of_heads(made, Batch(one.x, torch.tensor([c]), one.ids, one.task)).sum()
            weight = (-loss).exp().detach() if mode == "expected" else 1.0
            for sum_, g in zip(total, torch.autograd.grad(loss, list(made.parameters())), strict=True):
                sum_ += weight * g.square() / len(batch)

    for found, expected in zip(fisher(made, batch, mode).values(), total, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_sensitivity_is_that_of_a_head_per_task() -> None:
    made, batch = model(), samples()
    total = [torch.zeros_like(p) for p in made.parameters()]
    for i in range(len(batch)):
        value = made(batch.x[i : i + 1]).logits[:, TASKS[int(batch.task[i])]].square().sum()
        for sum_, g in zip(total, torch.autograd.grad(value, list(made.parameters())), strict=True):
            sum_ += g.abs() / len(batch)

    for found, expected in zip(sensitivity(made, batch).values(), total, strict=True):
        torch.testing.assert_close(found, expected)


def test_interference_is_what_a_step_on_heads_per_task_does() -> None:
    made, batch = model(), samples(16)
    new, old = batch[:4], batch[4:]
    other = copy.deepcopy(made)
    before = of_heads(other, old).detach()
    of_heads(other, new).mean().backward()
    torch.optim.SGD(other.parameters(), lr=0.3).step()

    torch.testing.assert_close(interference(made, new, old, 0.3), of_heads(other, old).detach() - before)


def run(strategy: Strategy, count: int = 3, epochs: int = 4) -> tuple[Learner, float]:
    made, stream = learner(strategy, "task-il"), list(Toy("task-il").experiences(count))
    for experience in stream:
        made.fit(experience, epochs)
    return made, min(made.score(e) for e in stream)


@pytest.mark.parametrize(
    "make", [AveragedGEM, GEM, InterferedReplay, lambda: GDumb(epochs=5), lambda: LwF(pull=0.3), EWC, MAS]
)
@pytest.mark.slow
def test_methods_of_task_incremental_learning_learn_with_task_ids(make) -> None:
    assert run(make())[1] > 0.9


@pytest.mark.parametrize("make", [AveragedGEM, GEM])
def test_the_past_is_held_in_its_own_columns(make) -> None:
    """A step moves columns of the new task and, where it was turned, of the past; columns to come have no gradient."""
    made, (one, two, three) = learner(make(), "task-il"), Toy("task-il").experiences(3)
    made.fit(one)
    made.fit(two)
    for later in (three,):
        later.register(made.labels)
        made.model.grow(6)
        made._rebuild()
    past = gradients.of_loss(made.model, Batch.cat(made.strategy.memory.finished))  # type: ignore[attr-defined]
    names = [n for n, p in made.model.named_parameters() for _ in range(p.numel())]
    columns = past[torch.tensor([n == "head.bias" for n in names])]

    assert bool(columns[:4].all())
    assert not columns[4:].any()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_lwf_distils_each_old_task_among_its_own_classes(temperature: float) -> None:
    """T^2 times the sum over old tasks of KL, written out."""
    strategy = LwF(pull=3.0, temperature=temperature)
    made, stream = learner(strategy, "task-il"), list(Toy("task-il").experiences(3))
    made.fit(stream[0])
    made.fit(stream[1])
    batch = stream[2].train
    assert isinstance(batch, Batch)
    before = made.outputs(batch.x).logits
    made.fit(stream[2])
    restored = LwF(pull=3.0, temperature=temperature)
    state = strategy.state()
    strategy.previous.restore({})
    old = learner(strategy, "task-il")
    old.fit(stream[0])
    old.fit(stream[1])
    restored.restore(strategy.state())
    out = made.model(batch.x)
    terms = []
    for own in ([0, 1], [2, 3]):
        p, q = (before[:, own] / temperature).softmax(1), (out.logits[:, own] / temperature).softmax(1)
        terms.append((p * (p / q).log()).sum(1).mean())

    assert set(state) == {"previous", "heads"}
    for one in (strategy, restored):
        found = one.penalty(made.model, batch, out)
        torch.testing.assert_close(found, 3.0 * temperature**2 * sum(terms), rtol=1e-4, atol=1e-5)
