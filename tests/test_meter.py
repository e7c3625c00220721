"""Counted operations are the ones that pencil and paper give, and counting changes nothing."""

import pytest
import torch

from lifelong.bench.meter import EXTRA, Meter, Operations, distance_flops, eigh_flops, svd_flops
from lifelong.compose import strategy
from lifelong.errors import DataError
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.trial import Toy, digest, learner
from lifelong.types import Batch, Experience

MLP = {"backbone": {"name": "mlp", "inputs": [20], "hidden": [16], "features": 8}, "head": {"name": "linear"}}
HEAD = {"backbone": {"name": "identity", "inputs": [20]}, "head": {"name": "linear"}}
CONV = {
    "backbone": {"name": "conv", "inputs": [1, 8, 8], "channels": [4], "features": 6},
    "head": {"name": "linear"},
}


def experience(shape, size=70, index=0):
    x = torch.randn(size, *shape, generator=torch.Generator().manual_seed(index))
    y = torch.arange(size) % 2
    return Experience(index, f"e{index}", [0, 1], Batch.of(x, y, torch.arange(size)))


def test_an_mlp_costs_what_its_layers_say():
    """Forward 2 n i o for each layer, backward the same for weights, and again for inputs but of the first."""
    made = Learner(build(MLP, seed=0), optim=Optim(lr=0.01), batch_size=32)
    meter = Meter(made)
    meter.fit(experience([20]), 3)
    layers = [(20, 16), (16, 8), (8, 2)]
    forward = sum(2 * i * o for i, o in layers)
    backward = sum(2 * i * o for i, o in layers) + sum(2 * i * o for i, o in layers[1:])
    assert meter.total == 3 * 70 * (forward + backward)
    assert meter.around == 0


def test_a_convolution_costs_what_its_layers_say():
    made = Learner(build(CONV, seed=0), optim=Optim(lr=0.01), batch_size=35)
    parts = [p for p in made.model.backbone.modules() if isinstance(p, torch.nn.Conv2d | torch.nn.Linear)]
    shapes = {}
    hooks = [p.register_forward_hook(lambda p, x, out: shapes.__setitem__(p, out.shape)) for p in parts]
    made.model(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    forward = []
    for part in parts:
        if isinstance(part, torch.nn.Conv2d):
            _, out, height, width = shapes[part]
            forward.append(2 * height * width * out * part.in_channels * part.kernel_size[0] * part.kernel_size[1])
        else:
            forward.append(2 * part.in_features * part.out_features)
    forward.append(2 * 6 * 2)  # the head, of two classes
    meter = Meter(made)
    meter.fit(experience([1, 8, 8]), 2)
    assert meter.total == 2 * 70 * (3 * sum(forward) - forward[0])  # the first layer's inputs need no gradient


def test_counting_changes_no_bit():
    plain, counted = learner(strategy("ewc")), learner(strategy("ewc"))
    meter = Meter(counted)
    for e in Toy().experiences(2):
        plain.fit(e, 2)
        meter.fit(e, 2)
    assert digest(plain.state()) == digest(counted.state())
    assert 0 < meter.around < meter.total  # the Fisher information


def test_rehearsal_is_counted_where_it_happens():
    """A memory doubles the samples of a step, and so its operations, but for the very first step."""
    totals = {}
    for name in ("naive", "replay"):
        made = Learner(build(MLP, seed=0), strategy(name), optim=Optim(lr=0.01), batch_size=35)
        meter = Meter(made)
        for index in range(3):
            meter.fit(experience([20], index=index), 2)
        totals[name] = meter.total, made.counters["rehearsed"], made.counters["samples"]
    cost, rehearsed, new = totals["replay"]
    assert cost / totals["naive"][0] == pytest.approx(1 + rehearsed / new, rel=0.02)


def test_few_steps_of_a_long_stream_are_counted_and_still_the_sum_is_exact(monkeypatch):
    """Three hundred experiences of one step: of the first few it is counted, then one in fifty."""
    monkeypatch.setattr("lifelong.bench.meter.EVERY", 50)
    entered = []
    enter = Meter._enter
    monkeypatch.setattr(Meter, "_enter", lambda self: (entered.append(self._steps), enter(self)))
    made = Learner(build(MLP, seed=0), optim=Optim(lr=0.01), batch_size=35)
    meter = Meter(made)
    for index in range(300):
        meter.fit(experience([20], size=20 + index % 7, index=index), 1)
    assert entered == [0, 1, 1, 2, 150, 200, 250]  # the second step of the first experience never came
    layers = [(20, 16), (16, 8), (8, 2)]
    each = sum(6 * i * o for i, o in layers) - 2 * 20 * 16
    assert meter.total == sum(20 + index % 7 for index in range(300)) * each


def test_a_failing_experience_leaves_no_counter_behind():
    made = Learner(build(MLP, seed=0), batch_size=32)
    meter = Meter(made)
    bad = experience([20])
    bad.train.x[3] = torch.nan
    with pytest.raises(DataError):
        meter.fit(bad, 1)
    before = meter.total
    torch.randn(8, 8) @ torch.randn(8, 8)
    assert meter.total == before


def test_a_product_that_is_added_in_place_costs_what_it_costs_elsewhere():
    a, b, c = torch.zeros(3, 4), torch.ones(3, 5), torch.ones(5, 4)
    with Operations() as count:
        a.addmm_(b, c)
    assert count.total == 2 * 3 * 5 * 4


@pytest.mark.parametrize(("name", "each"), [("slda", 2 * 20 * 20), ("ridge", 2 * 2 * 20 * 50 + 2 * 50 * 50)])
def test_closed_forms_cost_their_products(name, each):
    """SLDA: the outer product of a sample; ridge: its 50 features, to learn and to answer, and their outer product."""
    made = Learner(build(HEAD, seed=0), strategy(name, ["width=50"] if name == "ridge" else []), batch_size=35)
    meter = Meter(made)
    meter.fit(experience([20]), 1)
    assert meter.total == 70 * each


def test_decompositions_and_distances_are_counted():
    a = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    with Operations() as count:
        torch.linalg.svd(a, full_matrices=False)
        torch.linalg.eigh(a.T @ a)
        torch.cdist(a, a, compute_mode="donot_use_mm_for_euclid_dist")
    assert count.total == svd_flops(12, 5) + eigh_flops(5) + 2 * 5 * 12 * 5 + distance_flops(12, 12, 5)
    assert len(EXTRA) >= 8
