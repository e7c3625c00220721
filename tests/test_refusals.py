"""What the learner refuses, and that a refusal leaves no trace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from lifelong import plugins
from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError, DataError
from lifelong.learning import Chain, Learner, Needs, Strategy
from lifelong.models import build
from lifelong.types import Batch, Experience


def stream() -> list[Experience]:
    return list(Toy().experiences(3, 10))


def bad_inputs() -> dict[str, Tensor]:
    good = torch.zeros(3, 12)
    holed, endless = good.clone(), good.clone()
    holed[1, 2], endless[0, 0] = torch.nan, -torch.inf
    return {
        "NaN": holed,
        "infinity": endless,
        "float64": good.double(),
        "float16": good.half(),
        "integers": good.long(),
        "too wide": torch.zeros(3, 13),
        "a row": torch.zeros(12),
        "images": torch.zeros(3, 12, 2),
    }


@pytest.mark.parametrize("name", ["naive", "replay", "nmc", "simplex"])
@pytest.mark.parametrize("kind", bad_inputs())
@pytest.mark.slow
def test_inputs_that_cannot_be_learned_are_refused_and_leave_no_trace(kind: str, name: str) -> None:
    """Not in weights, buffers, counters, labels or any generator."""
    made, x = learner(plugins.find("strategy", name)()), bad_inputs()[kind]
    made.fit(stream()[0])
    before = digest(made.state())
    for attempt in (
        lambda: made.step(Batch.of(x, torch.zeros(len(x), dtype=torch.int64))),
        lambda: made.partial_fit(x, ["new"] * len(x)),
        lambda: made.predict(x),
        lambda: made.embed(x),
    ):
        with pytest.raises(DataError, match=r"inputs (must be|hold NaN)"):
            attempt()
        assert digest(made.state()) == before


def test_the_refusal_counts_the_bad_rows_and_says_the_shape() -> None:
    x = torch.zeros(4, 12)
    x[1, 1] = x[1, 2] = x[3, 0] = torch.nan
    with pytest.raises(DataError, match="2 of 4 inputs hold NaN or infinity"):
        learner(Strategy()).partial_fit(x, "abcd")
    with pytest.raises(DataError, match=r"shape \[N, 12\], got torch.float32 of shape \[4, 11\]"):
        learner(Strategy()).partial_fit(x[:, :11], "abcd")


def test_large_finite_inputs_are_not_taken_for_infinite_ones() -> None:
    """Although their sum overflows."""
    assert learner(Strategy()).embed(torch.full((2, 12), 3e37) * 8).shape == (2, 63)


def test_a_model_of_images_takes_images_and_rows_but_no_other_arrangement() -> None:
    spec = {
        "backbone": {"name": "conv", "inputs": [1, 4, 6], "channels": [2], "features": 3},
        "head": {"name": "linear"},
    }
    made = Learner(build(spec))

    assert made.embed(torch.zeros(2, 1, 4, 6)).shape == made.embed(torch.zeros(2, 24)).shape == (2, 3)
    for shape in [(2, 4, 6, 1), (2, 1, 6, 4), (2, 4, 6)]:
        with pytest.raises(DataError, match="inputs must be"):
            made.embed(torch.zeros(shape))


def test_a_refused_batch_of_an_iterable_leaves_its_undeclared_labels_unknown() -> None:
    """Else the saved state would have more labels than the head has columns, and could not be restored."""
    bad = iter([(torch.full((12,), torch.nan), "surprise")])
    made = learner(Strategy())
    with pytest.raises(DataError, match="hold NaN"):
        made.fit(Experience(0, "e", ["ant"], bad))

    assert made.labels.tolist() == ["ant"]
    learner(Strategy()).restore(made.state())


def test_a_diverging_loss_is_refused_before_the_weights_move() -> None:
    made = learner(Strategy())
    made.fit(stream()[0])
    with torch.no_grad():
        made.model.head.weight.fill_(3e38)
    before = digest(made.state()["model"])
    with pytest.raises(DataError, match=r"the loss became (nan|inf) at step 2; lower the learning rate"):
        made.partial_fit(torch.full((2, 12), 9.0), ["class-0", "class-1"])

    assert digest(made.state()["model"]) == before


def test_a_one_shot_iterator_is_not_silently_passed_over_twice() -> None:
    once = iter([(torch.zeros(12), "a"), (torch.ones(12), "b")])
    with pytest.raises(DataError, match="'e' gave no samples in pass 2; a one-shot iterator"):
        learner(Strategy()).fit(Experience(0, "e", ["a", "b"], once), 2)


@pytest.mark.parametrize(
    ("labels", "ids"),
    [
        (["new", 1.5, "x"], None),
        (["new"] * 2, None),
        (["new"] * 3, [1, 2]),
        (["new"] * 3, [0.5] * 3),
        (["new"] * 3, list("xyz")),
    ],
)
def test_refused_labels_and_ids_leave_no_trace(labels: list[object], ids: object) -> None:
    made = learner(Strategy()).partial_fit(torch.zeros(2, 12), ["a", "b"])
    before = digest(made.state())
    with pytest.raises(DataError):
        made.partial_fit(torch.zeros(3, 12), labels, ids)

    assert digest(made.state()) == before


@pytest.mark.parametrize("name", ["naive", "replay", "slda", "dkvb", "er_ace"])
def test_a_step_on_classes_that_nobody_knows_is_refused_and_leaves_no_trace(name: str) -> None:
    made = learner(plugins.find("strategy", name)()).partial_fit(torch.zeros(4, 12), "abab")
    before = digest(made.state())
    for y, says in [([0, 77], "from 0 to 1 .* got 77"), ([-100, 1], "got -100"), ([], "at least one sample, got none")]:
        with pytest.raises(DataError, match=says):
            made.step(Batch.of(torch.zeros(len(y), 12), torch.tensor(y, dtype=torch.int64)))
        assert digest(made.state()) == before


def test_experiences_come_in_stream_order() -> None:
    made, experiences = learner(Strategy()), stream()
    with pytest.raises(ConfigError, match="experience 0 is next, got 1; experiences come in stream order"):
        made.fit(experiences[1])

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.fit(experiences[0], on_step=die)
    with pytest.raises(ConfigError, match="experience 0 is next, got 1; finish the one that is half learned"):
        made.fit(experiences[1])
    made.fit(experiences[0])
    made.fit(experiences[1])
    assert made.position == {"experience": 2, "epoch": 0, "batch": 0, "open": 0}
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        made.fit(experiences[2], 0)
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        Learner(made.model, batch_size=0)


@pytest.mark.parametrize(
    ("needs", "kind", "provides", "message"),
    [
        (Needs(boundaries=True), "online", (), "needs boundaries, .* use a scenario with experiences"),
        (Needs(task_id=True), "class-il", ("boundaries",), "needs task_id"),
        (Needs(epochs=True), "class-il", ("boundaries",), "needs epochs"),
        (Needs(known_classes=True), "class-il", ("boundaries",), "needs known_classes"),
        (Needs(scenarios=frozenset({"task-il"})), "class-il", (), "is meant for task-il, got a class-il stream"),
    ],
)
def test_a_strategy_that_needs_more_than_the_scenario_gives_is_refused(
    needs: Needs, kind: str, provides: tuple[str, ...], message: str
) -> None:
    class Needy(Strategy):
        pass

    Needy.needs = needs
    setting, model = SimpleNamespace(kind=kind, provides=provides), learner(Strategy()).model

    with pytest.raises(ConfigError, match=message):
        Learner(model, Needy(), setting=setting)
    with pytest.raises(ConfigError, match=message):
        Learner(model, Chain(Strategy(), Needy()), setting=setting)
