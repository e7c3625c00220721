"""The trainer: commits, candidates, versions, and going on."""

import json

import pytest
import torch

from lifelong.checks import digest
from lifelong.daemon import Stopped, Trainer
from lifelong.errors import ConfigError, DataError
from lifelong.learning import Learner, Optim
from lifelong.learning.checkpoint import Checkpoints
from lifelong.models import build
from lifelong.plan import Plan
from lifelong.release.registry import Registry
from lifelong.streams.scenarios import class_incremental, online
from lifelong.types import Batch
from strategies.replay import Replay

pytestmark = pytest.mark.slow  # together too long for `make fast`

WIDTH = 6


def blobs(count=60, classes=4):
    random = torch.Generator().manual_seed(5)
    centres = 3 * torch.eye(classes, WIDTH)
    y = torch.arange(classes).repeat(count)
    x = centres[y] + 0.3 * torch.randn(len(y), WIDTH, generator=random)
    return Batch.of(x, y)


def stream():
    return class_incremental((blobs(), blobs(20)), 2)


def learner(setting=None, seed=0):
    spec = {"backbone": {"name": "mlp", "inputs": [WIDTH], "hidden": [8]}, "head": {"name": "linear"}}
    return Learner(build(spec, seed=seed), Replay(40), optim=Optim(lr=0.1), batch_size=8, seed=seed, setting=setting)


PLAN = Plan(epochs=2, commit_every=4, held_out=0.2, compatible=False)


def test_each_experience_becomes_a_version_with_its_report(tmp_path):
    registry, told = Registry(tmp_path / "registry", create=True), []
    trainer = Trainer(
        learner(), stream(), tmp_path / "run", registry=registry, plan=PLAN, notify=lambda *a: told.append(a)
    )
    progress = trainer.run()

    assert registry.versions() == [1, 2]
    assert registry.current() == 2
    assert [v["version"] for v in progress.versions] == [1, 2]
    assert registry.manifest(2)["parent"] == 1
    assert registry.report(2).passed
    assert len(progress.matrix) == len(progress.matrix[0]) == 2
    assert [kind for kind, _ in told if kind != "step"] == ["published", "experience", "published", "experience"]


def test_an_experience_that_nobody_can_test_is_no_column(tmp_path):
    """It is trained on; of an accuracy over no samples there is none, and not 0."""
    tests = blobs(20)
    known = tests.take((tests.y < 3).nonzero().flatten())
    untested, made = class_incremental((blobs(), known), 4), learner()
    progress = Trainer(made, untested, tmp_path / "run", plan=PLAN).run()
    assert [len(row) for row in progress.matrix] == [3] * 4
    with pytest.raises(DataError, match="'classes-3' has no test sample"):
        made.score(untested[3])


def test_an_experience_too_small_to_hold_out_of_is_refused_before_training(tmp_path):
    train = blobs()
    few = train.take(torch.cat([(train.y < 3).nonzero().flatten(), (train.y == 3).nonzero().flatten()[:1]]))
    with pytest.raises(DataError, match=r"'classes-3' of \[3\] has 1 samples; one of each is held out"):
        Trainer(learner(), class_incremental((few, blobs(20)), 4), tmp_path / "run", plan=PLAN)
    assert not (tmp_path / "run").exists()


def test_what_the_gate_refuses_is_recorded_and_training_goes_on(tmp_path):
    """An update that may cost nothing, by a learner that forgets: refused, with the reason in the history."""
    registry = Registry(tmp_path / "registry", create=True)
    naive = Learner(
        build({"backbone": {"name": "mlp", "inputs": [WIDTH], "hidden": [8]}, "head": {"name": "linear"}}),
        optim=Optim(lr=0.5),
        batch_size=8,
    )
    plan = Plan(epochs=8, held_out=0.2, max_forgetting=0.0, max_accuracy_drop=0.0)
    progress = Trainer(naive, stream(), tmp_path / "run", registry=registry, plan=plan).run()

    assert [v["version"] for v in progress.versions] == [1, None]
    assert registry.current() == 1
    refused = registry.history()[-1]
    assert refused.kind == "refuse"
    assert refused.why
    assert len(progress.matrix) == 2


@pytest.mark.parametrize("stop", [3, 12, 24, 25])
def test_stopped_and_started_again_it_ends_with_the_same_bits(tmp_path, stop):
    whole = Trainer(learner(), stream(), tmp_path / "whole", registry=Registry(tmp_path / "a", create=True), plan=PLAN)
    whole.run()

    def cut(kind, facts):
        if kind == "step" and facts["steps"] == stop:
            first.stop.set()

    registry = Registry(tmp_path / "b", create=True)
    first = Trainer(learner(), stream(), tmp_path / "parts", registry=registry, plan=PLAN, notify=cut)
    with pytest.raises(Stopped):
        first.run()
    second = Trainer(learner(), stream(), tmp_path / "parts", registry=registry, plan=PLAN)
    second.run()

    assert digest(whole.learner.state()) == digest(second.learner.state())
    assert whole.progress == second.progress
    manifests = [[Registry(tmp_path / r).manifest(v)["sha256"] for v in (1, 2)] for r in "ab"]
    assert manifests[0] == manifests[1]


def test_killed_between_publish_and_commit_it_publishes_nothing_twice(tmp_path):
    """The commit after a publish is lost: the run goes on from the one before, and finds its version there."""
    registry = Registry(tmp_path / "registry", create=True)
    trainer = Trainer(learner(), stream(), tmp_path / "run", registry=registry, plan=PLAN)
    trainer.run()
    expected = trainer.progress
    commits = Checkpoints(tmp_path / "run" / "checkpoints")
    newest = commits.numbers()[-1]
    for path in (commits.folder / f"{newest:08d}").iterdir():
        path.unlink()
    (commits.folder / f"{newest:08d}").rmdir()

    again = Trainer(learner(), stream(), tmp_path / "run", registry=registry, plan=PLAN)
    again.run()

    assert registry.versions() == [1, 2]
    assert again.progress == expected
    assert [e.kind for e in registry.history()] == ["publish", "publish"]


def test_a_finished_run_is_left_alone(tmp_path):
    trainer = Trainer(learner(), stream(), tmp_path, plan=PLAN)
    trainer.run()
    before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())

    again = Trainer(learner(), stream(), tmp_path, plan=PLAN)

    assert again.run() == trainer.progress
    assert before == sorted(p.name for p in (tmp_path / "checkpoints").iterdir())


def test_a_folder_of_another_run_is_refused_by_name(tmp_path):
    Trainer(learner(), stream(), tmp_path, plan=PLAN, about={"lr": 0.1}).run()

    with pytest.raises(ConfigError, match="its lr differs"):
        Trainer(learner(), stream(), tmp_path, plan=PLAN, about={"lr": 0.2}).run()
    assert json.loads((tmp_path / "run.json").read_text())["lr"] == 0.1


def test_the_gate_never_sees_test_samples(tmp_path):
    """Held-out rows come out of the training samples, and no training step sees them."""
    seen = []

    made = learner()
    inner = made._step
    made._step = lambda batch: (seen.extend(batch.ids.tolist()), inner(batch))[1]
    trainer = Trainer(made, stream(), tmp_path, plan=PLAN)
    trainer.run()
    held = torch.cat([trainer._training[i].test.ids for i in range(2)]).tolist()

    assert held
    assert not set(held) & set(seen)
    assert sorted({*held, *seen}) == list(range(240))


def test_a_stream_without_boundaries_publishes_every_so_many_experiences(tmp_path):
    registry = Registry(tmp_path / "registry", create=True)
    scenario = online((blobs(), blobs(20)), 20)
    made = learner(scenario)
    progress = Trainer(
        made, scenario, tmp_path / "run", registry=registry, plan=Plan(publish_every=6, held_out=0.2, compatible=False)
    ).run()

    assert registry.versions() == [1, 2]
    assert [len(row) for row in progress.matrix] == [1, 1]


def test_bad_plans_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        Plan(epochs=0)
    with pytest.raises((ConfigError, DataError)):
        Trainer(learner(), stream(), "unused", plan=Plan(held_out=1.5))
