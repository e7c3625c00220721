"""What each method promises, against its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch

from lifelong import files, plugins
from lifelong.checks import digest
from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Chain, Learner, Optim, Strategy
from lifelong.learning.checkpoint import pack, unpack
from lifelong.learning.optimizers import trained
from lifelong.models import build
from lifelong.types import Batch, Experience

SIZES = (13, 20, 7)


def find(name: str) -> Any:
    return plugins.find("strategy", name)


def samples(index: int, count: int) -> Batch:
    random = torch.Generator().manual_seed(index)
    y = torch.arange(count) % 2 + 2 * index
    return Batch.of(torch.randn(count, 4, generator=random) + y[:, None], y, torch.arange(count) + 100 * index, index)


def stream(sizes: tuple[int, ...] = SIZES) -> list[Experience]:
    return [
        Experience(i, f"e{i}", [2 * i, 2 * i + 1], samples(i, n), samples(i, n), task=i) for i, n in enumerate(sizes)
    ]


def learner(strategy: Strategy, *, size: int = 4, seed: int = 0) -> Learner:
    spec = {"backbone": {"name": "mlp", "inputs": [4], "hidden": [6], "features": 7}, "head": {"name": "linear"}}
    return Learner(build(spec, seed=seed), strategy, optim=Optim(lr=0.05), batch_size=size, seed=seed)


def watched(strategy: Strategy) -> list[tuple[list[int], list[int], int]]:
    """Note for each step the new ids, the rehearsed ids, and how many samples the memory says it holds."""
    steps: list[tuple[list[int], list[int], int]] = []
    augment = strategy.augment

    def noting(batch: Batch) -> Batch:
        mixed = augment(batch)
        held = int(strategy.summary().get("memory", 0))
        assert torch.equal(mixed.ids[: len(batch)], batch.ids)
        steps.append((batch.ids.tolist(), mixed.ids[len(batch) :].tolist(), held))
        return mixed

    strategy.augment = noting  # type: ignore[method-assign]
    return steps


@pytest.mark.parametrize("size", [1, 4, 50])
@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("name", ["joint", "cumulative"])
@pytest.mark.slow
def test_upper_lines_pass_over_every_sample_exactly_once_per_epoch(name: str, size: int, epochs: int) -> None:
    """Whatever the sizes of experiences and batches."""
    joint = find(name)()
    steps, made = watched(joint), learner(joint, size=size)
    seen: list[int] = []
    for experience in stream():
        steps.clear()
        made.fit(experience, epochs)
        seen += experience.train.ids.tolist()
        per = len(steps) // epochs
        for epoch in range(epochs):
            passed = [i for ids, _, _ in steps[epoch * per : (epoch + 1) * per] for i in ids]
            assert sorted(passed) == sorted(seen)

    assert joint.summary() == {"memory": float(sum(SIZES))}


def test_joint_keeps_samples_as_they_came() -> None:
    joint = find("joint")()
    made = learner(joint)
    made.fit(stream()[0])
    kept = joint.samples.seen
    expected = stream()[0].train.take(kept.ids)

    assert torch.equal(kept.x, expected.x)
    assert torch.equal(kept.y, made.labels.encode(expected.y))


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("powerlaw", {"capacity": 0}, ConfigError),
        ("powerlaw", {"ratio": -1}, ConfigError),
        ("powerlaw", {"alpha": -1}, ConfigError),
        ("powerlaw", {"kernel": "powr"}, UnknownName),
        ("replay", {"capacity": 0}, ConfigError),
        ("replay", {"ratio": -1}, ConfigError),
        ("replay", {"policy": "reservior"}, UnknownName),
        ("simplex", {"classes": 1}, ConfigError),
        ("simplex", {"classes": 8, "distill": -1}, ConfigError),
    ],
)
def test_settings_out_of_range_are_refused(name: str, arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"got|at least|did you mean"):
        find(name)(**arguments)


@pytest.mark.parametrize("policy", ["reservoir", "balanced"])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_replay_rehearses_what_it_holds_and_holds_no_more_than_its_capacity(policy: str, ratio: float) -> None:
    """Never a sample of the step's own batch before it was learned once; a second pass adds nothing."""
    replay = find("replay")(capacity=9, ratio=ratio, policy=policy)
    steps, made = watched(replay), learner(replay)
    seen: set[int] = set()
    for experience in stream():
        steps.clear()
        made.fit(experience, 2)
        per = len(steps) // 2
        for new, old, held in steps:
            assert held <= 9
            assert set(old) <= seen
            assert len(old) == (round(ratio * len(new)) if seen else 0)
            seen |= set(new)
        assert len({i for _, old, _ in steps[per:] for i in old}) <= 9
        for _, old, held in steps:
            assert len(set(old)) == min(len(old), held)

    assert len(replay.memory) == 9
    whole = Batch.cat([e.train for e in stream()])
    held = replay.memory.store.all
    for i, x in zip(held.ids.tolist(), held.x, strict=True):
        assert torch.equal(x, whole.x[whole.ids == i][0])


@pytest.mark.parametrize("size", [1, 5, 50])
@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("normalise", [True, False])
def test_nearest_mean_equals_the_class_means_of_all_samples_at_once(size: int, epochs: int, normalise: bool) -> None:
    """Whatever the order, the batches and how often it is told to pass over them, to 1e-12 of float64 features."""
    made = learner(find("nmc")(normalise=normalise), size=size, seed=size)
    made.model.double()
    every = Batch.cat([e.train for e in stream()])
    for e in stream():
        data = Batch(e.train.x.double(), e.train.y, e.train.ids, e.train.task)
        made.fit(Experience(e.index, e.name, e.classes, data), epochs)
    z = made.model.backbone(every.x.double())
    z = z / z.norm(dim=1, keepdim=True) if normalise else z
    means = torch.stack([z[every.y == c].mean(0) for c in range(6)])

    head = made.model.head
    assert head.counts.tolist() == every.y.bincount().tolist()
    torch.testing.assert_close(head.sums / head.counts[:, None], means, rtol=0, atol=1e-12)
    nearest = torch.cdist(z, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert made.predict(every.x.double()) == nearest.tolist()


def test_nearest_mean_trains_nothing() -> None:
    made = learner(find("nmc")())
    before = {n: p.detach().clone() for n, p in made.model.backbone.named_parameters()}
    made.fit(stream()[0], 3)

    assert not trained(made.model)
    assert all(torch.equal(before[n], p) for n, p in made.model.backbone.named_parameters())


def test_the_simplex_classifier_has_nothing_to_train() -> None:
    made = learner(find("simplex")(classes=8))

    assert list(made.model.head.parameters()) == list(made.model.head.buffers()) == []
    assert all(name.startswith("backbone.") for name in trained(made.model))
    assert made.model.spec()["head"]["name"] == "simplex"


def test_simplex_distils_from_a_frozen_copy_of_the_previous_version() -> None:
    """1 - cos to the features of the model as it was when the last experience ended."""
    strategy = find("simplex")(classes=8, distill=3.0)
    made = learner(strategy)
    one, two, _ = stream()
    batch = one.train
    assert strategy.penalty(made.model, batch, made.model(batch.x)) is None

    made.fit(one)
    features = made.embed(batch.x)
    made.fit(Experience(1, "two", two.classes, two.train[:4]), 2)
    strategy.restore(unpack(*pack({"previous": strategy.state()["previous"]})))
    out = made.model(batch.x)
    loss = strategy.penalty(made.model, batch, out)
    assert loss is not None
    assert not any(p.requires_grad for p in strategy.previous.parameters())

    again = find("simplex")(classes=8, distill=3.0)
    twin = learner(again)
    twin.fit(one)
    told = again.penalty(twin.model, batch, out)
    cosine = torch.nn.functional.cosine_similarity(out.features, features, dim=1)
    torch.testing.assert_close(told, 3.0 * (1 - cosine).mean())
    assert find("simplex")(classes=8, distill=0.0).state() == {"previous": {}}


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "naive": find("naive"),
    "joint": find("joint"),
    "cumulative": find("cumulative"),
    "replay": lambda: find("replay")(capacity=6),
    "balanced": lambda: find("replay")(capacity=6, policy="balanced"),
    "powerlaw": lambda: find("powerlaw")(capacity=8),
    "nmc": find("nmc"),
    "simplex": lambda: find("simplex")(classes=8),
    "chain": lambda: Chain(find("simplex")(classes=8), find("joint")()),
}


class Stop(Exception):
    """In the middle of an experience."""


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("when", ["before", "in the middle", "after"])
def test_every_state_survives_safetensors_and_json(name: str, when: str) -> None:
    """And makes a new strategy equal to the old one."""
    made, other = learner(STRATEGIES[name]()), learner(STRATEGIES[name](), seed=5)

    def stop() -> None:
        if when == "in the middle" and made.position["experience"] == 1 and made.counters["steps"] == 6:
            raise Stop

    try:
        for experience in stream() if when != "before" else []:
            made.fit(experience, 1, on_step=stop)
    except Stop:
        pass
    state = made.strategy.state()
    tensors, plain = pack(state)
    read = safetensors.torch.load(safetensors.torch.save(tensors))
    other.strategy.restore(unpack(read, files.parse_json(files.canonical_json(plain))))

    assert digest(other.strategy.state()) == digest(state)
    assert other.strategy.summary() == made.strategy.summary()
