"""Nothing is tuned on what it is judged on, all get as many trials, and a record says where settings come from."""

import numpy as np
import pytest
import torch

from lifelong import compose, plugins
from lifelong.bench import cell, overlap, tuning, workers
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.cli import cli
from lifelong.commands import bench, bench_report
from lifelong.errors import ConfigError
from lifelong.streams.parts import from_data
from lifelong.streams.scenarios import SCENARIOS, class_incremental, permuted, scenario, validation
from lifelong.types import Batch

JOB = Job(scenario="split-fmnist", strategy="ewc", seed=3, settings=("samples=64",), epochs=2)


def data(seed, classes=4, name="made"):
    random = torch.Generator().manual_seed(seed)
    x, y = torch.rand(40, 6, generator=random), torch.arange(40) % classes
    held = Batch.of(x[:8] + 1, y[:8], torch.arange(100, 108))
    return from_data(Batch.of(x, y, torch.arange(40)), held, name=name)


def result(score, flops=10.0):
    return {"metrics": {"acc_final": score}, "flops": flops, "signature": {"data": {"name": "d", "sha256": "ab"}}}


def test_a_stream_and_itself_in_another_pixel_order_are_the_same_samples():
    one = data(0)
    first, second = permuted(one, 2, seed=0), permuted(data(0, name="copy"), 2, seed=9)
    with pytest.raises(ConfigError, match=r"samples of .* are in .* too"):
        overlap.refuse_shared(first, second)


def test_a_part_without_samples_has_no_fingerprints():
    assert overlap.fingerprints(torch.empty(0, 3, 2)) == []


def test_one_leaked_sample_is_found():
    ours, theirs = data(0), data(1)
    overlap.refuse_shared(class_incremental(ours, 2), class_incremental(theirs, 2))
    theirs.train.x[7] = ours.test.x[2]
    with pytest.raises(ConfigError, match=r"^1 samples"):
        overlap.refuse_shared(class_incremental(ours, 2), class_incremental(theirs, 2))


def test_the_same_data_set_is_refused_by_name():
    small = scenario("split-fmnist-small", None)
    with pytest.raises(ConfigError, match=r"cut from the same data"):
        overlap.refuse_shared(small, scenario("permuted-fmnist-small", None))


def test_streams_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"class-il with 2, 2 classes and .* is class-il with 1, 1, 1, 1"):
        overlap.refuse_unlike(class_incremental(data(0), 2), class_incremental(data(1), 4))
    overlap.refuse_unlike(class_incremental(data(0), 2), class_incremental(data(1), 2))


def test_test_samples_among_training_samples_are_named():
    """By the ids that both have; another order of the same values is another sample here."""
    clean = data(0)
    assert overlap.leaked(class_incremental(clean, 2)) == []
    clean.test.x[0] = clean.train.x[5]
    clean.test.x[1] = clean.train.x[6].flip(0)
    pair = (int(clean.train.ids[5]), int(clean.test.ids[0]))
    for stream in (class_incremental(clean, 2), permuted(clean, 3)):
        assert overlap.leaked(stream) == [pair]
    assert overlap.report(class_incremental(clean, 2)) == {"leaked": 1, "train_and_test_ids": [list(pair)]}


@pytest.mark.slow  # draws a report
def test_a_leak_is_said_and_written_into_the_provenance(tmp_path, capsys):
    """A user's file with one test image out of the training part; what cannot be read says so."""
    pytest.importorskip("jinja2")
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (40, 4, 4), dtype=np.uint8), np.arange(40) % 4
    held = random.integers(0, 256, (8, 4, 4), dtype=np.uint8)
    held[3] = x[17]
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=held, y_test=y[:8])
    name = f"split:{tmp_path / 'own.npz'}"
    jobs = [
        Job(scenario=name, strategy="nmc", options={"experiences": 2}),
        Job(scenario="split:no.npz", strategy="nmc"),
    ]
    found = bench._leaks(jobs, None)
    assert found[name] == {"leaked": 1, "train_and_test_ids": [[17, 43]]}
    assert "no file" in found["split:no.npz"]["reason"]
    assert "1 test samples are training samples too, such as 43, which is 17" in capsys.readouterr().err
    store = Store.create(tmp_path / "grid", jobs[:1], {"protocol": "conventional", "leaks": found})
    workers.work(store, jobs[:1], "a")
    bench_report.write(store)
    assert "ids (training, test): [[17, 43]]" in (tmp_path / "grid" / "report.html").read_text()


@pytest.mark.parametrize("on", [("split-mnist10k", {}), None], ids=["two-phase", "first-task"])
def test_trials_never_reach_what_is_judged(on):
    pytest.importorskip("optuna")
    found = tuning.trials(JOB, 5, on=on)
    assert len(found) == 5
    assert len({t.key for t in found}) == 5
    assert all(t.part == ("validation" if on else "first-task") and t.seed != JOB.seed for t in found)
    assert all(t.settings[0] == "samples=64" and t.settings[1].startswith("pull=") for t in found)
    assert len({t.lr for t in found}) == 5


def test_trials_are_the_same_on_every_machine_and_as_many_for_all():
    pytest.importorskip("optuna")
    again = [tuning.trials(JOB, 4, on=None) for _ in "12"]
    assert again[0] == again[1]
    for name in ("naive", "derpp", "replay+simplex"):
        job = Job(scenario="split-fmnist", strategy=name)
        assert len(tuning.trials(job, 4, on=None)) == 4


def test_values_stay_in_their_range():
    pytest.importorskip("optuna")
    for trial in tuning.trials(JOB, 40, on=None):
        assert tuning.LR.low <= trial.lr <= tuning.LR.high
        low, high, _ = tuning.SPACES["ewc"]["pull"]
        assert low <= float(trial.settings[1].removeprefix("pull=")) <= high


def test_what_was_set_is_not_searched():
    pytest.importorskip("optuna")
    for strategy, given in (
        ("ewc", "pull=5"),
        ("ewc", "ewc.pull=5"),
        ("dkvb", "lr=0.2"),
        ("replay+powerlaw", "powerlaw.alpha=0.5"),
    ):
        found = tuning.trials(Job(scenario="split-fmnist", strategy=strategy, settings=(given,)), 3, on=None)
        assert {trial.settings for trial in found} == {(given,)}
        assert len({trial.lr for trial in found}) == 3  # the learner's, always


def test_data_of_ones_own_is_cut_as_told_and_searched_for_on_data_cut_alike(tmp_path, monkeypatch):
    """As on the command line: what is said without a scenario's name is for all, the one that is searched on too."""
    pytest.importorskip("optuna")
    random, y = np.random.default_rng(0), np.arange(120) % 6
    for name in "ab":
        x = random.random((120, 5), dtype=np.float32)
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x[:30] + 1, y_test=y[:30])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "_local", lambda store, jobs, _, attempt, *__: workers.work(store, jobs, attempt))
    line = ["bench", "run", "--strategies", "nmc,slda", "--scenarios", "split:a.npz", "--tune-on", "split:b.npz"]
    line += ["--seeds", "1", "--trials", "2", "--out", "grid", "--json", "--scenario-set", "experiences=3"]
    line += ["--scenario-set", "split:b.npz.order=[5,4,3,2,1,0]"]
    cli.main(line, standalone_mode=False)
    found = Store(tmp_path / "grid")
    assert [len(found.result(job)["matrix"]) for job in found.jobs()] == [3, 3]
    assert [job.options for job in found.jobs()] == [{"experiences": 3}] * 2
    searched = Store(tmp_path / "grid" / "tuning").jobs()
    assert {job.scenario for job in searched} == {"split:b.npz"}
    assert all(job.options == {"experiences": 3, "order": [5, 4, 3, 2, 1, 0]} for job in searched)


def test_what_no_trial_found_settings_for_is_no_result(tmp_path, monkeypatch, capsys):
    """Run as they stand, its cells would say that their settings were searched."""
    pytest.importorskip("optuna")
    random, y = np.random.default_rng(0), np.arange(40) % 2
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", x_train=random.random((40, 5), dtype=np.float32), y_train=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "_local", lambda store, jobs, _, attempt, *__: workers.work(store, jobs, attempt))
    line = ["bench", "run", "--strategies", "naive", "--scenarios", "online:a.npz", "--tune-on", "online:b.npz"]
    line += ["--seeds", "1", "--trials", "2", "--out", "grid", "--json", "--scenario-set", "size=1"]
    with pytest.raises(SystemExit, match="1"):
        cli.main(line, standalone_mode=False)
    store = Store(tmp_path / "grid")
    failure = store.failure(store.jobs()[0])
    assert failure["kind"] == "failed"
    assert "no trial of its search gave a result; the first: " in failure["reason"]
    assert "1 samples cannot be split" in failure["reason"]


def test_what_is_held_out_of_a_permuted_stream_is_trained_on_in_no_experience():
    """The same samples come in each experience, in another order of their pixels."""
    stream = validation(scenario("permuted-digits"))
    sorted_pixels = [e.test.x.flatten(1).sort().values for e in stream]
    trained = {row.tobytes() for e in stream for row in e.train.x.flatten(1).sort().values.numpy()}
    assert all(torch.equal(sorted_pixels[0], other) for other in sorted_pixels)
    assert not {row.tobytes() for row in sorted_pixels[0].numpy()} & trained


def test_a_sibling_is_cut_as_the_scenario_is():
    job = Job(scenario="permuted-fmnist", strategy="naive", options={"experiences": 3})
    assert bench._sibling(job) == ("permuted-mnist10k", {"experiences": 3})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(plugins.names("strategy")) - {"nmc"}))  # nmc takes means: nothing to find
def test_a_search_moves_what_a_strategy_learns(name):
    pytest.importorskip("optuna")
    meant = "split-digits" if name == "icarl" else "permuted-digits"
    trials = tuning.trials(Job(scenario=meant, strategy=name), 2, on=None)
    first, second = (cell.run(trial).result["log_loss"] for trial in trials)
    assert first != second


def test_avalanche_is_searched_over_as_many_arguments_as_ours():
    for theirs, ours in {"EWC": "ewc", "SynapticIntelligence": "si", "MAS": "mas", "LwF": "lwf", "DER": "derpp",
                         "StreamingLDA": "slda"}.items():  # fmt: skip
        found, expected = tuning.SPACES[f"avalanche:{theirs}"].values(), tuning.SPACES[ours].values()
        assert [r.high / r.low for r in found] == pytest.approx([r.high / r.low for r in expected])


def test_the_first_experience_of_a_stream_without_boundaries_is_nothing_to_search_on():
    with pytest.raises(ConfigError, match="blurry:digits has no boundaries"):
        bench._refuse_without_boundaries(Job(scenario="blurry:digits", strategy="naive"), None)
    bench._refuse_without_boundaries(Job(scenario="split-digits", strategy="naive"), None)


def own(path, seed):
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 256, (24, 3, 3), dtype=np.uint8), np.arange(24) % 4
    np.savez(path, x_train=x, y_train=y, x_test=x[:8], y_test=y[:8])


def test_cells_of_changed_data_are_not_gone_on_with(tmp_path):
    """A file under the same name is other data once a sample in it is another: no mean may go over both."""
    path = tmp_path / "own.npz"
    own(path, 0)
    jobs = [Job(scenario=f"split:{path}", strategy="nmc", options={"experiences": 2}, seed=seed) for seed in (0, 1)]
    store = Store.create(tmp_path / "grid", jobs, {})
    workers.work(store, jobs[:1], "a")
    overlap.refuse_other_data(store, None)
    own(path, 1)
    with pytest.raises(ConfigError, match=r"cells of split:.*own\.npz that were run on other data"):
        overlap.refuse_other_data(store, None)
    path.unlink()
    overlap.refuse_other_data(store, None)  # cells that are not finished will fail, and say why


def test_the_best_trial_is_frozen_and_hashed():
    tried = [
        (Job(scenario="split-mnist10k", strategy="ewc", lr=lr, part="validation", label=f"trial-{i}"), result(score))
        for i, (lr, score) in enumerate([(0.1, 0.5), (0.2, 0.7), (0.3, 0.7)])
    ]
    frozen = tuning.settle(JOB, tried, "two-phase")
    assert (frozen.lr, frozen.seed, frozen.scenario) == (0.2, 3, "split-fmnist")
    assert frozen.protocol == "two-phase"
    record = frozen.tuned
    assert (record["trials"], record["score"], record["scenario"], record["flops"]) == (3, 0.7, "split-mnist10k", 30.0)
    other = tuning.settle(JOB, tried[:1], "two-phase")
    assert other.tuned["sha256"] != record["sha256"]
    with pytest.raises(ConfigError, match="no trial of ewc"):
        tuning.settle(JOB, [], "two-phase")


def test_every_searched_argument_exists():
    for name, space in tuning.SPACES.items():
        if ":" in name:  # of another library: only that knows its arguments
            continue
        compose.strategy(name, [f"{key}={low}" for key, (low, *_) in space.items()])


@pytest.mark.parametrize("name", tuning.SIBLINGS)
def test_siblings_are_scenarios_of_other_data(name):
    other, options = tuning.sibling(name)
    assert SCENARIOS[other].data != SCENARIOS[name].data
    assert SCENARIOS[other].make is SCENARIOS[name].make
    ours = {**SCENARIOS[name].options}
    assert {**SCENARIOS[other].options, **options} == ours


def test_a_scenario_without_sibling_says_what_to_do():
    with pytest.raises(ConfigError, match="--tune-on"):
        tuning.sibling("online-elec")
