"""Gradients by hand hold the bits that autograd gives, wherever they are used, and are used nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lifelong.learning import Chain, Learner, Optim, Strategy, analytic
from lifelong.learning.analytic import Stack
from lifelong.learning.fisher import fisher, sensitivity
from lifelong.models import build
from lifelong.types import Batch, Experience
from strategies.der import DarkReplay
from strategies.ewc import EWC
from strategies.gem import GEM
from strategies.lwf import LwF
from strategies.mas import MAS
from strategies.replay import Replay
from strategies.si import SynapticIntelligence

DEEP = {"name": "mlp", "inputs": [3, 2], "hidden": [8, 7], "features": 5}
BACKBONES = {
    "features": DEEP,
    "relu last": DEEP | {"features": None},
    "one layer": DEEP | {"hidden": []},
    "head alone": {"name": "identity", "inputs": [3, 2]},
}


class Squeezed(Strategy):
    """Adds to the loss what looks at features and logits."""

    needs = Replay.needs

    def penalty(self, model, batch, out):
        return 0.1 * out.features.square().mean() + 0.01 * out.logits.square().mean()


class Tasked:
    """A task-incremental setting."""

    kind, provides = "task-il", frozenset({"boundaries", "epochs", "task_id"})


STRATEGIES = {
    "none": Strategy,
    "replay": lambda: Replay(30),
    "ewc": lambda: EWC(0.7),
    "ewc, pulls apart": lambda: EWC(0.7, online=False),
    "mas": lambda: MAS(0.3),
    "si": lambda: SynapticIntelligence(0.3),
    "lwf": LwF,
    "gem": lambda: GEM(12),
    "on outputs": Squeezed,
    "chain": lambda: Chain(Replay(30), EWC(0.7), Squeezed()),
}


def batch_of(index: int, size: int, dtype: torch.dtype = torch.float32, task: int = -1) -> Batch:
    random = torch.Generator().manual_seed(index)
    y = torch.randint(3, (size,), generator=random) + index
    return Batch.of(torch.randn(size, 3, 2, generator=random).to(dtype), y, torch.arange(size) + 100 * index, task)


def trained(make, *, hand: bool, backbone="features", dtype=torch.float32, optim=None, tasked=False) -> Learner:
    """Return a learner of three experiences whose head grows, by hand or by autograd."""
    model = build({"backbone": BACKBONES[backbone], "head": {"name": "linear"}}, seed=3).to(dtype)
    setting = Tasked() if tasked else None
    learner = Learner(model, make(), optim=optim or Optim(lr=0.1), batch_size=9, seed=1, setting=setting)
    for index in range(3):
        data = batch_of(index, 25, dtype, index if tasked else -1)
        experience = Experience(index, "part", sorted(set(data.y.tolist())), data, task=index if tasked else -1)
        learner.begin(experience)
        assert learner._stack is not None
        learner._stack = learner._stack if hand else None
        learner.fit(experience, 2)
    return learner


def same(one: Learner, other: Learner) -> bool:
    mine, theirs = one.state(), other.state()
    assert mine["model"].keys() == theirs["model"].keys()
    return all(torch.equal(mine["model"][name], t) for name, t in theirs["model"].items())


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_training_ends_with_the_bits_of_autograd(name):
    make = STRATEGIES[name]
    assert same(trained(make, hand=True), trained(make, hand=False))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_so_it_does_in_every_stack_and_type(backbone, dtype):
    runs = [trained(lambda: EWC(0.7), hand=hand, backbone=backbone, dtype=dtype) for hand in (True, False)]
    assert same(*runs)


@pytest.mark.parametrize("optim", [Optim(lr=0.1, momentum=0.9), Optim(name="adam", lr=0.01)])
def test_so_it_does_under_other_optimizers(optim):
    assert same(*(trained(STRATEGIES["ewc"], hand=hand, optim=optim) for hand in (True, False)))


def test_so_it_does_where_each_task_has_its_own_classes():
    assert same(*(trained(STRATEGIES["ewc"], hand=hand, tasked=True) for hand in (True, False)))


def test_a_slope_that_is_wrong_in_its_last_bits_is_seen(monkeypatch):
    right = analytic.relu_back
    monkeypatch.setattr(analytic, "relu_back", lambda slope, y, at: right(slope, y, at) * (1 + 1e-6))
    assert not same(trained(Strategy, hand=True), trained(Strategy, hand=False))


def test_a_product_as_large_as_it_is_used_holds_the_same_bits():
    """Long sums are cut by the library of products, in the same way only if its operands lie in the same way."""
    model = build({"backbone": {"name": "mlp", "inputs": [784], "hidden": [100]}, "head": {"name": "linear"}})
    model.grow(10)
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(256, 784, generator=random), torch.randint(10, (256,), generator=random)
    loss = F.cross_entropy(model(x).logits, y)
    expected = torch.autograd.grad(loss, list(model.parameters()))

    out, value, back = Stack.of(model).loss(Strategy(), Batch.of(x, y))
    back()

    assert torch.equal(value, loss)
    assert torch.equal(out.logits, model(x).logits)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))


@pytest.mark.parametrize("measure", [fisher, sensitivity])
@pytest.mark.parametrize("backbone", ["features", "relu last", "one layer"])
def test_importances_hold_the_bits_of_autograd(measure, backbone, monkeypatch):
    model = build({"backbone": BACKBONES[backbone], "head": {"name": "linear"}})
    model.grow(4)
    batch = batch_of(0, 50)
    found = measure(model, batch)
    monkeypatch.setattr(Stack, "of", lambda _: None)
    expected = measure(model, batch)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], g) for name, g in expected.items())


def test_it_is_left_alone_where_anything_else_trains_or_listens():
    plain = {"backbone": DEEP, "head": {"name": "linear", "classes": 3}}
    assert Stack.of(build(plain | {"head": {"name": "cosine", "classes": 3}})) is None
    conv = {"name": "conv", "inputs": [1, 8, 8], "channels": [2], "features": 5}
    assert Stack.of(build(plain | {"backbone": conv})) is None
    half = build(plain)
    half.backbone.layers[0].requires_grad_(False)
    assert Stack.of(half) is None
    still = build(plain | {"backbone": conv})
    still.backbone.requires_grad_(False)
    assert Stack.of(still) is not None

    model = build(plain)
    stack = Stack.of(model)
    assert not stack.watched
    for listen in (
        lambda: model.head.register_forward_hook(lambda *_: None),
        lambda: model.backbone.layers[0].register_full_backward_hook(lambda *_: None),
        lambda: model.head.weight.register_hook(lambda g: g),
        lambda: nn.modules.module.register_module_forward_hook(lambda *_: None),
    ):
        handle = listen()
        assert stack.watched
        handle.remove()
        assert not stack.watched
    with torch.autocast("cpu", torch.bfloat16):
        assert stack.watched
    model.head.weight.requires_grad_(False)
    assert stack.watched


def test_a_loss_of_its_own_or_a_penalty_that_looks_elsewhere_is_left_to_autograd():
    patched = EWC()
    patched.loss = lambda *_: None

    assert analytic.suits(EWC())
    assert analytic.suits(Chain(Replay(), LwF()))
    assert not analytic.suits(DarkReplay())
    assert not analytic.suits(Chain(Replay(), DarkReplay()))
    assert not analytic.suits(patched)
    assert not analytic.suits(type("Elsewhere", (Squeezed,), {"needs": Strategy.needs})())


def test_what_a_weight_penalty_says_of_itself_is_what_autograd_says_of_the_penalty():
    learner = trained(lambda: EWC(0.7), hand=True)
    weights = dict(learner.model.named_parameters())
    extra = learner.strategy.penalty(learner.model, batch_of(0, 2), None)
    expected = torch.autograd.grad(extra, list(weights.values()))

    value, slopes = learner.strategy.weight_penalty(weights)

    assert torch.equal(value, extra)
    assert slopes.keys() == weights.keys()
    assert all(torch.equal(slopes[name], g) for name, g in zip(weights, expected, strict=True))
    assert learner.strategy.weight_penalty({}) is None
