"""Two ways to scaled answers, and two ways to keep a step out of a memory: each against the other, or a formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lifelong import checks
from lifelong.learning import Learner, Optim, Strategy, learner
from lifelong.learning.optimizers import straight
from lifelong.models import build
from lifelong.models.layers import matrix
from lifelong.models.products import follow, inside, take_out
from lifelong.models.rails import Along, Felt, Rail, answer_now, cheaper, scaled_now
from lifelong.models.records import Record
from lifelong.types import Batch, Experience
from strategies.cuber import CUBER
from strategies.gpm import GPM
from strategies.trgp import TRGP

MLP = {"name": "mlp", "inputs": [12], "hidden": [10, 8]}
CONV = {"name": "conv", "inputs": [1, 4, 4], "channels": [3], "features": 8}
KW = {"threshold": 0.9, "samples": 60, "looks": 2}
STRATEGIES = {
    "gpm": lambda: GPM(0.9, samples=60),
    "trgp": lambda: TRGP(0.3, **KW),
    "cuber": lambda: CUBER(0.3, 0.0, check_every=3, **KW),
    "cuber, nothing held": lambda: CUBER(0.0, -1.0, check_every=10**6, **KW),
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rail(layer: nn.Linear, offsets: Tensor, outputs: int, free: list[int] | None) -> Rail:
    wide = layer.in_features + (layer.bias is not None)
    memory = torch.linalg.qr(drawn(wide, 5, seed=1)).Q
    along = Along.of(memory, [torch.tensor([0, 1, 4]), torch.tensor([1, 2])], [0.5, 0.25], offsets.detach())
    mask = None if free is None else torch.isin(torch.arange(5), torch.tensor(free))
    return Rail(memory, follow(layer, memory, layer.weight.new_zeros(0, 0)), along, outputs, mask)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("free", [None, [1, 4]])
@pytest.mark.parametrize("outputs", [4, 3])
@pytest.mark.parametrize("way", ["answers", "weights"])
def test_both_ways_give_the_answers_and_gradients_of_the_scaled_weights(bias, free, outputs, way):
    """What a gradient of W lacks is noted, and its product with the memory."""
    layer, offsets = nn.Linear(6, 4, bias=bias).double(), drawn(2, 3, 3, seed=2).requires_grad_()
    x, slope, track = (
        drawn(2, 5, 6, seed=3).requires_grad_(),
        drawn(2, 5, 4, seed=4),
        rail(layer, offsets, outputs, free),
    )
    weights, felt = list(layer.parameters()), Felt()
    expected = nn.functional.linear(x, *scaled_now(layer, offsets, track))
    theirs = torch.autograd.grad((expected * slope).sum(), [x, offsets, *weights])
    if way == "answers":
        found = answer_now(layer(x), x, offsets, track, felt)
    else:
        found = nn.functional.linear(x, *scaled_now(layer, offsets, track, felt))
    ours = torch.autograd.grad((found * slope).sum(), [x, offsets, *weights])

    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours[:2], theirs[:2])
    raw, whole = (torch.cat([g.reshape(4, -1) for g in part[2:]], 1) for part in (ours, theirs))
    lacking = torch.zeros(4, 5).double() if felt.through is None else felt.through
    torch.testing.assert_close(raw + lacking @ track.memory.T, whole)
    torch.testing.assert_close(felt.gradient, inside(ours[2], ours[3] if bias else None, track.memory))
    assert (felt.through is None) == (free is None and outputs == 4)


def test_few_samples_are_scaled_by_their_answers_and_many_by_the_weights():
    layer = nn.Linear(784, 100)

    assert cheaper(layer, 32)
    assert not cheaper(layer, 256)
    assert not cheaper(nn.Conv2d(1, 100, 3), 1)


def stream(tasks: int, shape: list[int]) -> list[Experience]:
    size, found = torch.Size(shape).numel(), []
    shared = torch.randn(4, size, generator=torch.Generator().manual_seed(99))
    for task in range(tasks):
        random = torch.Generator().manual_seed(task)
        y = torch.arange(60) % 2
        latent = torch.randn(60, 4, generator=random) + 1.5 * y[:, None]
        x = latent @ (shared + 0.3 * torch.randn(4, size, generator=random)) / 4
        data = Batch.of(x.double().reshape(60, *shape), y, torch.arange(60) + 60 * task)
        found.append(Experience(task, f"t{task}", [0, 1], data, data, task=task))
    return found


def steps(strategy: Strategy, backbone: dict, size: int) -> list[Tensor]:
    """All shared weights after each step."""
    model = build({"backbone": backbone, "head": {"name": "linear"}}, seed=1).double()
    made = Learner(model, strategy, optim=Optim(lr=0.05), batch_size=size, setting=checks.Toy("domain-il"))
    found: list[Tensor] = []

    def note() -> None:
        found.append(torch.cat([t.flatten().clone() for t in model.state_dict().values()]))

    for e in stream(3, backbone["inputs"]):
        made.fit(e, 3, on_step=note)
    return found


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("backbone", "size"), [(MLP, 3), (MLP, 30), (CONV, 20)], ids=["few", "many", "conv"])
@pytest.mark.slow
def test_projected_gradients_lead_where_putting_the_weights_back_does(monkeypatch, name, backbone, size):
    """Step by step, up to rounding: plain SGD takes the first way, what a learner knows nothing of the second."""
    fast = steps(STRATEGIES[name](), backbone, size)
    monkeypatch.setattr(learner, "straight", lambda _: None)
    slow = steps(STRATEGIES[name](), backbone, size)

    assert len(fast) == len(slow)
    torch.testing.assert_close(torch.stack(fast), torch.stack(slow), rtol=1e-9, atol=1e-9)


def test_only_plain_sgd_takes_steps_that_are_multiples_of_the_gradient():
    w = [nn.Parameter(torch.ones(2))]

    assert straight(Optim(lr=0.3).make(w)) == 0.3
    for other in (Optim(momentum=0.9), Optim(weight_decay=0.1), Optim(name="adam"), Optim(name="adamw")):
        assert straight(other.make(w)) is None
    assert straight(torch.optim.SGD([{"params": w}, {"params": [nn.Parameter(torch.ones(1))], "lr": 1.0}])) is None


def test_one_layer_of_an_answer_is_one_product():
    """W + sum_j u_j (W B_j) D_j B_j', written out."""
    layer, offsets = nn.Linear(6, 4).double(), drawn(2, 3, 3, seed=2)
    track, x = rail(layer, offsets, 4, None), drawn(5, 6, seed=3)
    dense = matrix(layer)
    for ids, block, unit in (([0, 1, 4], offsets[0], 0.5), ([1, 2], offsets[1], 0.25)):
        basis, k = track.memory[:, ids], len(ids)
        dense = dense + unit * matrix(layer) @ basis @ block[:k, :k] @ basis.T

    found = answer_now(layer(x), x, offsets, track, Felt())
    torch.testing.assert_close(found, torch.cat([x, torch.ones(5, 1).double()], 1) @ dense.T)


@pytest.mark.parametrize("outputs", [4, 3])
def test_where_every_column_is_free_nothing_is_masked_and_nothing_else_changes(outputs):
    """The short cut against the mask of ones, in what comes through and in the gradient; bit for bit."""
    layer, offsets = nn.Linear(6, 4).double(), drawn(2, 3, 3, seed=2)
    masked = rail(layer, offsets, outputs, [0, 1, 2, 3, 4])
    loose = replace(masked, loose=True)
    some, scales, felt, more, gradient = (drawn(*shape, seed=3) for shape in ((4, 4), (4, 4), (4, 5), (4, 5), (4, 6)))

    assert torch.equal(masked.through(some, scales), loose.through(some, scales))
    found = []
    for short in (False, True):
        layer.weight.grad, layer.bias.grad = gradient.clone(), gradient[:, 0].clone()
        moved = take_out(layer, masked.memory, outputs, masked.free, felt_OK=felt, more_OK=more.clone(), loose=short)
        found.append([moved, layer.weight.grad, layer.bias.grad])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_column_of_two_free_spans_is_pulled_to_both_anchors():
    layer, memory = nn.Linear(6, 4).double(), torch.linalg.qr(drawn(7, 5, seed=1)).Q
    record = Record(memory, held=follow(layer, memory, layer.weight.new_zeros(0, 0)), outputs=3)
    layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    part = drawn(3, 4, seed=2)
    record.correct(layer, None, (torch.tensor([0, 2, 2, 4]), part))

    pulls = torch.zeros(4, 5, dtype=torch.float64)
    pulls[:3, 0], pulls[:3, 2], pulls[:3, 4] = part[:, 0], part[:, 1] + part[:, 2], part[:, 3]
    torch.testing.assert_close(torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1), pulls @ memory.T)
