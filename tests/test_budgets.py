"""A step costs at most its budget: less is rehearsed, new samples are learned, and what was left out is counted."""

from __future__ import annotations

import json
import math

import pytest
import streams
import torch

from lifelong import compose
from lifelong.checks import digest
from lifelong.errors import ConfigError, UnknownName
from lifelong.following.settings import Follow
from lifelong.learning import Chain
from lifelong.learning.budgets import Budget, cost
from lifelong.learning.checkpoint import Checkpoints
from lifelong.types import Batch
from strategies.der import DarkReplay
from strategies.derpp import DarkReplayPlus
from strategies.er_ace import AsymmetricReplay
from strategies.mir import InterferedReplay
from strategies.powerlaw import PowerLawRehearsal
from strategies.replay import Replay


def batch(size: int = 8, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(size, streams.WIDTH, generator=random)
    return Batch.of(x, torch.randint(3, (size,), generator=random))


def steps(made, count=4):
    """Samples, new and old, of each step."""
    made.labels.register([0, 1, 2])
    found = []
    for seed in range(count):
        before = made.counters["rehearsed"]
        made.step(batch(seed=seed))
        found.append(8 + made.counters["rehearsed"] - before)
    return found


def by_hand(made) -> int:
    """Operations for one sample: a product forward, one for the weights, one for the inputs but of the first layer."""
    sizes = [p.shape for p in made.model.parameters() if p.dim() == 2]
    first = math.prod(sizes[0])
    return sum(6 * math.prod(size) for size in sizes) - 2 * first


def test_operations_are_those_counted_by_hand_and_counting_changes_nothing():
    made = streams.learner(Replay(30))
    steps(made)
    before = digest(made.state())
    assert cost(made.model, batch(), 1)[0] == by_hand(made)
    assert cost(made.model, batch(), 5)[0] == 5 * by_hand(made)
    assert cost(made.model, batch(), 5)[1] > cost(made.model, batch(), 1)[1] > 0
    assert digest(made.state()) == before
    assert made.model.training


@pytest.mark.parametrize("room", [8, 11, 16, 40])
def test_a_step_works_on_as_many_samples_as_its_operations_allow(room):
    """Of 24 that ratio 2 wants: new samples first, then old ones up to the budget."""
    probe = streams.learner(Replay(30, ratio=2.0))
    steps(probe)
    made = streams.learner(Replay(30, ratio=2.0), budget=Budget(flops=room * by_hand(probe) + 1))
    found = steps(made)
    assert found[1:] == [min(room, 24)] * 3
    assert made.counters["left_out"] == 3 * max(0, 24 - room)
    assert made.counters["over_budget"] == 0


def test_new_samples_alone_are_learned_also_beyond_the_budget_and_counted():
    made = streams.learner(Replay(30), budget=Budget(flops=1.0))
    assert steps(made) == [8, 8, 8, 8]
    assert made.counters["over_budget"] == 4
    assert made.counters["left_out"] == 24


def test_bytes_limit_as_well_and_the_tighter_one_counts():
    probe = streams.learner(Replay(30))
    steps(probe)
    one, three = (cost(probe.model, batch(), n)[1] for n in (1, 3))
    each = (three - one) // 2
    room = (one - each) + 12 * each
    made = streams.learner(Replay(30), budget=Budget(bytes=room, flops=1e12))
    assert steps(made)[1:] == [12, 12, 12]


def test_seconds_limit_once_they_are_known_and_are_declared():
    made = streams.learner(Replay(30), budget=Budget(seconds=1e-9))
    assert steps(made)[1:] == [8, 8, 8]
    assert not Budget(seconds=1.0).deterministic
    assert Budget(flops=1.0, bytes=1).deterministic


STRATEGIES = {
    "der": lambda: DarkReplay(30),
    "derpp": lambda: DarkReplayPlus(30),
    "er_ace": lambda: AsymmetricReplay(30),
    "mir": lambda: InterferedReplay(30),
    "powerlaw": lambda: PowerLawRehearsal(30, mode="stochastic"),
    "a chain": lambda: Chain(Replay(30), DarkReplay(30)),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_that_rehearses_keeps_to_it_and_none_is_no_budget(name):
    free, wide = streams.learner(STRATEGIES[name]()), streams.learner(STRATEGIES[name](), budget=Budget(flops=1e15))
    wanted = steps(free)
    assert steps(wide) == wanted
    assert digest(free.model.state_dict()) == digest(wide.model.state_dict())
    tight = streams.learner(STRATEGIES[name](), budget=Budget(flops=10 * by_hand(free) + 1))
    found = steps(tight)
    assert max(found) <= 10 < max(wanted)
    assert tight.counters["left_out"] > 0


@pytest.mark.slow
def test_a_run_that_operations_cut_is_resumed_bit_for_bit(tmp_path):
    """The model grows on the way, so its cost does; crashed and resumed, the same samples are left out."""
    stream, follow, probe = streams.log(tmp_path / "log", streams.messy(200)), Follow(), streams.learner(Replay(40))
    steps(probe)
    budget = Budget(flops=12 * by_hand(probe))

    def started(folder, notify=None):
        return streams.follower(
            stream, tmp_path / folder, lambda: streams.learner(Replay(40), follow, budget=budget),
            notify=notify,
        )  # fmt: skip

    def crash(kind, facts):
        if kind == "step" and facts["steps"] in (9, 17):
            raise KeyboardInterrupt

    whole = started("whole")
    whole.run()
    for _ in range(2):
        try:
            started("parts", crash).run()
        except KeyboardInterrupt:
            continue
    last = started("parts")
    last.run()
    one, two = (Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "parts"))
    assert digest(one) == digest(two)
    assert 0 < whole.facts()["left_out"] == last.facts()["left_out"]


def test_what_is_no_budget_is_refused():
    with pytest.raises(ConfigError, match="flops must be at least 0"):
        Budget(flops=-1.0)
    with pytest.raises(UnknownName, match="did you mean 'seconds'"):
        compose.budget(["second=3"])
    assert json.dumps(compose.besides(compose.optim("sgd", 0.1, 0, 0, []).rate, Budget())) == "{}"
    noted = compose.besides(compose.optim("sgd", 0.1, 0, 0, ["policy=power"]).rate, Budget(seconds=1.0))
    assert (noted["rate"]["policy"], noted["budget"]["deterministic"]) == ("power", False)
