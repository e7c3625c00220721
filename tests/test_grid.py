"""A grid's folder: jobs and results are what was written, failures are told apart, a changed job is run again."""

import html
import json
import math
import os
import sys
from dataclasses import replace

import pytest
import torch

from lifelong.bench import cell, peak, tables, workers
from lifelong.bench.compare import differences, versions
from lifelong.bench.job import REVISION, Job, revision
from lifelong.bench.spread import paired
from lifelong.bench.store import Store
from lifelong.commands import bench_report
from lifelong.commands.bench_progress import Lines
from lifelong.errors import ConfigError, DataError, LifelongError, Locked
from lifelong.learning.prequential import Prequential
from lifelong.models import build
from lifelong.streams.parts import from_data
from lifelong.streams.scenarios import class_incremental, scenario
from lifelong.types import Batch

pytestmark = pytest.mark.slow  # together too long for `make fast`

SMALL = Job(scenario="split-fmnist-small", strategy="naive", options={"experiences": 2}, epochs=1)
JOBS = [
    Job(scenario="split-fmnist-small", strategy=name, seed=seed, batch_size=128)
    for name in ("nmc", "trgp", "naive")
    for seed in (0, 1)
]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    store = Store.create(tmp_path_factory.mktemp("grid"), JOBS, {"protocol": "conventional"})
    workers.work(store, JOBS, "first")
    return store


def test_jobs_are_read_as_they_were_written(tmp_path):
    jobs = [replace(JOBS[0], settings=("a=1",), tuned={"trials": 3}, protocol="two-phase"), JOBS[1]]
    assert Store.create(tmp_path / "g", jobs, {}).jobs() == jobs
    with pytest.raises(ConfigError, match="twice"):
        Store.create(tmp_path / "h", [JOBS[0], JOBS[0]], {})
    with pytest.raises(ConfigError, match="no grid in"):
        Store(tmp_path).jobs()


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"protocol": "best"},
        {"part": "all"},
        {"flops": 0.0},
        {"lr": math.nan},
        {"lr": -1.0},
        {"momentum": 1.0},
        {"protocol": "two-phase"},
        {"memory": 0},
        {"rehearsals": 0},
    ],
)
def test_a_job_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError, match="got"):
        replace(JOBS[0], **wrong)


def test_any_other_field_is_another_job():
    seen = {JOBS[0].digest}
    for change in ({"lr": 0.1}, {"seed": 7}, {"settings": ("x=1",)}, {"flops": 1e9}, {"label": "t"}, {"epochs": 2}):
        seen.add(replace(JOBS[0], **change).digest)
    assert len(seen) == 7


@pytest.mark.slow
def test_what_is_meant_for_another_kind_of_stream_is_excluded_with_the_reason(grid):
    for job in JOBS[2:4]:
        failure = grid.failure(job)
        assert grid.result(job) is None
        assert failure["kind"] == "excluded"
        assert "meant for domain-il, task-il" in failure["reason"]


@pytest.mark.slow
def test_a_result_is_the_same_wherever_it_is_run(grid, tmp_path):
    again = cell.run(JOBS[0])
    assert json.loads(json.dumps(again.result)) == grid.result(JOBS[0])
    other = Store.create(tmp_path, JOBS, {})
    workers.work(other, JOBS, "x")
    assert differences(grid, other) == []


def test_finished_cells_are_never_run_again(grid, monkeypatch):
    monkeypatch.setattr(cell, "run", lambda *_: pytest.fail("run again"))
    workers.work(grid, [j for j in JOBS if grid.result(j)], "second")


def test_what_older_code_gave_is_shown_but_run_again(grid, tmp_path):
    store = Store.create(tmp_path, JOBS[:1], {})
    assert not store.settled(JOBS[0], "a")
    store.write(JOBS[0], grid.result(JOBS[0]), {})
    assert store.settled(JOBS[0], "a")
    store.write(JOBS[0], {**grid.result(JOBS[0]), "revision": 1}, {})
    assert store.result(JOBS[0]) and not store.settled(JOBS[0], "a")
    store.fail(JOBS[0], "failed", "out of luck", "a")
    assert store.settled(JOBS[0], "a") and store.result(JOBS[0]) is None


def test_a_changed_job_is_not_answered_by_an_old_result(grid):
    assert grid.result(replace(JOBS[0], lr=0.2)) is None


@pytest.mark.parametrize("damage", [b"", b'{"digest": "a', b"[]", b"null", b"{}", b"\xff\x00"])
def test_a_damaged_file_counts_as_not_there(grid, tmp_path, damage):
    store = Store.create(tmp_path, JOBS[:1], {})
    store.write(JOBS[0], grid.result(JOBS[0]), grid.cost(JOBS[0]))
    assert store.settled(JOBS[0], "a")
    for kind in ("cells", "failed", "costs"):
        store.path(kind, JOBS[0]).parent.mkdir(parents=True, exist_ok=True)
        store.path(kind, JOBS[0]).write_bytes(damage)
    assert store.result(JOBS[0]) is None
    assert store.failure(JOBS[0]) is None
    assert store.cost(JOBS[0]) == {}
    assert not store.settled(JOBS[0], "a")
    assert tables.cells(store)[0]["status"] == "missing"
    (tmp_path / "grid.json").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"grid\.json is"):
        store.jobs()


def test_a_strategy_whose_cells_changed_is_run_anew_alone(grid, tmp_path):
    ours = {**grid.result(JOBS[0]), "revision": REVISION}
    slda = replace(JOBS[0], strategy="slda")
    store = Store.create(tmp_path, [JOBS[0], slda], {})
    for job in (JOBS[0], slda):
        store.write(job, {**ours, "digest": job.digest}, {})
    assert store.settled(JOBS[0], "a")
    assert not store.settled(slda, "a")
    of = {name: revision(replace(slda, strategy=name)) for name in ("simplex+slda", "slda", "nmc")}
    assert of["simplex+slda"] == of["slda"] > of["nmc"] == REVISION
    tried = replace(slda, scenario="permuted-digits", part="validation", label="trial-0")
    assert revision(tried) == of["slda"] + 1


def test_all_strategies_have_a_turn_before_any_has_its_next():
    """A grid under way compares all of them, and its pace says how long it will take."""
    names = [("s", "naive", 0), ("s", "naive", 1), ("s", "ewc", 0), ("t", "naive", 0), ("s", "ewc", 1), ("s", "ewc", 2)]
    jobs = [Job(scenario=scenario, strategy=strategy, seed=seed) for scenario, strategy, seed in names]
    turns = [(job.scenario, job.strategy, job.seed) for job in workers.in_turns(jobs)]
    assert turns == [names[i] for i in (0, 2, 3, 1, 4, 5)]


def test_what_a_strategy_draws_follows_the_seed_of_its_cell():
    job = Job(scenario="split-digits", strategy="dkvb", part="first-task", seed=1)
    found = [cell.run(replace(job, settings=own)).result["log_loss"] for own in ((), ("seed=1",), ("seed=0",))]
    assert found[0] == found[1] != found[2]


def test_an_experience_that_nobody_tests_is_refused_before_training():
    """Its accuracies would be 0, and pull every mean down."""
    x, y = torch.rand(8, 3), torch.arange(8) % 4
    held = Batch.of(x[:4], torch.tensor([0, 1, 0, 1]), torch.arange(8, 12))
    stream = class_incremental(from_data(Batch.of(x, y, torch.arange(8)), held), 2)
    with pytest.raises(DataError, match=r"'classes-1' has no test sample of \[2, 3\]"):
        cell.untrained(build({"backbone": {"name": "identity", "inputs": [3]}, "head": {"name": "linear"}}), stream)


@pytest.mark.parametrize(("strategy", "backbone"), [("naive", "mlp"), ("gdumb", "mlp"), ("slda", "identity")])
def test_who_trains_a_network_is_given_one(strategy, backbone):
    """Also who freezes it first, as long as samples come."""
    job = Job(scenario="split-digits", strategy=strategy)
    assert cell._spec(job, scenario("split-digits"))["backbone"]["name"] == backbone
    told = cell._spec(replace(job, model_settings=("hidden=[5]",)), scenario("split-digits"))["backbone"]
    assert told.get("hidden") == ([5] if backbone == "mlp" else None)


def test_a_model_that_the_last_step_broke_is_no_result(monkeypatch):
    """Without a later loss to refuse it would be right about everything of its first class."""
    job = Job(scenario="split-digits", strategy="naive", batch_size=2000, options={"experiences": 1})

    def broken(self, model):
        for p in model.parameters():
            p.grad.fill_(math.nan)

    monkeypatch.setattr("lifelong.learning.Strategy.project", broken)
    with pytest.raises(DataError, match="ends with answers that are not numbers"):
        cell.run(job)


def test_other_data_that_stood_in_are_said_in_the_row(grid, tmp_path):
    job = replace(JOBS[0], scenario="split-fmnist")
    store = Store.create(tmp_path, [job], {})
    store.write(job, {**grid.result(JOBS[0]), "digest": job.digest}, {})
    assert "measured on split-fmnist-small" in tables.standings(store)[0]["note"]
    assert tables.standings(grid)[0]["note"] == ""


def test_a_row_says_what_its_mean_is_over(grid, tmp_path):
    """Data that changed between two cells, cells of an older version, budgets that ended a run."""
    mine = [job for job in JOBS if job.strategy == "nmc"]
    store = Store.create(tmp_path, mine, {})
    first, second = (grid.result(job) for job in mine)
    for job, found in zip(mine, (first, second), strict=True):
        store.write(job, found, {})
    assert tables.standings(store)[0]["note"] == ""
    other = {**second["signature"], "data": {**second["signature"]["data"], "sha256": "0" * 64}}
    spent = {"budget_spent": True, "stopped_by": "memory", "counters": {**second["counters"], "samples": 1200}}
    store.write(mine[1], {**second, "signature": other, "revision": 1, **spent}, {})
    note = tables.standings(store)[0]["note"]
    assert "a mean over different data (000000000000, " in note
    assert "1 of its cells are an older version's" in note
    assert "budget used up (memory) in 1 of 2 runs, after 1,200 samples" in note
    bench_report.write(store)
    assert note in html.unescape((tmp_path / "report.html").read_text())


def test_trials_of_a_search_are_no_seeds(grid, tmp_path, capsys):
    tried = [replace(JOBS[0], label=f"trial-{i}", part="validation") for i in range(2)]
    store = Store.create(tmp_path, tried, {})
    found = grid.result(JOBS[0])
    named = {**found["signature"], "name": f"{JOBS[0].scenario}-validation"}
    for job in tried:
        store.write(job, {**found, "digest": job.digest, "signature": named}, {})
    rows = tables.standings(store)
    assert [(row["strategy"], row["seeds"], row["note"]) for row in rows] == [
        ("nmc trial-0", 1, ""),
        ("nmc trial-1", 1, ""),
    ]
    bench_report.write(store)
    bench_report.show(tmp_path, as_json=False)
    assert "protocol: trials of a search" in capsys.readouterr().out
    assert "conventional" not in (tmp_path / "report.html").read_text()


def test_a_folder_is_one_runs_alone(tmp_path):
    with Store.alone(tmp_path / "grid"), pytest.raises(Locked, match="another --out"):
        Store.alone(tmp_path / "grid")
    Store.alone(tmp_path / "grid").close()
    (tmp_path / "file").write_text("")
    for made in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="a file is in the way"):
            Store.alone(made)


def test_the_peak_is_that_of_the_cell_and_not_of_its_process():
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this kernel forgets no peak")
    large = torch.ones(30_000_000)
    before = peak.peak_bytes()
    del large
    peak.begin()
    assert peak.peak_bytes() < before - 60_000_000
    large = torch.ones(30_000_000)
    assert peak.peak_bytes() > before - 60_000_000
    del large


def test_what_failed_is_tried_again_in_the_next_attempt_only(tmp_path, monkeypatch):
    calls = []

    def broken(job, root):
        calls.append(job.key)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(cell, "run", broken)
    store = Store.create(tmp_path, JOBS[:2], {})
    for attempt in ("a", "a", "b"):
        workers.work(store, JOBS[:2], attempt)
    assert len(calls) == 4
    assert store.failure(JOBS[0])["reason"] == "RuntimeError: out of luck"


def test_another_job_that_fails_leaves_a_finished_cell_alone(grid, tmp_path):
    store = Store.create(tmp_path, JOBS[:1], {})
    store.write(JOBS[0], grid.result(JOBS[0]), {})
    store.fail(replace(JOBS[0], lr=1.0), "failed", "it diverged", "a")
    assert store.result(JOBS[0]) == grid.result(JOBS[0])
    store.fail(JOBS[0], "failed", "of newer code", "a")
    assert store.result(JOBS[0]) is None


def test_a_cell_that_somebody_runs_is_left_to_him(grid, tmp_path, monkeypatch):
    store = Store.create(tmp_path, JOBS[:1], {})
    monkeypatch.setattr(cell, "run", lambda *_: pytest.fail("ran what was taken"))
    with store.claim(JOBS[0]):
        with pytest.raises(Locked):
            store.claim(JOBS[0])
        workers.work(store, JOBS[:1], "a")


def test_chances_are_corrected_for_all_pairs_since_the_best_is_one_of_them(grid, tmp_path):
    """By hand: three pairs, so the smallest p counts three times; also where the best is in it."""
    scores = {"naive": (0.5, 0.6, 0.7), "nmc": (0.51, 0.59, 0.71), "slda": (0.8, 0.91, 1.0)}
    jobs = [replace(JOBS[0], strategy=name, seed=seed) for name in scores for seed in range(3)]
    store = Store.create(tmp_path, jobs, {})
    for job in jobs:
        found = grid.result(JOBS[0])
        measured = {**found["metrics"], "acc_final": scores[job.strategy][job.seed]}
        store.write(job, {**found, "digest": job.digest, "metrics": measured}, {})
    best, *others = tables.standings(store)
    assert best["strategy"] == "slda"
    plain = {row["strategy"]: paired(row["values"], best["values"]) for row in others}
    found = {row["strategy"]: row["p"] for row in others}
    less, more = sorted(plain, key=plain.get)
    assert found[less] == pytest.approx(3 * plain[less])
    assert found[more] == pytest.approx(max(2 * plain[more], found[less]))


def test_the_best_comes_first_and_others_are_tested_against_it(grid):
    rows = tables.standings(grid)
    assert [row["strategy"] for row in rows] == ["nmc", "naive", "trgp"]
    assert math.isnan(rows[0]["p"])
    assert 0 <= rows[1]["p"] <= 1
    assert rows[2]["excluded"] == 2
    assert all(row["protocol"] == "conventional" for row in rows)


@pytest.mark.slow
def test_a_budget_stops_learning_and_says_so():
    free = cell.run(SMALL).result
    short = cell.run(replace(SMALL, flops=free["flops"] / 4)).result
    assert not free["budget_spent"]
    assert short["budget_spent"]
    assert free["flops"] / 4 <= short["flops"] < free["flops"] / 2
    assert short["counters"]["steps"] < free["counters"]["steps"] / 2


def test_a_budget_of_rehearsals_stops_at_it():
    """A step may be begun below it: one batch more, at most."""
    found = cell.run(replace(SMALL, strategy="replay", rehearsals=500)).result
    assert found["stopped_by"] == "rehearsals"
    assert 500 <= found["counters"]["rehearsed"] < 500 + SMALL.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["replay", "derpp"])
def test_a_budget_of_memory_makes_the_memory_fit(strategy):
    """As large as fits: never over it, and at least nine tenths of it are used."""
    found = cell.run(replace(SMALL, strategy=strategy, memory=400_000)).result
    assert not found["budget_spent"]
    assert 0.9 * 400_000 < found["bytes"]["strategy"] <= 400_000


@pytest.mark.slow
def test_what_outgrows_its_memory_stops():
    """EWC keeps two numbers for each weight: after the first experience it is over the budget."""
    whole = cell.run(replace(SMALL, strategy="ewc")).result
    found = cell.run(replace(SMALL, strategy="ewc", memory=10_000)).result
    assert found["stopped_by"] == "memory"
    assert found["counters"]["steps"] == whole["counters"]["steps"] // 2
    named = cell.run(replace(SMALL, strategy="replay", settings=("capacity=500",), memory=10_000)).result
    assert named["stopped_by"] == "memory"


def test_budgets_that_say_nothing_leave_the_digest_of_a_job_alone():
    assert not {"memory", "rehearsals"} & set(SMALL.plain())
    assert replace(SMALL, memory=10).digest != SMALL.digest
    assert Job.of(replace(SMALL, memory=10).plain()).memory == 10


@pytest.mark.slow
def test_tuning_parts_never_see_test_samples():
    whole = cell.run(SMALL).result
    held = cell.run(replace(SMALL, part="validation", label="v")).result
    first = cell.run(replace(SMALL, part="first-task", label="f")).result
    assert "test" in whole["signature"]["counts"]
    assert "test" not in held["signature"]["counts"]
    assert len(first["matrix"]) == 1
    assert len(held["matrix"]) == len(whole["matrix"]) == 2


@pytest.mark.slow
def test_the_report_says_how_many_trials_of_a_search_ended(tmp_path):
    """Three were asked for; one gave nothing, and has lost."""
    pytest.importorskip("jinja2")
    told = {"scenario": "s", "trials": 2, "score": 0.5, "median_score": 0.4, "flops": 1.0, "sha256": "0" * 64}
    job = replace(SMALL, strategy="nmc", protocol="two-phase", tuned=told)
    store = Store.create(tmp_path, [job], {"trials": 3})
    workers.work(store, [job], "first")
    bench_report.write(store)
    assert "<td>2 of 3</td>" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_report_says_everything_in_one_file(grid):
    pytest.importorskip("jinja2")
    bench_report.write(grid)
    page = (grid.folder / "report.html").read_text()
    assert page.count("protocol: conventional") >= page.count("<caption>") - 2 * page.count("(conventional)") > 0
    assert '<td class="word">excluded</td>' in page
    assert "https://" not in page.replace("https://www.w3.org", "")  # nothing is fetched
    for job in JOBS[:1]:
        assert grid.result(job)["signature"]["data"]["sha256"] in page
    csv = (grid.folder / "results.csv").read_text().splitlines()
    assert len(csv) == 1 + len(JOBS)
    found = json.loads((grid.folder / "results.json").read_text())
    assert {row["protocol"] for row in found["standings"]} == {"conventional"}


@pytest.mark.slow
def test_parquet_holds_the_same_rows(grid):
    parquet = pytest.importorskip("pyarrow.parquet")
    bench_report.write(grid)
    rows = parquet.read_table(grid.folder / "results.parquet").to_pylist()
    assert [(r["strategy"], r["seed"], r["status"]) for r in rows] == [
        (j.strategy, j.seed, "excluded" if j.strategy == "trgp" else "finished") for j in JOBS
    ]


@pytest.mark.slow
def test_differences_are_named(grid, tmp_path):
    other = Store.create(tmp_path, [replace(JOBS[0], batch_size=64), *JOBS[1:5]], {})
    workers.work(other, other.jobs(), "a")
    changed = grid.result(JOBS[4])
    changed["metrics"]["acc_final"] += 0.25
    other.write(JOBS[4], changed, {})
    rows = {row["cell"]: row for row in differences(grid, other)}
    assert rows[JOBS[0].key]["what"] == "other settings: batch_size"
    assert rows[JOBS[4].key]["difference"] == 0.25
    assert rows[JOBS[5].key]["what"].startswith("only in")
    assert set(rows) == {JOBS[0].key, JOBS[4].key, JOBS[5].key}


def test_grids_with_and_without_budgets_are_compared(grid, tmp_path):
    """A budget that says nothing is no field of a plain job."""
    other = Store.create(tmp_path, [replace(job, memory=10**6, lr=0.2) for job in JOBS], {})
    for one, two in ((grid, other), (other, grid)):
        assert {row["what"] for row in differences(one, two)} == {"other settings: lr, memory"}


def test_grids_without_a_common_result_are_not_called_the_same(grid, tmp_path, capsys):
    empty = Store.create(tmp_path, JOBS, {})
    assert differences(empty, empty) == []
    assert not bench_report.compare(tmp_path, tmp_path, as_json=False)
    assert "nothing was compared" in capsys.readouterr().out
    assert bench_report.compare(grid.folder, grid.folder, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"identical": True, "compared": 4, "differences": []}


def test_versions_that_differ_are_told(grid, tmp_path):
    other = Store.create(tmp_path, JOBS[:1], {})
    other.write(JOBS[0], grid.result(JOBS[0]), {**grid.cost(JOBS[0]), "torch": "1.0"})
    assert versions(grid, other) == {"torch": (grid.cost(JOBS[0])["torch"], "1.0")}


@pytest.mark.slow
def test_a_stream_without_boundaries_is_predicted_then_learned():
    job = Job(scenario="online-fmnist-small", strategy="nmc", options={"size": 100})
    found = cell.run(job).result
    assert set(found["metrics"]) == {"prequential", "majority", "no_change"}
    assert found["metrics"]["no_change"] > 0.95  # class after class
    assert found["online"]["samples"] == found["signature"]["counts"]["train"]
    assert found["online"]["curve"][-1][0] == found["online"]["samples"]


def test_prequential_baselines_by_hand():
    answers, found = Prequential(), []
    for label in ["a", "b", "b", "b", "a"]:
        before = answers.majority, answers.no_change
        answers.add([None], [label])
        found.append((answers.majority > before[0], answers.no_change > before[1]))
    #        nothing known   maj a, last a   maj a, last b   maj b, last b  maj b, last b
    assert found == [(False, False), (False, False), (False, True), (True, True), (False, False)]


def test_workers_that_never_start_are_an_error_and_no_loop(tmp_path):
    store = Store.create(tmp_path, JOBS[:2], {})
    with pytest.raises(LifelongError, match="before they took a cell"):
        workers.crew(store, JOBS[:2], 1, "a", [sys.executable, "-c", "raise SystemExit(4)"], os.environ, print)


@pytest.mark.e2e
def test_a_worker_that_dies_costs_its_cell_only(tmp_path):
    """A cell at which two processes died is reported with the signal, one that died by chance is run anew."""
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os, sys, signal\n"
        "from pathlib import Path\n"
        "from lifelong.bench import cell, workers\n"
        "from lifelong.bench.store import Store\n"
        "run = cell.run\n"
        "def dies(job, root=None):\n"
        "    once = Path(sys.argv[1]) / 'once'\n"
        "    if job.seed == 0 or not once.exists():\n"
        "        once.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return run(job, root)\n"
        "cell.run = dies\n"
        "store = Store(Path(sys.argv[1]))\n"
        "workers.work(store, store.jobs(), 'a')\n"
    )
    jobs = JOBS[1::-1]  # by chance it dies at seed 1, and then always at seed 0
    store = Store.create(tmp_path / "grid", jobs, {})
    told = []
    command = [sys.executable, str(killer), str(store.folder)]
    workers.crew(store, jobs, 1, "a", command, os.environ, lambda *n: told.append(n))
    assert store.failure(JOBS[0])["reason"] == "its process ended with code -9"
    assert store.result(JOBS[1]) is not None
    assert told[-1] == (2, 2)


def test_a_log_file_gets_a_line_a_minute_with_what_is_left():
    """By hand: 10 cells were there, 2 more took 2 minutes, so 6 more take 6."""
    now, lines = [0.0], []
    told = Lines("grid", lines.append, lambda: now[0])
    for at, done in ((0.0, 10), (30.0, 11), (120.0, 12), (130.0, 13), (200.0, 18), (201.0, 18)):
        now[0] = at
        told.tell(done, 18)
    assert lines == ["grid: 12 of 18 cells, about 6 min left", "grid: 18 of 18 cells"]


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_ray_cluster_gives_the_same_files(grid, tmp_path):
    pytest.importorskip("ray")
    from lifelong.adapters import ray as cluster

    store = Store.create(tmp_path, JOBS, {})
    cluster.run(store, JOBS, "local", "a", None)
    assert differences(grid, store) == []
    assert store.failure(JOBS[2])["kind"] == "excluded"
