"""Avalanche's strategies as rows of our table: same samples and weights in, its own measures beside ours."""

import json

import numpy as np
import pytest
import torch

from lifelong.bench import cell, metrics, tables, workers
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.commands import bench, bench_report
from lifelong.errors import DataError, NotFound, UnknownName
from lifelong.streams.scenarios import scenario

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised while avalanche and what it imports are imported
]
pytest.importorskip("avalanche", reason="pip install 'lifelong[bench]'", exc_type=ImportError)
SHORT = {"scenario": "split-digits", "epochs": 1, "lr": 0.05}


def test_a_row_is_measured_as_ours_and_agrees_with_what_avalanche_prints():
    """Last row of the matrix, forgetting and backward transfer: the same numbers under both names."""
    found = cell.run(Job(strategy="avalanche:Replay", settings=("mem_size=50",), **SHORT)).result
    printed = found["avalanche"]
    of = {int(k[-3:]): v for k, v in printed.items() if k.startswith("Top1_Acc_Exp/")}
    assert [of[i] for i in range(5)] == pytest.approx(found["matrix"][-1])
    assert printed["StreamForgetting/eval_phase/test_stream"] == pytest.approx(
        found["metrics"]["forgetting_first_last"]
    )
    assert printed["StreamBWT/eval_phase/test_stream"] == pytest.approx(found["metrics"]["bwt_gem"])
    assert found["bytes"]["strategy"] == 50 * (64 * 4 + 8) + 50 * 4  # samples, and the reservoir's number of each
    assert found["counters"]["samples"] == 1437
    assert found["counters"]["rehearsed"] > 0
    assert "when an experience has ended" in found["note"]
    json.dumps(found)


def test_a_row_is_the_same_twice_and_global_states_stay():
    job = Job(strategy="avalanche:Naive", seed=3, **SHORT)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = cell.run(job).result
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()
    torch.rand(5)
    assert cell.run(job).result == first


def test_plain_training_costs_the_same_in_both_but_for_columns_that_ours_grows_later():
    """Per sample and weight: 2 operations forward, 2 for weights, 2 for inputs but of the first layer."""
    sizes = ("hidden=[32]", "features=16")
    found = cell.run(Job(strategy="avalanche:Naive", model="mlp", model_settings=sizes, **SHORT)).result
    layers = [(64, 32), (32, 16), (16, 10)]
    each = sum(6 * i * o for i, o in layers) - 2 * 64 * 32
    assert found["flops"] == pytest.approx(1437 * each)


def test_synaptic_intelligence_is_plain_training_there():
    """The note says so; the day it is mended, this fails and the note goes."""
    plain, si = (cell.run(Job(strategy=f"avalanche:{n}", **SHORT)).result for n in ("Naive", "SynapticIntelligence"))
    assert plain["matrix"] == si["matrix"]


def test_a_budget_stops_a_row():
    free = cell.run(Job(strategy="avalanche:Naive", **SHORT)).result
    short = cell.run(Job(strategy="avalanche:Naive", flops=free["flops"] / 3, **SHORT)).result
    assert short["budget_spent"]
    assert free["flops"] / 3 <= short["flops"] < free["flops"] / 2
    assert short["stopped_by"] == "flops"
    assert 0 < short["counters"]["samples"] < free["counters"]["samples"] / 2
    assert short["counters"]["rehearsed"] == 0


@pytest.mark.parametrize(
    ("strategy", "settings", "says"),
    [
        ("avalanche:Relpay", (), "did you mean 'Replay'"),
        ("avalanche:Replay", ("memsize=3",), "did you mean 'mem_size'"),
    ],
)
def test_unknown_names_get_the_nearest(strategy, settings, says):
    with pytest.raises(UnknownName, match=says):
        cell.run(Job(strategy=strategy, settings=settings, **SHORT))


def test_ours_and_theirs_stand_in_one_table_with_the_reason_beside(tmp_path, capsys):
    jobs = bench._grid(
        ["avalanche:StreamingLDA", "slda"], {"split-digits": {}}, 2,
        {"settings": ["avalanche:StreamingLDA.shrinkage_param=0.01"], "epochs": 1, "lr": 0.05},
    )  # fmt: skip
    store = Store.create(tmp_path, jobs, {"protocol": "conventional"})
    workers.work(store, jobs, "a")
    rows = {row["strategy"]: row for row in tables.standings(store)}
    ours, theirs = (
        rows["slda"]["metrics"]["acc_final"].mean,
        rows["avalanche:StreamingLDA"]["metrics"]["acc_final"].mean,
    )
    assert ours == pytest.approx(theirs, abs=0.02)
    bench_report.write(store)
    assert "ours grow" in (tmp_path / "report.html").read_text()
    bench_report.show(tmp_path, as_json=False)
    assert "avalanche:StreamingLDA: " in capsys.readouterr().out
    with pytest.raises(UnknownName, match="library of strategies"):
        bench._refuse("avalanch:Naive", ())


def test_our_metrics_of_a_run_of_avalanche():
    """The matrix is read off its evaluations, in the order of experiences, eleven or more included."""
    from lifelong.adapters.classics import matrix_of

    random = np.random.default_rng(0)
    R = random.random((12, 12)).round(3)
    found = [{f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{j:03d}": v for j, v in enumerate(row)} for row in R]
    assert matrix_of(found).summary()["bwt_gem"] == pytest.approx(metrics.bwt_gem(R))
    with pytest.raises(DataError, match="use accuracy_metrics"):
        matrix_of([{"Loss": 1.0}])


def test_a_benchmark_of_avalanche_is_a_scenario_by_name(tmp_path):
    """Its own cut of images in torchvision's layout; with the same classes in the same order as it has itself."""
    pytest.importorskip("torchvision")
    with pytest.raises(NotFound, match="FashionMNIST is not in"):
        scenario("avalanche:SplitFMNIST", tmp_path)
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (100, 28, 28), dtype=np.uint8), np.arange(100, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        head = np.array([100, 28, 28], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + head + x.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + head[:4] + y.tobytes())
    stream = scenario("avalanche:SplitFMNIST", tmp_path, 1)
    assert (len(stream), stream.kind, stream.name) == (5, "class-il", "avalanche:SplitFMNIST")
    assert sorted(label for e in stream for label in e.classes) == list(range(10))
    assert [len(e.train) for e in stream] == [20] * 5
    assert stream.signature["data"]["sha256"] == scenario("split:torchvision.FashionMNIST", tmp_path).data["sha256"]
    two = scenario("avalanche:SplitFMNIST", tmp_path, 1, n_experiences=2, shuffle=False)
    assert [e.classes for e in two] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    with pytest.raises(UnknownName, match="did you mean 'SplitFMNIST'"):
        scenario("avalanche:SplitFMNST", tmp_path)
    found = cell.run(Job(scenario="avalanche:SplitFMNIST", strategy="nmc"), tmp_path).result
    assert len(found["matrix"]) == 5
