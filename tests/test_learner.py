"""The training loop: the numbers of a hand-written loop, streams without boundaries, tasks, and pure predictions."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from methods import strategies
from torch import nn
from torch.nn import functional as F

from lifelong.checks import digest
from lifelong.daemon import plain
from lifelong.errors import DataError
from lifelong.learning import Learner, Optim, Strategy
from lifelong.models import build
from lifelong.types import Batch, Experience, Output

NAMES = ["ant", "bee", "cat", "dog", "elk", "fox"]
PER_CLASS, SIZE = 10, 8
STRATEGIES = strategies(8)
STEPS = -(-2 * PER_CLASS // SIZE)  # per pass
TASK_IL = SimpleNamespace(kind="task-il", provides={"task_id", "boundaries"})


def samples(index: int, classes: tuple[int, int], seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(100 * index + seed)
    y = torch.tensor(classes).repeat(PER_CLASS)
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))[y] * 2
    return Batch.of(x + torch.randn(len(y), 6, generator=random), y, torch.arange(len(y)) + 1000 * index)


def stream(form: str = "batch", count: int = 3) -> list[Experience]:
    """Two classes per experience, the later label first; labels are strings."""
    made = []
    for index in range(count):
        classes = (2 * index + 1, 2 * index)
        batch, test = samples(index, classes), samples(index, classes, seed=1)
        pairs = [(x, NAMES[y]) for x, y in zip(batch.x, batch.y.tolist(), strict=True)]
        data: Any = batch if form == "batch" else pairs
        names = NAMES if form == "batch" else None
        held: Any = test if form == "batch" else [(x, NAMES[y]) for x, y in zip(test.x, test.y.tolist(), strict=True)]
        made.append(Experience(index, f"e{index}", [NAMES[c] for c in classes], data, held, task=index, names=names))
    return made


def learner(strategy: Strategy | None = None, *, seed: int = 3, optim: Optim | None = None, **more: Any) -> Learner:
    spec = {"backbone": {"name": "mlp", "inputs": [6], "hidden": [8], "features": 7}, "head": {"name": "linear"}}
    optim = optim or Optim(lr=0.1, momentum=0.9)
    return Learner(build(spec, seed=seed), strategy, optim=optim, batch_size=SIZE, seed=seed, **more)


def run(one: Learner, experiences: list[Experience]) -> None:
    for experience in experiences:
        one.fit(experience, 2)


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


def test_numbers_to_watch_are_plain() -> None:
    made = learner(STRATEGIES["replay"]())
    made.fit(stream()[0])

    assert plain(made) == {
        "steps": 3, "samples": 20, "rehearsed": 12, "experience": 1, "epoch": 0, "batch": 0, "open": 0, "memory": 12.0
    }  # fmt: skip
