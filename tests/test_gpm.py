"""GPM: no step is felt by what older tasks sent through a layer."""

from __future__ import annotations

import pytest
import torch
from digits import permuted_digits
from torch import nn

from lifelong import checks
from lifelong.errors import ConfigError
from lifelong.learning import Learner, Optim, Strategy
from lifelong.learning.projection import grown
from lifelong.learning.protection import Energy, freeze, gradients, grams, others
from lifelong.models import build, products
from lifelong.models.layers import layers, matrix
from lifelong.types import Batch, Experience
from strategies import gpm
from strategies.gpm import GPM

MLP = {"name": "mlp", "inputs": [12], "hidden": [10, 8]}
CONV = {"name": "conv", "inputs": [1, 4, 4], "channels": [3], "features": 8}
SGD = Optim(lr=0.1)


def samples(task: int, shape: tuple[int, ...], kind: str) -> Batch:
    """Two classes of 30 samples, in a subspace of its own size; in task-il the classes are new ones."""
    random = torch.Generator().manual_seed(task)
    size = torch.Size(shape).numel()
    y = torch.arange(60) % 2
    latent = torch.randn(60, 4, generator=random) + 2 * y[:, None]
    x = latent @ torch.randn(4, size, generator=random) / 4
    return Batch.of(x.reshape(60, *shape), y + (2 * task if kind == "task-il" else 0), torch.arange(60) + 60 * task)


def stream(tasks: int, backbone: dict, kind: str) -> list[Experience]:
    data = [samples(t, tuple(backbone["inputs"]), kind) for t in range(tasks)]
    return [Experience(t, f"t{t}", b.y.unique().tolist(), b, b, task=t) for t, b in enumerate(data)]


def learner(strategy: Strategy, backbone=MLP, kind="domain-il", optim=SGD, double=False) -> Learner:
    model = build({"backbone": backbone, "head": {"name": "linear"}}, seed=1)
    model = model.double() if double else model
    return Learner(model, strategy, optim=optim, batch_size=10, setting=checks.Toy(kind))


def felt(strategy: GPM, made: Learner, experience: Experience, epochs: int = 3) -> float:
    """The largest share of a layer's change, over an experience, that lies inside what was protected before it."""
    memory, outputs = dict(strategy.memory), dict(strategy.outputs)
    before = {name: matrix(layer).detach().clone() for name, layer in layers(made.model).items()}
    made.fit(experience, epochs)
    shares = []
    for name, layer in layers(made.model).items():
        change = matrix(layer).detach()[: outputs[name]] - before[name][: outputs[name]]
        if change.norm() > 1e-5:  # less is rounding: columns of other tasks' classes stay where they were
            shares.append(float((change @ memory[name]).norm() / change.norm()))
    assert shares, "nothing was learned at all"
    return max(shares)


OPTIMIZERS = {
    "sgd": SGD,
    "momentum": Optim(lr=0.05, momentum=0.9),
    "decay": Optim(lr=0.1, weight_decay=0.1),
    "adam": Optim(name="adam", lr=0.01),
    "adamw": Optim(name="adamw", lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("backbone", [MLP, pytest.param(CONV, marks=pytest.mark.slow)], ids=["mlp", "conv"])
@pytest.mark.parametrize("kind", ["task-il", "domain-il"])
@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.slow
def test_no_optimizer_leads_into_the_protected_span(optim, kind, backbone):
    """Momentum from the old task, preconditioning and weight decay included; head and biases included."""
    strategy = GPM(threshold=0.9)
    made = learner(strategy, backbone, kind, OPTIMIZERS[optim])
    first, *rest = stream(3, backbone, kind)
    made.fit(first, 3)

    assert set(strategy.memory) == set(layers(made.model))
    for experience in rest:
        assert felt(strategy, made, experience) < 1e-4


def felt_in_double_precision() -> float:
    strategy = GPM(threshold=0.9)
    made = learner(strategy, double=True)
    experiences = stream(2, MLP, "domain-il")
    for e in experiences:
        e.train = Batch(e.train.x.double(), e.train.y, e.train.ids, e.train.task)
    made.fit(experiences[0], 3)
    return felt(strategy, made, experiences[1])


def test_in_double_precision_the_share_is_rounding_error():
    assert felt_in_double_precision() < 1e-12


@pytest.mark.parametrize("backbone", [MLP, CONV], ids=["mlp", "conv"])
def test_with_all_energy_protected_old_answers_stay(backbone):
    """Features and logits on every sample of the first task, while naive training moves them."""
    moved = []
    for strategy in (GPM(threshold=1.0), Strategy()):
        made = learner(strategy, backbone)
        first, second = stream(2, backbone, "domain-il")
        made.fit(first, 3)
        before = made.outputs(first.train.x)
        made.fit(second, 3)
        after = made.outputs(first.train.x)
        moved.append(max(float((a - b).abs().max()) for a, b in zip(vars_of(before), vars_of(after), strict=True)))

    assert moved[0] < 1e-4 < 0.05 < moved[1]


def vars_of(out) -> tuple:
    return out.features, out.logits


@pytest.mark.parametrize("mistake", ["a projection that is one per cent short", "the strongest direction dropped"])
def test_a_planted_mistake_is_seen(monkeypatch, mistake):
    """The law above would notice it."""
    if mistake.startswith("a projection"):
        right = products.add
        monkeypatch.setattr(products, "add", lambda w, b, part, columns: right(w, b, 0.99 * part, columns))
        assert felt_in_double_precision() > 1e-6
    else:
        monkeypatch.setattr(gpm, "grown", lambda memory, gram, share: grown(memory, gram, share)[:, 1:])
        made = learner(GPM(threshold=1.0))
        first, second = stream(2, MLP, "domain-il")
        made.fit(first, 3)
        before = made.outputs(first.train.x).logits
        made.fit(second, 3)
        assert (made.outputs(first.train.x).logits - before).abs().max() > 1e-2


def test_a_task_does_not_touch_the_columns_of_another_ones_classes():
    """Up to rounding, since its loss masks them; its own new columns learn freely."""
    made = learner(GPM(threshold=0.9), kind="task-il")
    first, second = stream(2, MLP, "task-il")
    made.fit(first, 3)
    before = matrix(made.model.head).detach().clone()
    made.fit(second, 3)
    after = matrix(made.model.head).detach()

    torch.testing.assert_close(after[:2], before, atol=1e-6, rtol=0)
    assert (after[2:] - before[0]).abs().max() > 0.05
    assert made.score(second) > 0.7


def test_normalisation_is_frozen_from_the_second_task_on():
    """Its parameters are no layer's matrix; a step on them would be felt everywhere. A task's own scales are free."""
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    model.add_module("scaling", nn.LayerNorm(2))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p += 1
    freeze(others(model), before)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}

    assert moved == {"0.weight", "0.bias", "scaling.weight", "scaling.bias"}


def test_grams_and_gradients_are_those_of_one_pass_and_leave_nothing_behind():
    made = learner(Strategy(), kind="task-il")
    (first,) = stream(1, MLP, "task-il")
    made.fit(first)
    batch = samples(0, (12,), "task-il")
    batch = Batch.cat([batch, batch])  # more than one chunk
    model, ones = made.model, torch.ones(len(batch), 1)
    inputs = torch.cat([batch.x, ones], 1).double()
    for p in model.parameters():
        p.grad = None
    found = gradients(model, batch)
    assert all(p.grad is None for p in model.parameters())
    torch.testing.assert_close(grams(model, batch)["backbone.layers.0"], inputs.T @ inputs, rtol=1e-6, atol=1e-6)
    assert not any(layer._forward_pre_hooks for layer in layers(model).values())

    nn.functional.cross_entropy(model(batch.x).logits[:, :2], batch.y).backward()
    for name, layer in layers(model).items():
        expected = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
        torch.testing.assert_close(found[name], expected, atol=1e-6, rtol=1e-4)


def test_the_share_to_protect_grows_and_may_differ_by_layer():
    energy = Energy([0.95, 0.99], 0.01)

    assert [energy.at(place, 0) for place in range(3)] == [0.95, 0.99, 0.99]
    assert [energy.at(0, finished) for finished in (1, 9)] == [0.96, 1.0]
    assert Energy(0, 0.5).at(0, 1) == 0


@pytest.mark.parametrize("wrong", [{"threshold": 1.1}, {"threshold": []}, {"growth": -1}, {"samples": 0}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GPM(**wrong)


@pytest.mark.slow
def test_every_law_holds():
    assert [v for v in checks.check(GPM) if v.outcome != "holds"] == []


def forgetting(strategy: Strategy, tasks: int = 3, seed: int = 0) -> float:
    """Mean loss of accuracy on a task from when it was learned to the end (a positive number is forgetting)."""
    made = learner(strategy, {"name": "mlp", "inputs": [64], "hidden": [64, 64]}, optim=Optim(lr=0.05))
    experiences, learned = permuted_digits(tasks, seed), []
    for e in experiences:
        made.fit(e, 5)
        learned.append(made.score(e))
    return sum(a - made.score(e) for a, e in zip(learned, experiences, strict=True)) / (tasks - 1)


@pytest.mark.slow
def test_it_forgets_far_less_than_naive_training():
    naive, kept = forgetting(Strategy()), forgetting(GPM([0.95, 0.99, 0.99]))

    assert naive > 0.2
    assert kept < naive / 2
