"""From text to strategies: what a person types, and what is said when it is wrong."""

import pytest

from lifelong import compose
from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Chain, Strategy
from strategies.replay import Replay
from strategies.simplex import Simplex


def test_one_name_is_that_strategy_with_its_arguments():
    made = compose.strategy("replay", ["capacity=7", "policy=balanced", "ratio=0.5"])

    assert isinstance(made, Replay)
    assert (made.memory.store.capacity, made.ratio) == (7, 0.5)


def test_names_joined_by_plus_are_chained_in_order():
    made = compose.strategy("replay+simplex", ["simplex.classes=16", "simplex.scale=null", "replay.capacity=9"])

    assert isinstance(made, Chain)
    replay, simplex = made.strategies
    assert isinstance(replay, Replay)
    assert isinstance(simplex, Simplex)
    assert (simplex.classes, simplex.scale, replay.memory.store.capacity) == (16, None, 9)


def test_a_seed_is_that_of_every_draw_unless_one_is_set():
    assert compose.strategy("gdumb", seed=3).seed == 3
    assert compose.strategy("gdumb", ["seed=5"], seed=3).seed == 5
    assert isinstance(compose.strategy("naive", seed=3), Strategy)  # draws nothing
    replay, ewc = compose.strategy("replay+ewc", ["ewc.seed=5"], seed=3).strategies
    assert replay.memory.random.initial_seed() == 3
    assert ewc.sampled.kept.random.initial_seed() == 5


@pytest.mark.parametrize(
    ("text", "settings", "error", "said"),
    [
        ("powrlaw", [], UnknownName, "did you mean 'powerlaw'"),
        ("replay", ["capcity=3"], UnknownName, "did you mean 'capacity'"),
        ("replay", ["capacity"], ConfigError, "KEY=VALUE"),
        ("replay+simplex", ["capacity=3"], ConfigError, "NAME.KEY=VALUE"),
        ("replay+simplex", ["reply.capacity=3"], UnknownName, "did you mean 'replay'"),
        ("replay", ["capacity=0"], ConfigError, "at least 1"),
        ("replay", ["policy=newest"], UnknownName, "buffer policy"),
        ("replay", ['capacity="many"'], ConfigError, "replay cannot be made"),
        ("replay", ["ratio=NaN"], ConfigError, "finite number, got NaN"),
        ("replay", ["seed=one"], ConfigError, "replay cannot be made"),
        ("bct", ["old=x"], ConfigError, "bct cannot be made"),
        ("nmc", ["normalise=False"], ConfigError, "normalise wants true or false, got 'False'"),
        ("", [], UnknownName, "no strategy is called ''"),
    ],
)
def test_what_is_wrong_is_said(text, settings, error, said):
    with pytest.raises(error, match=said.replace("(", r"\(")):
        compose.strategy(text, settings)


def test_a_simplex_gets_features_of_its_width_unless_told_otherwise():
    assert compose.model_spec("mlp", (1, 28, 28), "replay+simplex")["backbone"]["features"] == 63
    spec = compose.model_spec("mlp", (4,), "naive", ["hidden=[8, 8]"])
    assert spec["backbone"] == {"name": "mlp", "inputs": [4], "hidden": [8, 8]}
