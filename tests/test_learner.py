"""The training loop: the numbers of a hand-written loop, exact resume, and refusals that leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lifelong import plugins
from lifelong.checks import digest
from lifelong.errors import ConfigError, DataError
from lifelong.learning import Chain, Learner, Needs, Optim, Strategy
from lifelong.learning.checkpoint import Checkpoints
from lifelong.learning.learner import plain
from lifelong.models import build
from lifelong.types import Batch, Experience, Output

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]
PER_CLASS, SIZE, EPOCHS = 10, 8, 2
STEPS = -(-2 * PER_CLASS // SIZE)  # per pass
TASK_IL = SimpleNamespace(kind="task-il", provides={"task_id", "boundaries"})


def samples(index: int, classes: tuple[int, int], seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(100 * index + seed)
    y = torch.tensor(classes).repeat(PER_CLASS)
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))[y] * 2
    return Batch.of(x + torch.randn(len(y), 6, generator=random), y, torch.arange(len(y)) + 1000 * index)


class Items:
    """Iterable, not map-style."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def stream(form: str = "batch", count: int = 3) -> list[Experience]:
    """Two classes per experience, the later label first; labels are strings."""
    made = []
    for index in range(count):
        classes = (2 * index + 1, 2 * index)
        batch, test = samples(index, classes), samples(index, classes, seed=1)
        pairs = [(x, NAMES[y]) for x, y in zip(batch.x, batch.y.tolist(), strict=True)]
        data: Any = {"batch": batch, "map": pairs, "iterable": Items(pairs)}[form]
        names = NAMES if form == "batch" else None
        held: Any = test if form == "batch" else [(x, NAMES[y]) for x, y in zip(test.x, test.y.tolist(), strict=True)]
        made.append(Experience(index, f"e{index}", [NAMES[c] for c in classes], data, held, task=index, names=names))
    return made


def find(name: str, **arguments: Any) -> Strategy:
    made: Strategy = plugins.find("strategy", name)(**arguments)
    return made


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "naive": lambda: find("naive"),
    "joint": lambda: find("joint"),
    "replay": lambda: find("replay", capacity=12),
    "balanced": lambda: find("replay", capacity=12, policy="balanced"),
    "powerlaw": lambda: find("powerlaw", capacity=12),
    "nmc": lambda: find("nmc"),
    "simplex": lambda: find("simplex", classes=8),
    "chain": lambda: Chain(find("simplex", classes=8), find("replay", capacity=12)),
}


def learner(strategy: Strategy | None = None, *, seed: int = 3, optim: Optim | None = None, **more: Any) -> Learner:
    spec = {"backbone": {"name": "mlp", "inputs": [6], "hidden": [8], "features": 7}, "head": {"name": "linear"}}
    optim = optim or Optim(lr=0.1, momentum=0.9)
    return Learner(build(spec, seed=seed), strategy, optim=optim, batch_size=SIZE, seed=seed, **more)


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


@pytest.mark.parametrize(
    ("optim", "make"),
    [
        (Optim(lr=0.1, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        (Optim(name="adam", lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    ],
)
def test_naive_training_is_the_usual_loop_bit_for_bit(optim: Optim, make: Callable[..., Any]) -> None:
    """Written out with nn.Sequential, torch.randperm and torch's optimizer."""
    made, (experience, *_) = learner(optim=optim), stream()
    start = build(made.model.spec(), seed=3)
    start.grow(2)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Linear(7, 2))
    for mine, theirs in zip(net.parameters(), start.parameters(), strict=True):
        mine.data.copy_(theirs.data)
    x, y = experience.train.x, (experience.train.y == 0).long()  # "bee", label 1, came first: index 0
    optimizer, random = make(net.parameters()), torch.Generator().manual_seed(3)
    for _ in range(3):
        order = torch.randperm(len(y), generator=random)
        for rows in order.split(SIZE):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()

    made.fit(experience, 3)

    for mine, theirs in zip(net.parameters(), made.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert made.counters == {"steps": 3 * STEPS, "samples": 60, "rehearsed": 0}


@pytest.mark.parametrize("name", STRATEGIES)
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
        run(first, stream(form), 9, tmp_path)
    second.restore(Checkpoints(tmp_path).latest() or {})
    run(second, stream(form))

    assert digest(second.state()) == digest(whole.state())


@pytest.mark.parametrize("form", ["batch", "map"])
def test_without_shuffling_samples_come_in_the_order_of_the_data(form: str) -> None:
    seen: list[int] = []

    class Ids(Strategy):
        def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
            seen.extend(batch.ids.tolist())

    made = learner(Ids(), shuffle=False)
    before = made.random.get_state()
    made.fit(stream(form)[0], 2)

    assert seen == list(range(20)) * 2
    assert torch.equal(made.random.get_state(), before)


def test_data_in_memory_and_map_style_data_train_alike() -> None:
    """Same order, same class indices, same weights."""
    one, two = learner(), learner()
    run(one, stream("batch"))
    run(two, stream("map"))

    assert digest(one.state()) == digest(two.state())


def test_restoring_takes_back_everything_that_came_later() -> None:
    """Also momenta: a learner that has moved on becomes the one that was saved."""
    made = learner()
    made.fit(stream()[0])
    saved = made.state()
    before = digest(saved)
    made.step(stream()[0].encoded(stream()[0].train, made.labels))
    made.restore(saved)
    assert digest(made.state()) == before

    fresh = learner()
    start = fresh.state()
    fresh.partial_fit(torch.zeros(1, 6), ["x"])
    again = learner()
    again.partial_fit(torch.zeros(1, 6), ["x"])
    again.model.load_state_dict(fresh.model.state_dict())
    assert digest(learner().state()) == digest(start)


def test_a_state_of_another_model_is_refused() -> None:
    other = Learner(build({"backbone": {"name": "mlp", "inputs": [6], "hidden": [9]}, "head": {"name": "linear"}}))

    with pytest.raises(ConfigError, match="the saved state is of another model"):
        learner().restore(other.state())


def test_experiences_come_in_stream_order() -> None:
    made, experiences = learner(), stream()
    with pytest.raises(ConfigError, match="experience 0 is next, got 1; experiences come in stream order"):
        made.fit(experiences[1])

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
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


def bad_inputs() -> dict[str, Tensor]:
    good = torch.zeros(3, 6)
    holed, endless = good.clone(), good.clone()
    holed[1, 2], endless[0, 0] = torch.nan, -torch.inf
    return {
        "NaN": holed,
        "infinity": endless,
        "float64": good.double(),
        "float16": good.half(),
        "integers": good.long(),
        "too wide": torch.zeros(3, 7),
        "a row": torch.zeros(6),
        "images": torch.zeros(3, 6, 2),
    }


@pytest.mark.parametrize("name", ["naive", "replay", "nmc", "simplex"])
@pytest.mark.parametrize("kind", bad_inputs())
def test_inputs_that_cannot_be_learned_are_refused_and_leave_no_trace(kind: str, name: str) -> None:
    """Not in weights, buffers, counters, labels or any generator."""
    made, x = learner(STRATEGIES[name]()), bad_inputs()[kind]
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
    x = torch.zeros(4, 6)
    x[1, 1] = x[1, 2] = x[3, 0] = torch.nan
    with pytest.raises(DataError, match="2 of 4 inputs hold NaN or infinity"):
        learner().partial_fit(x, "abcd")
    with pytest.raises(DataError, match=r"shape \[N, 6\], got torch.float32 of shape \[4, 5\]"):
        learner().partial_fit(x[:, :5], "abcd")


def test_large_finite_inputs_are_not_taken_for_infinite_ones() -> None:
    """Although their sum overflows."""
    assert learner().embed(torch.full((2, 6), 3e37) * 8).shape == (2, 7)


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
    bad = Items([(torch.full((6,), torch.nan), "surprise")])
    made = learner()
    with pytest.raises(DataError, match="hold NaN"):
        made.fit(Experience(0, "e", ["ant"], bad))

    assert made.labels.tolist() == ["ant"]
    learner().restore(made.state())


def test_a_diverging_loss_is_refused_before_the_weights_move() -> None:
    made = learner()
    made.fit(stream()[0])
    with torch.no_grad():
        made.model.head.weight.fill_(3e38)
    before = digest(made.state()["model"])
    with pytest.raises(DataError, match=r"the loss became (nan|inf) at step 3; lower the learning rate"):
        made.partial_fit(torch.full((2, 6), 9.0), ["ant", "bee"])

    assert digest(made.state()["model"]) == before


def test_a_one_shot_iterator_is_not_silently_passed_over_twice() -> None:
    once = iter([(torch.zeros(6), "a"), (torch.ones(6), "b")])
    with pytest.raises(DataError, match="'e' gave no samples in pass 2; a one-shot iterator"):
        learner().fit(Experience(0, "e", ["a", "b"], once), 2)


def test_partial_fit_welcomes_new_labels_in_mid_stream() -> None:
    """And then predicts them; old class indices stay."""
    made = learner(STRATEGIES["replay"]())
    for experience in stream():
        batch = experience.train
        for _ in range(6):
            made.partial_fit(batch.x, [NAMES[y] for y in batch.y])
        assert set(made.predict(batch.x)) <= set(made.labels.tolist())
        assert made.score(experience) > 0.5

    assert made.labels.tolist() == ["bee", "ant", "dog", "cat", "fox", "elk"]
    assert made.outputs(torch.zeros(1, 6)).logits.shape == (1, 6)


def test_partial_fit_takes_tensors_arrays_and_lists_alike() -> None:
    x, y = samples(0, (1, 0)).x, [NAMES[1], NAMES[0]] * PER_CLASS
    states = []
    for inputs, labels in [(x, y), (x.numpy(), np.array(y)), (x.tolist(), tuple(y)), (list(x), y)]:
        states.append(digest(learner(STRATEGIES["replay"]()).partial_fit(inputs, labels).state()))

    assert len(set(states)) == 1


def test_partial_fit_counts_ids_on_unless_they_are_given() -> None:
    seen: list[int] = []

    class Ids(Strategy):
        def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
            seen.extend(batch.ids.tolist())

    made, x = learner(Ids()), torch.zeros(9, 6)
    made.partial_fit(x, ["a"] * 9)
    made.partial_fit(x[:2], ["a", "b"])
    made.partial_fit(x[:2], ["a", "b"], ids=[70, 5])

    assert seen == [*range(11), 70, 5]


@pytest.mark.parametrize(
    ("labels", "ids"), [(["new", 1.5, "x"], None), (["new"] * 2, None), (["new"] * 3, [1, 2]), (["new"] * 3, [0.5] * 3)]
)
def test_refused_labels_and_ids_leave_no_trace(labels: list[object], ids: object) -> None:
    made = learner().partial_fit(torch.zeros(2, 6), ["a", "b"])
    before = digest(made.state())
    with pytest.raises(DataError):
        made.partial_fit(torch.zeros(3, 6), labels, ids)

    assert digest(made.state()) == before


@pytest.mark.parametrize("name", STRATEGIES)
def test_predicting_embedding_and_scoring_change_nothing(name: str) -> None:
    made, experiences = learner(STRATEGIES[name]()), stream()
    made.fit(experiences[0])
    made.model.train()
    before, known = digest(made.state()), torch.random.get_rng_state()
    x = experiences[0].test.x
    first = made.predict(x), made.embed(x), made.score(experiences[0]), made.score(experiences[1])

    assert (made.predict(x), made.score(experiences[0]), made.score(experiences[1])) == (first[0], *first[2:])
    assert torch.equal(made.embed(x), first[1])
    assert digest(made.state()) == before
    assert torch.equal(torch.random.get_rng_state(), known)
    assert made.model.training
    assert first[3] == 0.0  # classes that never came


def test_the_state_is_a_copy() -> None:
    made = learner(STRATEGIES["replay"]())
    made.fit(stream()[0])
    saved = made.state()
    before = digest(saved)
    made.fit(stream()[1])

    assert digest(saved) == before


def test_score_is_the_share_of_right_predictions() -> None:
    made, experiences = learner(), stream()
    made.fit(experiences[0])
    told = made.predict(experiences[0].test.x)
    right = sum(guess == NAMES[y] for guess, y in zip(told, experiences[0].test.y.tolist(), strict=True))

    assert made.score(experiences[0]) == right / 20
    assert learner().score(experiences[0]) == 0.0
    with pytest.raises(DataError, match="nothing has been learned yet"):
        learner().predict(torch.zeros(1, 6))


def test_task_incremental_training_leaves_other_tasks_columns_alone_and_predicts_within_the_task() -> None:
    made, experiences = learner(setting=TASK_IL, optim=Optim(lr=0.1)), stream()
    made.fit(experiences[0])
    columns = made.model.head.weight[:2].detach().clone()
    made.fit(experiences[1])

    assert torch.equal(made.model.head.weight[:2], columns)
    assert made.tasks == {0: [0, 1], 1: [2, 3]}
    x = torch.randn(50, 6)
    for task, allowed in ((0, {"ant", "bee"}), (1, {"cat", "dog"})):
        assert set(made.predict(x, task)) <= allowed
        logits = made.outputs(x, task).logits
        free = made.outputs(x).logits
        assert torch.equal(logits.isinf(), ~torch.isin(torch.arange(4), torch.tensor(made.tasks[task])).expand(50, 4))
        assert torch.equal(logits[~logits.isinf()], free[~logits.isinf()])
    assert made.score(experiences[0]) >= np.mean(
        [a == NAMES[y] for a, y in zip(made.predict(experiences[0].test.x), experiences[0].test.y, strict=True)]
    )


def test_a_task_that_comes_again_keeps_its_earlier_classes() -> None:
    first, second = stream(count=2)
    again = Experience(1, "again", second.classes, second.train, task=0, names=NAMES)
    made = learner(STRATEGIES["replay"](), setting=TASK_IL)
    made.fit(first)
    made.fit(again)

    assert made.tasks == {0: [0, 1, 2, 3]}


@pytest.mark.parametrize("name", ["naive", "replay"])
def test_a_task_incremental_run_resumes_exactly(name: str, tmp_path: Path) -> None:
    whole = learner(STRATEGIES[name](), setting=TASK_IL)
    run(whole, stream())
    first, second = (learner(STRATEGIES[name](), setting=TASK_IL, seed=s) for s in (3, 77))
    with pytest.raises(Killed):
        run(first, stream(), 10, tmp_path)
    second.restore(Checkpoints(tmp_path).latest() or {})
    run(second, stream())

    assert digest(second.state()) == digest(whole.state())


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
    setting = SimpleNamespace(kind=kind, provides=provides)

    with pytest.raises(ConfigError, match=message):
        learner(Needy(), setting=setting)
    with pytest.raises(ConfigError, match=message):
        learner(Chain(Strategy(), Needy()), setting=setting)


class Spy(Strategy):
    """Writes down which hooks are called, and what they are given."""

    keeps_delta = True

    def __init__(self, log: list[str], name: str = "") -> None:
        self.log, self.name = log, name

    def adapt(self, model: nn.Module) -> None:
        self.log.append(f"{self.name}adapt")

    def begin(self, model: nn.Module, experience: Experience) -> None:
        self.log.append(f"{self.name}begin {model.classes}")

    def augment(self, batch: Batch) -> Batch:
        self.log.append(f"{self.name}augment {len(batch)}")
        return Batch.cat([batch, batch[:1]])

    def penalty(self, model: nn.Module, batch: Batch, out: Output) -> Tensor:
        self.log.append(f"{self.name}penalty {len(batch)}")
        return out.features.sum() * 0 + 1

    def project(self, model: nn.Module) -> None:
        self.log.append(f"{self.name}project {all(p.grad is not None for p in model.parameters())}")

    def project_delta(self, model: nn.Module, before: Any) -> None:
        same = [torch.equal(p, before[n]) for n, p in model.named_parameters()]
        self.log.append(f"{self.name}delta {any(same)}")
        for name, p in model.named_parameters():
            p.data.copy_(before[name])

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        self.log.append(f"{self.name}observe {len(batch)} {len(out.logits)}")

    def end(self, model: nn.Module, experience: Experience) -> None:
        self.log.append(f"{self.name}end")


def test_hooks_are_called_in_the_documented_order_with_what_they_are_promised() -> None:
    """And what project_delta writes is what stays: here, the weights of before."""
    log: list[str] = []
    made = learner(Spy(log))
    experience = Experience(0, "e", ["a", "b"], [(torch.ones(6), "a"), (-torch.ones(6), "b")])
    made.fit(experience)
    step = ["augment 2", "penalty 3", "project True", "delta False", "observe 2 2"]

    assert log == ["adapt", "begin 2", *step, "end"]
    start = build(made.model.spec(), seed=3)
    fresh = build({**start.spec(), "head": {"name": "linear"}}, seed=3)
    fresh.grow(2)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), made.model.parameters(), strict=True))
    assert made.counters["rehearsed"] == 1


def test_a_chain_applies_its_strategies_in_order_and_adds_their_penalties() -> None:
    log: list[str] = []
    chain = Chain(Spy(log, "1 "), Strategy(), Spy(log, "2 "))
    made = learner(chain)
    batch = Batch.of(torch.ones(2, 6), torch.tensor([0, 1]))
    made.labels.register(["a", "b"])
    made.step(batch)

    assert [line for line in log if "augment" in line] == ["1 augment 2", "2 augment 3"]
    assert [line.split()[0] for line in log] == ["1", "2"] * (len(log) // 2)
    assert chain.penalty(made.model, batch, made.outputs(batch.x)) == 2
    assert Chain(Strategy()).penalty(made.model, batch, made.outputs(batch.x)) is None
    with pytest.raises(ConfigError, match="a Chain takes strategies"):
        Chain()
    with pytest.raises(ConfigError, match="this state is of the chain"):
        Chain(Strategy()).restore(chain.state())


def test_an_inert_strategy_in_a_chain_changes_nothing() -> None:
    alone, chained = (
        learner(find("replay", capacity=12)),
        learner(Chain(find("powerlaw", ratio=0.0), find("replay", capacity=12), Strategy())),
    )
    run(alone, stream())
    run(chained, stream())

    assert digest(alone.state()["model"]) == digest(chained.state()["model"])


def test_numbers_to_watch_are_plain() -> None:
    made = learner(STRATEGIES["replay"]())
    made.fit(stream()[0])

    assert plain(made) == {
        "steps": 3, "samples": 20, "rehearsed": 12, "experience": 1, "epoch": 0, "batch": 0, "open": 0, "memory": 12.0
    }  # fmt: skip
