"""The discrete key-value bottleneck as a strategy: what it promises of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lifelong import checks
from lifelong.checks import digest
from lifelong.daemon import Plan, Trainer
from lifelong.errors import ConfigError, DataError, UnknownName
from lifelong.laws import bits, costs
from lifelong.learning import Learner, Optim, Strategy
from lifelong.learning.optimizers import trained
from lifelong.models import build
from lifelong.models.bottleneck import BottleneckHead
from lifelong.models.codebooks import flat
from lifelong.release.delta import apply, changed_rows
from lifelong.release.registry import Registry
from lifelong.streams.scenarios import class_incremental, online
from lifelong.types import Batch, Experience
from strategies.dkvb import DiscreteKeyValueBottleneck as Bottleneck

SMALL: dict[str, Any] = {"books": 6, "pairs": 32, "dim_key": 3, "init_samples": 20, "init_epochs": 3}


def samples(classes: Sequence[int], count: int, width: int = 4, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes).repeat(count)
    centres = 3 * torch.randn(20, width, generator=torch.Generator().manual_seed(99))
    return Batch.of(centres[y] + torch.randn(len(y), width, generator=random), y)


def learner(strategy: Strategy, *, width: int = 4, size: int = 8, seed: int = 0, lr: float = 0.05) -> Learner:
    spec = {"backbone": {"name": "identity", "inputs": [width]}, "head": {"name": "linear"}}
    return Learner(build(spec, seed=seed), strategy, optim=Optim(lr=lr), batch_size=size, seed=seed)


def head(made: Learner) -> BottleneckHead:
    assert isinstance(made.model.head, BottleneckHead)
    return made.model.head


def weights(made: Learner) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in made.model.state_dict().items()}


@pytest.mark.slow
def test_every_law_holds() -> None:
    verdicts = checks.check(Bottleneck)

    assert [v for v in verdicts if v.outcome == "broken"] == []
    assert [v.law for v in verdicts if v.outcome == "exempt"] == ["inert at zero"]


OTHER = [
    {"passes": 3},
    {"decoder": "linear", "passes": 2},
    {"top_k": 2, "even": False},
    {"start": "kmeans"},
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", OTHER)
def test_it_resumes_exactly_with_other_arguments(arguments: dict[str, Any]) -> None:
    """Also in the middle of collecting samples for the keys, and of what further passes need."""
    assert bits.exact_resume(lambda: Bottleneck(**SMALL, **arguments)) is None
    assert bits.independent_clone(lambda: Bottleneck(**SMALL, **arguments)) is None
    assert costs.bounded_memory(lambda **how: Bottleneck(**SMALL, **arguments, **how)) is None


# ---- what is touched


def test_learning_moves_no_pair_that_the_new_samples_did_not_find() -> None:
    """The whole of `fit` for a second experience: backbone, projections, keys and all other pairs keep their bits."""
    made = learner(Bottleneck(**SMALL, passes=2))
    made.fit(Experience(0, "old", [0, 1], samples([0, 1], 20)))
    made.labels.register([5])
    made._grow()  # so that the columns of before and after are the same
    before, new = weights(made), samples([5], 20, seed=2)
    made.model.train()
    reached = flat(head(made).found(new.x), 32).flatten().unique()
    free = torch.ones(6 * 32, dtype=torch.bool)
    free[reached] = False
    made.fit(Experience(1, "new", [5], new))
    after = weights(made)

    assert 0 < free.sum() < len(free)
    assert torch.equal(after["head.values"].flatten(0, 1)[free], before["head.values"].flatten(0, 1)[free])
    assert not torch.equal(after["head.values"], before["head.values"])
    assert all(torch.equal(after[n], before[n]) for n in after if n not in ("head.values", "head.touched"))


def test_nothing_trains_by_gradient_even_after_growing() -> None:
    for decoder in ("vote", "linear", "mlp"):
        made = learner(Bottleneck(**SMALL, decoder=decoder, reserve=2))
        made.fit(Experience(0, "one", [0, 1], samples([0, 1, 3], 20)))

        assert not trained(made.model)
        assert head(made).touched.sum(1).tolist() == [60] * 6


def test_optimizers_with_momentum_and_decay_have_nothing_to_move() -> None:
    """They would move values that nothing fetched; the values are not theirs."""

    def run(optim: Optim) -> str:
        spec = {"backbone": {"name": "identity", "inputs": [4]}, "head": {"name": "linear"}}
        made = Learner(build(spec), Bottleneck(**SMALL), optim=optim)
        made.fit(Experience(0, "one", [0, 1], samples([0, 1], 20)))
        return digest(made.state()["model"])

    assert run(Optim()) == run(Optim(name="adamw", lr=0.1, weight_decay=0.1)) == run(Optim(momentum=0.9))


# ---- when the keys are placed


def test_samples_wait_for_the_keys_and_are_learned_right_after() -> None:
    """Twenty samples in steps of eight: nothing is known after two, everything after three, and no label is used."""
    one, other = learner(strategy := Bottleneck(**SMALL)), learner(Bottleneck(**SMALL))
    batch = samples([0, 1], 12)
    one.partial_fit(batch.x[:16], batch.y[:16])

    assert strategy.summary() == {"waiting": 16.0, "memory": 0.0}
    assert not head(one).values.any()
    one.partial_fit(batch.x[16:], batch.y[16:])
    assert strategy.summary() == {"waiting": 0.0, "memory": 0.0}
    assert head(one).touched.sum(1).tolist() == [24] * 6
    other.partial_fit(batch.x, 1 - batch.y)
    assert torch.equal(head(one).codebooks.keys, head(other).codebooks.keys)


def test_a_small_experience_places_the_keys_at_its_end() -> None:
    made = learner(strategy := Bottleneck(**{**SMALL, "init_samples": 1000}))
    made.fit(one := Experience(0, "one", [0, 1], samples([0, 1], 12), samples([0, 1], 12)))

    assert (strategy.summary()["waiting"], head(made).touched.sum(1).tolist()) == (0, [24] * 6)
    assert made.score(one) > 0.9


def test_given_inputs_place_the_keys_before_the_stream() -> None:
    """And the stream does not move them."""
    x = samples([2, 3], 40).x
    made = learner(Bottleneck(**SMALL, init=x))
    keys, batch = head(made).codebooks.keys.clone(), samples([0, 1], 4)
    made.partial_fit(batch.x, batch.y)

    assert torch.equal(head(made).codebooks.keys, keys)
    assert head(made).touched.sum(1).tolist() == [8] * 6
    assert not torch.equal(head(learner(Bottleneck(**SMALL, seed=1, init=x))).codebooks.keys, keys)


def test_inputs_that_are_not_finite_place_no_keys() -> None:
    with pytest.raises(DataError, match="finite features"):
        learner(Bottleneck(**SMALL, init=torch.full((3, 4), torch.nan)))


def test_keys_may_start_at_centres_and_chunks_share_out_the_feature() -> None:
    made = learner(Bottleneck(**SMALL | {"books": 2, "dim_key": 2}, projection="chunk", start="kmeans"))
    made.fit(one := Experience(0, "one", [0, 1], samples([0, 1], 20), samples([0, 1], 20, seed=1)))

    assert "head.codebooks.projection" not in made.model.state_dict()
    assert made.score(one) > 0.9
    with pytest.raises(UnknownName, match="did you mean 'kmeans'"):
        Bottleneck(start="kmean")


# ---- tokens


def of_tokens(strategy: Strategy, tokens: int) -> Learner:
    spec = {"backbone": {"name": "identity", "inputs": [tokens, 4], "pool": True}, "head": {"name": "linear"}}
    return Learner(build(spec), strategy, batch_size=8)


@pytest.mark.parametrize("arguments", [{"passes": 3}, {"top_k": 2, "decoder": "mlp"}])
def test_one_token_is_a_pooled_feature_bit_for_bit(arguments: dict[str, Any]) -> None:
    """Keys that the stream places, further passes, all weights and answers."""
    data, fresh = samples([0, 1], 25), samples([0, 1], 25, seed=3)
    made = [of_tokens(Bottleneck(**SMALL, **arguments, tokens=t), 1) for t in (False, True)]
    for one in made:
        one.fit(Experience(0, "one", [0, 1], Batch.of(data.x[:, None], data.y)))
    pooled, tokens = map(weights, made)

    assert all(torch.equal(tokens[name], pooled[name]) for name in pooled)
    assert torch.equal(*(one.outputs(fresh.x[:, None]).logits for one in made))
    assert torch.equal(*(one.embed(fresh.x[:, None]) for one in made))


def test_what_positions_show_is_learned_where_their_mean_says_nothing() -> None:
    """Each class has a direction of its own at one position and its opposite at the other: all means are alike."""

    def mirrored(count: int, seed: int) -> Batch:
        random = torch.Generator().manual_seed(seed)
        y = torch.arange(count) % 3
        direction = torch.eye(4)[y]
        x = torch.stack([direction, -direction], 1)
        return Batch.of(x + 0.1 * torch.randn(x.shape, generator=random), y)

    right = {}
    for tokens in (False, True):
        made = of_tokens(Bottleneck(**SMALL, tokens=tokens), 2)
        made.fit(experience := Experience(0, "one", [0, 1, 2], mirrored(150, 0), mirrored(150, 1)))
        right[tokens] = made.score(experience)

    assert right[True] > 0.9
    assert right[False] < 0.6


def test_tokens_that_wait_for_the_keys_come_back_with_a_resume() -> None:
    data = samples([0, 1], 12, width=12).x.view(24, 3, 4), torch.arange(24) % 2
    whole, cut, resumed = (of_tokens(Bottleneck(**SMALL, tokens=True), 3) for _ in range(3))
    whole.partial_fit(*data)
    cut.partial_fit(data[0][:8], data[1][:8])
    resumed.restore(cut.state())
    resumed.partial_fit(data[0][8:], data[1][8:])

    assert digest(resumed.state()) == digest(whole.state())


def test_given_inputs_place_the_keys_by_their_tokens() -> None:
    x = samples([2, 3], 40, width=12).x.view(80, 3, 4)
    made = of_tokens(Bottleneck(**SMALL, tokens=True, init=x), 3)
    pooled = of_tokens(Bottleneck(**SMALL, init=x), 3)
    centres = head(made).codebooks.queries(x)

    assert torch.cdist(centres, head(made).codebooks.keys).min(2).values.mean() < 2
    assert not torch.equal(head(made).codebooks.keys, head(pooled).codebooks.keys)


def test_tokens_of_a_backbone_without_positions_are_refused() -> None:
    spec = {"backbone": {"name": "mlp", "inputs": [4]}, "head": {"name": "linear"}}
    with pytest.raises(ConfigError, match="lite, identity"):
        Learner(build(spec), Bottleneck(tokens=True))


# ---- what is published


@pytest.mark.parametrize("tokens", [0, 3])
def test_versions_of_a_run_are_rebuilt_and_answer_as_they_did(tokens: int, tmp_path: Path) -> None:
    """Through trainer, gate and registry; and the rows that changed lead from each version to the next."""
    width = 4 * max(tokens, 1)
    classes = list(range(4))
    shape = [tokens, 4] if tokens else [4]
    data, held = (samples(classes, n, width, seed=n) for n in (60, 20))
    scenario = class_incremental(tuple(Batch.of(b.x.view(-1, *shape), b.y) for b in (data, held)), 2)
    body = {"name": "identity", "inputs": shape, **({"pool": True} if tokens else {})}
    made = Learner(
        build({"backbone": body, "head": {"name": "linear"}}), Bottleneck(**SMALL, tokens=tokens > 0), setting=scenario
    )
    registry = Registry(tmp_path / "registry", create=True)
    plan = Plan(held_out=0.2, compatible=False)
    progress = Trainer(made, scenario, tmp_path / "run", registry=registry, plan=plan).run()
    first, second = (registry.load(version) for version in (1, 2))

    assert [v["version"] for v in progress.versions] == [1, 2]
    assert first.space == second.space
    delta = changed_rows(first.weights, second.weights)
    again = apply(first.weights, delta)
    assert all(torch.equal(again[name], tensor) for name, tensor in second.weights.items())
    rebuilt = second.build()
    for rows in (1, 7, 80):  # whatever stands beside a sample
        said = torch.cat([rebuilt(part).logits for part in held.x.view(-1, *shape).split(rows)])
        torch.testing.assert_close(said[:, :4], made.outputs(held.x.view(-1, *shape)).logits, rtol=1e-4, atol=1e-5)


def test_an_online_scenario_without_boundaries_is_enough() -> None:
    scenario = online((samples([0, 1, 2], 60), samples([0, 1, 2], 20, seed=8)), 5)
    made = Learner(
        build({"backbone": {"name": "identity", "inputs": [4]}, "head": {"name": "linear"}}),
        Bottleneck(**SMALL),
        setting=scenario,
    )
    for experience in scenario:
        made.fit(experience)

    assert sum(made.score(e) for e in scenario) / len(scenario) > 0.8


# ---- what further passes are


def test_a_further_pass_is_a_pass_over_all_samples_without_backbone_and_search() -> None:
    """Counts say how often each pair was met; the found pairs are those of a search."""
    once, thrice = (learner(Bottleneck(**SMALL, passes=n)) for n in (1, 3))
    data = samples([0, 1], 25)
    searches = [0, 0]
    for i, made in enumerate((once, thrice)):
        search = head(made).codebooks.nearest

        def counting(*arguments: Any, i: int = i, search: Callable[..., Tensor] = search) -> Tensor:
            searches[i] += 1
            return search(*arguments)

        head(made).codebooks.nearest = counting  # type: ignore[method-assign]
        made.fit(Experience(0, "one", [0, 1], data), epochs=5)

    assert searches[0] == searches[1]
    assert torch.equal(head(thrice).touched, 3 * head(once).touched)
    assert not torch.equal(head(thrice).values, head(once).values)
    assert thrice.strategy.summary()["memory"] == 0


def test_a_full_memory_repeats_a_sample_of_that_size() -> None:
    made = learner(Bottleneck(**SMALL, passes=3, capacity=10))
    made.fit(Experience(0, "one", [0, 1], samples([0, 1], 25)))

    assert head(made).touched.sum(1).tolist() == [50 + 2 * 10] * 6


# ---- what it learns


def toy(seed: int) -> tuple[list[Experience], Tensor]:
    """Eight Gaussian classes in the unit square, two per experience, in a random order; and inputs that cover it."""
    random = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(torch.tensor([0.15, 0.5, 0.85]), torch.tensor([0.15, 0.5, 0.85]))
    centres = grid[torch.randperm(9, generator=random)[:8]]
    stream = []
    for index in range(4):
        y = torch.tensor([2 * index, 2 * index + 1]).repeat(100)
        x = [centres[y] + 0.035 * torch.randn(200, 2, generator=random) for _ in range(2)]
        stream.append(Experience(index, f"{index}", [2 * index, 2 * index + 1], Batch.of(x[0], y), Batch.of(x[1], y)))
    return stream, torch.rand(2000, 2, generator=random)


def final(made: Learner, stream: list[Experience], epochs: int) -> float:
    for experience in stream:
        made.fit(experience, epochs)
    return sum(made.score(e) for e in stream) / len(stream)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_toy_is_solved_where_a_linear_probe_forgets(seed: int) -> None:
    """Keys are placed by inputs without labels; each experience is passed over once, the probe passes 20 times."""
    stream, inputs = toy(seed)
    ours = learner(Bottleneck(books=20, pairs=64, dim_key=2, init=inputs), width=2, seed=seed)
    probe = learner(Strategy(), width=2, seed=seed, lr=0.5)

    assert final(ours, stream, 1) > 0.95
    assert final(probe, stream, 20) < 0.4


@pytest.mark.slow
def test_what_is_learned_hardly_depends_on_the_order_of_classes() -> None:
    """Class by class, or all at once: the same pairs are met as often, and answers agree almost everywhere."""
    classes = list(range(10))
    parts = [samples([c], 60, width=8, seed=c) for c in classes]
    whole, fresh = Batch.cat(parts), samples(classes, 50, width=8, seed=77)
    one = learner(Bottleneck(init=whole.x), width=8)
    all_at_once = learner(Bottleneck(init=whole.x), width=8)
    naive = learner(Strategy(), width=8)
    for i, part in enumerate(parts):
        one.fit(Experience(i, f"{i}", [i], part))
        naive.fit(Experience(i, f"{i}", [i], part))
    all_at_once.fit(Experience(0, "all", classes, whole))
    right = [sum(map(int.__eq__, m.predict(fresh.x), fresh.y.tolist())) / 500 for m in (one, all_at_once, naive)]

    assert torch.equal(head(one).touched, head(all_at_once).touched)
    assert right[0] > right[1] - 0.02
    assert right[0] > right[2] + 0.3


def test_a_stream_without_boundaries_is_learned_one_sample_at_a_time() -> None:
    made, data, fresh = learner(Bottleneck(**SMALL), size=1), samples([0, 1, 2], 30), samples([0, 1, 2], 30, seed=5)
    for x, y in zip(data.x, data.y.tolist(), strict=True):
        made.partial_fit(x[None], [f"class-{y}"])
    right = sum(p == f"class-{y}" for p, y in zip(made.predict(fresh.x), fresh.y.tolist(), strict=True)) / 90

    assert right > 0.9


NOTHING = torch.zeros(0, 4)
AT_LEAST_1 = [(name, 0) for name in ("passes", "capacity", "init_samples", "init_epochs")]
WRONG = [("lr", 0.0), ("smoothing", 1.0), ("decay", 1.0), ("threshold", -0.1), ("init", [[0.0]]), ("init", NOTHING)]


@pytest.mark.parametrize(("name", "value"), AT_LEAST_1 + WRONG)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match="got"):
        Bottleneck(**{name: value})
