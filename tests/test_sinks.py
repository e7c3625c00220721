"""A grid is read back, by the libraries' own readers, out of what was written for them."""

import sys

import pytest

from lifelong.adapters import sinks
from lifelong.bench import workers
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.errors import ConfigError, Unavailable, UnknownName

JOBS = [
    Job(scenario="split-digits", strategy="nmc"),
    Job(scenario="online:digits", strategy="nmc", options={"size": 100}),
    Job(scenario="split-digits", strategy="trgp"),  # is excluded, so there is nothing to send
]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    pytest.importorskip("sklearn")
    store = Store.create(tmp_path_factory.mktemp("grid"), JOBS, {})
    workers.work(store, JOBS, "a")
    return store


def ends(grid):
    return {job.key: grid.result(job)["metrics"] for job in JOBS[:2]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its protocol buffers
def test_tensorboard_reads_the_stream_and_the_end(grid, tmp_path):
    pytest.importorskip("tensorboard")
    assert sinks.send(grid, f"tensorboard:{tmp_path}") == 2
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for key, found in ends(grid).items():
        read = EventAccumulator(str(tmp_path / key)).Reload()
        for name, value in found.items():
            assert read.Scalars(f"end/{name}")[0].value == pytest.approx(value)
    (row, *_) = grid.result(JOBS[0])["matrix"]
    seen = EventAccumulator(str(tmp_path / JOBS[0].key)).Reload().Scalars("stream/acc_seen")
    assert [point.step for point in seen] == [0, 1, 2, 3, 4]
    assert seen[0].value == pytest.approx(row[0])
    assert seen[-1].value == pytest.approx(found_final(grid), abs=1e-6)


def found_final(grid):
    return grid.result(JOBS[0])["metrics"]["acc_final"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_reads_parameters_and_metrics(grid, tmp_path):
    pytest.importorskip("mlflow")
    assert sinks.send(grid, f"mlflow:{tmp_path}") == 2
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tmp_path.as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("split-digits nmc").experiment_id])
    assert run.data.metrics["acc_final"] == pytest.approx(found_final(grid))
    assert run.data.params["digest"] == JOBS[0].digest
    assert [m.step for m in client.get_metric_history(run.info.run_id, "stream_acc_seen")] == [0, 1, 2, 3, 4]


@pytest.mark.e2e  # starts its own process
@pytest.mark.filterwarnings("ignore")  # its own
def test_wandb_writes_without_a_network(grid, tmp_path):
    pytest.importorskip("wandb")
    assert sinks.send(grid, f"wandb:{tmp_path}") == 2
    files = list(tmp_path.rglob("*.wandb"))
    assert len(files) == 2
    assert any(JOBS[0].digest.encode() in file.read_bytes() for file in files)


def test_what_is_no_sink_is_said_before_anything_is_run():
    with pytest.raises(ConfigError, match=r"as KIND:FOLDER with KIND one of tensorboard, wandb, mlflow"):
        sinks.parted("tensorboard")
    with pytest.raises(UnknownName, match="did you mean 'tensorboard'"):
        sinks.parted("tensorbord:x")


@pytest.mark.parametrize(("kind", "module"), [("wandb", "wandb"), ("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch, kind, module):
    for loaded in [
        name for name in sys.modules if name.partition(".")[0] == module or "torch.utils.tensorboard" in name
    ]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    store = Store.create(tmp_path / "g", JOBS[:1], {})
    with pytest.raises(Unavailable, match=f"needs {sinks.LIBRARY[kind]}: pip install"):
        sinks.send(store, f"{kind}:{tmp_path}")
