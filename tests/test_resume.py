"""Killed anywhere and restored from disk, a run ends in the bits of one that was never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from methods import strategies

from lifelong.checks import Toy, digest, learner
from lifelong.errors import ConfigError
from lifelong.learning import Learner, Strategy
from lifelong.learning.checkpoint import Checkpoints
from lifelong.models import build
from lifelong.types import Experience

SIZE, EPOCHS, STEPS = 16, 2, 2  # per pass: 20 samples
STRATEGIES = strategies(64)


class Items:
    """Iterable, not map-style."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def stream(form: str = "batch", kind: str = "class-il") -> list[Experience]:
    """The toy stream, ten samples per class, in memory, map-style or iterable."""
    made = []
    for e in Toy(kind).experiences(3, 10):
        pairs = list(zip(e.train.x, e.train.y.tolist(), strict=True))
        data: Any = {"batch": e.train, "map": pairs, "iterable": Items(pairs)}[form]
        made.append(Experience(e.index, e.name, e.classes, data, e.test, task=e.task, names=e.names))
    return made


class Killed(Exception):
    """In place of kill -9."""


def run(one: Learner, experiences: list[Experience], stop: int = -1, folder: Path | None = None) -> int:
    """Learn from where `one` is; commit and die at call `stop` of `on_step`; return how many calls there were."""
    calls = 0

    def on_step() -> None:
        nonlocal calls
        calls += 1
        if calls == stop and folder:
            Checkpoints(folder).commit(one.state())
            raise Killed

    for experience in experiences[one.position["experience"] :]:
        one.fit(experience, EPOCHS, on_step=on_step)
    return calls


FAST = ("replay", "chain")  # a buffer with a generator, and states that are nested; the others are for `make test`


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else pytest.mark.slow) for n in STRATEGIES])
@pytest.mark.slow
def test_a_run_killed_anywhere_and_restored_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    """First and last batch of a pass, of an experience, right after its end, and in the middle."""
    whole = learner(STRATEGIES[name]())
    calls = run(whole, stream())
    per = calls // 3
    expected = digest(whole.state())
    for stop in {1, STEPS, STEPS + 1, per - 1, per, per + 1, per + STEPS - 1, 2 * per - 1, 2 * per + 1, calls}:
        if not 1 <= stop <= calls:
            continue
        first = learner(STRATEGIES[name]())
        with pytest.raises(Killed):
            run(first, stream(), stop, tmp_path / str(stop))
        second = learner(STRATEGIES[name](), seed=77)
        saved = Checkpoints(tmp_path / str(stop)).latest()
        assert saved is not None
        second.restore(saved)
        assert digest(second.state()) == digest(first.state()), stop
        run(second, stream())
        assert digest(second.state()) == expected, stop


@pytest.mark.parametrize("form", ["map", "iterable"])
def test_data_that_is_not_in_memory_resumes_exactly_too(form: str, tmp_path: Path) -> None:
    whole = learner(STRATEGIES["replay"]())
    run(whole, stream(form))
    first, second = learner(STRATEGIES["replay"]()), learner(STRATEGIES["replay"](), seed=77)
    with pytest.raises(Killed):
        run(first, stream(form), 8, tmp_path)
    second.restore(Checkpoints(tmp_path).latest() or {})
    run(second, stream(form))

    assert digest(second.state()) == digest(whole.state())


@pytest.mark.parametrize("name", ["naive", "replay"])
def test_a_task_incremental_run_resumes_exactly(name: str, tmp_path: Path) -> None:
    whole = learner(STRATEGIES[name](), "task-il")
    run(whole, stream(kind="task-il"))
    first, second = (learner(STRATEGIES[name](), "task-il", seed) for seed in (0, 77))
    with pytest.raises(Killed):
        run(first, stream(kind="task-il"), 7, tmp_path)
    second.restore(Checkpoints(tmp_path).latest() or {})
    run(second, stream(kind="task-il"))

    assert digest(second.state()) == digest(whole.state())


def test_restoring_takes_back_everything_that_came_later() -> None:
    """Also momenta: a learner that has moved on becomes the one that was saved."""
    made = learner(Strategy())
    made.fit(stream()[0])
    saved = made.state()
    before = digest(saved)
    made.step(stream()[0].encoded(stream()[0].train, made.labels))
    made.restore(saved)
    assert digest(made.state()) == before


def test_a_state_of_another_model_is_refused() -> None:
    other = Learner(build({"backbone": {"name": "mlp", "inputs": [12], "hidden": [9]}, "head": {"name": "linear"}}))

    with pytest.raises(ConfigError, match="the saved state is of another model"):
        learner(Strategy()).restore(other.state())


def test_the_state_is_a_copy() -> None:
    made = learner(STRATEGIES["replay"]())
    made.fit(stream()[0])
    saved = made.state()
    before = digest(saved)
    made.fit(stream()[1])

    assert digest(saved) == before
