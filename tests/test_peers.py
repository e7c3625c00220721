"""Our methods against the functions of Avalanche that are right, and against what its defects leave of the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import data, plugins
from lifelong.learning import Learner, Optim
from lifelong.learning.fisher import fisher
from lifelong.models import Classifier, build
from lifelong.types import Batch, Experience, Output
from strategies.agem import turned
from strategies.er_ace import AsymmetricReplay
from strategies.gem import nearest
from strategies.icarl import ICaRL
from strategies.lwf import LwF

pytestmark = pytest.mark.slow  # importing avalanche takes seconds
SPEC = {
    "backbone": {"name": "mlp", "inputs": [784], "hidden": [12], "features": 8},
    "head": {"name": "linear", "classes": 4},
}


@pytest.fixture(scope="module")
def peer() -> Any:
    """Avalanche as the benchmarks use it."""
    pytest.importorskip("avalanche")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from studies import peer

    return peer


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def batches(count: int = 3, per: int = 40) -> list[Batch]:
    """The same four classes under another order of pixels in each batch, in a drawn order of samples."""
    found, random = data.load("fashion-mnist-small").train, torch.Generator().manual_seed(0)
    rows = (found.y < 4).nonzero().flatten()
    made = []
    for index in range(count):
        mine = rows[torch.randperm(len(rows), generator=random)[:per]]
        pixels = torch.randperm(784, generator=random)
        x = found.x[mine].flatten(1)[:, pixels]
        made.append(Batch.of(x, found.y[mine], torch.arange(per) + per * index))
    return made


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ours(name: str, steps: list[Batch], epochs: int = 2, **arguments: object) -> Classifier:
    """The model that our strategy ends with, samples in the order of the data."""
    made = Learner(
        build(SPEC, seed=1),
        plugins.find("strategy", name)(**arguments),
        optim=Optim(lr=0.1),
        batch_size=8,
        shuffle=False,
    )
    for index, batch in enumerate(steps):
        made.fit(Experience(index, f"e{index}", range(4), batch), epochs)
    return made.model


def theirs(peer: Any, name: str, steps: list[Batch], epochs: int = 2) -> Classifier:
    """The same in Avalanche."""
    model = build(SPEC, seed=1)
    budget = peer.Budget(epochs=epochs, batch=8, memory=20, lr=0.1)
    peer.learned(name, steps, model, budget, shuffle=False)
    return model


def close(a: Classifier, b: Classifier, within: float = 1e-4) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.allclose(x, y, rtol=within, atol=within) for x, y in pairs)


@pytest.mark.parametrize(
    ("name", "other", "arguments", "count"),
    [
        ("naive", "naive", {}, 3),
        ("joint", "joint", {}, 3),
        ("cumulative", "cumulative", {}, 3),
        ("lwf", "lwf", {}, 3),
        ("ewc", "ewc-mended", {"samples": 40}, 3),
        ("mas", "mas-mended", {"samples": 40}, 3),
        ("si", "si-mended", {}, 2),  # from the third on Avalanche's path has its own pull in it
    ],
)
def test_a_run_ends_at_avalanches_weights(peer, name: str, other: str, arguments: dict[str, float], count: int) -> None:
    """With the named defect taken out, where there is one; and the method does something to the weights."""
    steps = batches(count)
    made = ours(name, steps, **arguments, **({"pull": peer.PULLS[name]} if name in peer.PULLS else {}))

    assert close(made, theirs(peer, other, steps))
    assert name == "naive" or not close(made, ours("naive", steps))


def test_avalanches_si_does_nothing_on_a_cpu(peer) -> None:
    """The named defect: its old weights alias the live ones."""
    steps = batches()
    pairs = zip(theirs(peer, "si", steps).parameters(), theirs(peer, "naive", steps).parameters(), strict=True)

    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("name", "arguments"), [("ewc", {"samples": 40}), ("mas", {"pull": 0.1, "samples": 40})])
def test_other_defects_make_a_difference(peer, name: str, arguments: dict[str, float]) -> None:
    steps = batches()
    assert not close(ours(name, steps, **arguments), theirs(peer, name, steps))


def test_avalanches_fisher_is_that_of_single_samples_only_for_batches_of_one(peer) -> None:
    (batch,) = batches(1)
    model = build(SPEC, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dataset = peer.stream([batch], 4)[0].dataset
    plugin = peer.parts.EWCPlugin(1.0, mode="online", decay_factor=1.0)
    found = {
        size: plugin.compute_importances(
            peer.Logits(model), nn.CrossEntropyLoss(), optimizer, dataset, torch.device("cpu"), size
        )
        for size in (1, 8)
    }
    right = fisher(model, batch)
    for name, value in right.items():
        torch.testing.assert_close(found[1][f"model.{name}"].data, value, rtol=1e-4, atol=1e-7)
    sums = {size: float(sum(v.data.sum() for v in f.values())) for size, f in found.items()}
    assert sums[8] < 0.5 * sums[1]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_agem_turns_a_gradient_as_avalanche_does(peer, sign: float) -> None:
    """Also where nothing has to be turned."""
    model = nn.Linear(6, 3)
    g, reference = drawn(21), drawn(21, seed=1)
    reference *= sign * torch.sign(g @ reference)
    model.weight.grad, model.bias.grad = g[:18].view(3, 6).clone(), g[18:].clone()
    plugin = peer.parts.AGEMPlugin(1, 1)
    plugin.buffers, plugin.reference_gradients = [None], reference
    plugin.after_backward(SimpleNamespace(model=model, device="cpu"))
    found = torch.cat([p.grad.flatten() for p in model.parameters()])

    torch.testing.assert_close(turned(g, reference), found, rtol=1e-5, atol=1e-6)
    assert torch.equal(found, g) == (sign > 0)


@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_gem_turns_a_gradient_as_avalanche_does(peer, margin: float, seed: int) -> None:
    """Up to the 1e-3 that Avalanche adds to the diagonal."""
    g, past = 30 * drawn(40, seed=seed), 30 * drawn(4, 40, seed=seed + 10)
    plugin = peer.mended.Solved(1, margin)
    plugin.G = past
    if bool((past @ g >= 0).all()):
        pytest.skip("nothing to turn")

    torch.testing.assert_close(nearest(g, past, margin), plugin.solve_quadprog(g), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_lwf_distils_as_avalanche_does_times_the_squared_temperature(peer, temperature: float) -> None:
    model, batch = build(SPEC, seed=1), batches(1)[0]
    strategy = LwF(pull=0.5, temperature=temperature)
    strategy.end(model, Experience(0, "e", range(4), batch))
    with torch.no_grad():
        old = model(batch.x).logits
        for p in model.parameters():
            p.add_(drawn(*p.shape), alpha=0.1)
    out = model(batch.x)
    from avalanche.training import LearningWithoutForgetting

    other = LearningWithoutForgetting(0.5, temperature)._distillation_loss(out.logits, old, range(4))
    torch.testing.assert_close(strategy.penalty(model, batch, out), 0.5 * temperature**2 * other)


def test_er_ace_adds_what_avalanche_halves(peer) -> None:
    strategy = AsymmetricReplay()
    strategy.memory.add(Batch.of(torch.zeros(9, 1), torch.arange(9) % 3))
    mixed = strategy.augment(Batch.of(torch.ones(6, 1), 3 + torch.arange(6) % 2))
    logits = drawn(12, 5)
    from avalanche.training import ACECriterion

    other = ACECriterion()(logits[:6], mixed.y[:6], logits[6:], mixed.y[6:])
    torch.testing.assert_close(strategy.loss(nn.Identity(), mixed, Output(logits, logits)), 2 * other)


def test_icarl_sums_over_classes_what_avalanche_averages(peer) -> None:
    from avalanche.training.losses import ICaRLLossPlugin

    logits, old, y = drawn(7, 5), drawn(7, 3, seed=1), torch.arange(7) % 2 + 3
    other = ICaRLLossPlugin()
    other.old_classes, other.old_logits = [0, 1, 2], F.pad(old, (0, 2))
    strategy, batch = ICaRL(), Batch.of(drawn(7, 2), y)
    strategy._linear = lambda x, task: old  # type: ignore[method-assign]
    strategy.previous.__class__.__bool__, keep = (lambda self: True), strategy.previous.__class__.__bool__
    try:
        found = strategy.loss(nn.Identity(), batch, Output(logits, logits))
    finally:
        strategy.previous.__class__.__bool__ = keep

    torch.testing.assert_close(found, 5 * other(logits, y))


def test_slda_has_avalanches_means_and_its_scores_for_the_exact_covariance(peer) -> None:
    """Avalanche's covariance is a running one around means that still move; ours does not depend on the order."""
    (batch,) = batches(1, per=200)
    model = ours("slda", [batch], epochs=1)
    z = model(batch.x).features
    other = peer.slda(peer.Logits(build(SPEC, seed=1)), peer.Budget(epochs=1, batch=8, memory=1, lr=0.1))
    for one, y in zip(z, batch.y, strict=True):
        other.fit(one[None], y[None])
    means = torch.stack([z[batch.y == c].mean(0) for c in range(4)])
    within = z - means[batch.y]
    running, other.Sigma = other.Sigma, within.T @ within / len(z)

    torch.testing.assert_close(other.muK, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.predict(z), model.eval()(batch.x).logits, rtol=1e-3, atol=1e-3)
    assert float((running - other.Sigma).norm()) > 0.01 * float(other.Sigma.norm())


def test_a_claim_of_agreement_is_two_sided() -> None:
    from figures import OPERATIONS

    agrees = OPERATIONS["|x| <="]
    assert [agrees(x, 0.02) for x in (-0.03, -0.02, 0.0, 0.02, 0.03)] == [False, True, True, True, False]
