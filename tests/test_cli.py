"""The command line: what it prints, what it writes, and one line for each error."""

import json
import sys

import pytest

from lifelong import cli, plugins
from lifelong.commands import compat
from lifelong.streams.scenarios import SCENARIOS

pytestmark = pytest.mark.slow  # together too long for `make fast`

TRAIN = ["train", "--scenario", "split-fmnist-small", "--strategy", "replay", "--set", "capacity=100"]
SMALL = ["--model-set", "hidden=[8]", "--epochs", "1", "--allow-major", "--json"]


@pytest.fixture
def lifelong(monkeypatch, capsys):
    """Run a command line; return exit code, what was printed and what was complained about."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lifelong", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder in which a small run has published versions."""
    folder = tmp_path_factory.mktemp("trained")
    words = [*TRAIN, *SMALL, "--run", str(folder / "run"), "--registry", str(folder / "registry")]
    before, sys.argv = sys.argv, ["lifelong", *words]
    try:
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    finally:
        sys.argv = before
    return folder


def test_strategies_and_scenarios_are_listed_for_machines_and_people(lifelong):
    _, out, _ = lifelong("strategies", "--json")
    assert [row["name"] for row in json.loads(out)] == plugins.names("strategy")
    _, out, _ = lifelong("scenarios", "--json")
    assert [row["name"] for row in json.loads(out)] == list(SCENARIOS)
    for words in (["strategies"], ["scenarios"], ["data", "list"]):
        code, out, _ = lifelong(*words)
        assert code == 0
        assert "┃" in out or "|" in out


def test_data_list_says_where_the_packaged_set_is(lifelong):
    _, out, _ = lifelong("data", "list", "--json")
    found = {row["name"]: row for row in json.loads(out)}

    assert found["fashion-mnist-small"]["found"]
    assert found["fashion-mnist-small"]["counts"] == {"train": 8000, "test": 2000}
    code, out, _ = lifelong("data", "get", "fashion-mnist-small", "--json")
    assert code == 0
    assert len(json.loads(out)["sha256"]) == 64


def test_check_prints_each_law_and_fails_if_one_is_broken(lifelong, monkeypatch):
    code, out, _ = lifelong("check", "replay", "--json")
    assert code == 0
    assert {row["outcome"] for row in json.loads(out)} == {"holds"}
    from lifelong import checks

    monkeypatch.setitem(checks.LAWS, "deterministic", lambda make: (_ for _ in ()).throw(AssertionError("no")))
    code, out, _ = lifelong("check", "replay", "--json")
    assert code == 1


def test_train_publishes_and_a_second_call_changes_nothing(lifelong, trained):
    words = [*TRAIN, *SMALL, "--run", trained / "run", "--registry", trained / "registry"]
    before = sorted((trained / "registry" / "events").iterdir())
    code, out, _ = lifelong(*words)
    said = json.loads(out)

    assert code == 0
    assert len(said["matrix"]) == 5
    assert {"acc_final", "bwt_gem", "forgetting_chaudhry"} <= set(said["metrics"])
    assert "accuracy" not in said["metrics"]
    assert before == sorted((trained / "registry" / "events").iterdir())


def test_registry_commands(lifelong, trained):
    root = trained / "registry"
    _, out, _ = lifelong("registry", "list", root, "--json")
    listed = json.loads(out)
    versions = [v["version"] for v in listed["versions"]]
    assert listed["current"] == versions[-1]
    levels = [v["level"] for v in listed["versions"]]
    assert levels[0] == "minor"
    assert set(levels[1:]) == {"major"}  # naive rehearsal under --allow-major, see SMALL
    assert all("MAJOR" in e["why"] for e in listed["events"] if e["kind"] == "publish" and e["version"] > versions[0])
    _, out, _ = lifelong("registry", "show", root, versions[0], "--json")
    assert json.loads(out)["manifest"]["labels"] == ["T-shirt/top", "Trouser"]
    code, out, _ = lifelong("registry", "rollback", root, "--why", "a test")
    assert (code, out.strip()) == (0, f"version {versions[-2]} is live again")
    code, out, _ = lifelong("registry", "promote", root, versions[-1])
    assert code == 0
    code, _, _ = lifelong("registry", "verify", root)
    assert code == 0
    for words in (["registry", "list", root], ["registry", "show", root, versions[0]]):
        code, out, _ = lifelong(*words)
        assert code == 0
        assert "forgetting" in out


def test_compat_prints_the_matrix_of_all_versions(lifelong, trained):
    code, out, _ = lifelong("compat", trained / "registry", "--json")
    said = json.loads(out)

    assert code == 0
    assert [len(row) for row in said["matrix"]] == list(range(1, len(said["versions"]) + 1))
    assert {"ac_strict", "aa", "bc", "fc"} <= set(said)
    code, out, _ = lifelong("compat", trained / "registry", "--measure", "recall_at_1")
    assert code == 0
    assert "recall_at_1" in out
    assert "C[t, k]" in out
    lines = [line.split("│")[1:] for line in out.splitlines() if line.startswith("│") and "v" in line.split("│")[1]]
    shown = [[float(cell.strip(" !")) for cell in line[1:] if cell.strip()] for line in lines]
    assert [len(row) for row in shown] == [len(row) for row in said["matrix"]]


def test_compat_refuses_other_data_of_the_same_name(lifelong, trained, monkeypatch):
    facts = compat.DataSet.facts
    monkeypatch.setattr(compat.DataSet, "facts", lambda self: {**facts(self), "sha256": "0" * 64})
    code, _, err = lifelong("compat", trained / "registry", "--json")
    assert code == 3
    assert "is other data here (sha256 000000000000)" in err


def test_compat_embeds_the_images_once_for_each_version(lifelong, trained, monkeypatch):
    """T extractions and not T^2, whatever is measured."""
    calls, plain = [], compat.outputs
    monkeypatch.setattr(compat, "outputs", lambda model, x: calls.append(len(x)) or plain(model, x))
    for words in ([], ["--measure", "recall_at_5"], ["--measure", "recall_at_1", "--gallery", "templates"]):
        calls.clear()
        code, out, _ = lifelong("compat", trained / "registry", "--json", *words)
        assert (code, len(calls), len(set(calls))) == (0, len(json.loads(out)["versions"]), 1)


def test_compat_draws_the_matrix(lifelong, trained, tmp_path):
    """A PNG of a size, and the same numbers beside it."""
    code, out, _ = lifelong("compat", trained / "registry", "--picture", tmp_path / "new" / "c.png", "--json")
    assert code == 0
    assert (tmp_path / "new" / "c.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert json.loads(out)["measure"] == "map"


def test_compat_says_what_it_cannot_measure(lifelong, trained):
    for words, said in (
        (["--measure", "recall"], "did you mean 'recall_at_5'"),
        (["--gallery", "template"], "did you mean 'templates'"),
        (["--gallery", "templates"], "use --measure recall_at_1"),
    ):
        code, _, err = lifelong("compat", trained / "registry", *words)
        assert code == 2
        assert said in err


def test_a_damaged_version_is_found_and_named(lifelong, trained, tmp_path):
    import shutil

    root = tmp_path / "registry"
    shutil.copytree(trained / "registry", root)
    weights = root / "versions" / "000001" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, _, err = lifelong("registry", "verify", root)

    assert code == 5
    assert "damaged: version 1" in err
    code, _, err = lifelong("registry", "promote", root, 1)
    assert code == 5
    assert "weights.safetensors" in err


@pytest.mark.slow
def test_bench_prints_mean_and_spread_and_its_protocol(lifelong, tmp_path):
    words = ["bench", "run", "--protocol", "conventional", "--strategies", "naive,nmc", "--epochs", "1"]
    small = ["--scenarios", "split-fmnist-small"]
    code, out, _ = lifelong(*words, *small, "--seeds", "2", "--out", tmp_path / "bench")
    cells = json.loads((tmp_path / "bench" / "results.json").read_text())["cells"]

    assert code == 0
    assert "conventional" in out
    assert [(c["strategy"], c["seed"]) for c in cells] == [("naive", 0), ("naive", 1), ("nmc", 0), ("nmc", 1)]
    assert cells[2]["acc_final"] > cells[0]["acc_final"]
    missing = ["--scenarios", "split-fmnist", "--data-root", tmp_path / "nowhere"]
    again = lifelong(*words, *missing, "--seeds", "1", "--out", tmp_path / "again")
    assert again[0] == 1
    assert "naive failed, 1 seeds" in again[1]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["train", "--scenario", "split-fmnst", "--run", "x"], 2, "did you mean 'split-fmnist'"),
        (["train", "--strategy", "powrlaw", "--scenario", "split-fmnist-small", "--run", "x"], 2, "powerlaw"),
        (["train", "--scenario", "online-fmnist-small", "--strategy", "powerlaw", "--run", "x"], 2, "needs boundaries"),
        (["train", "--scenario", "split-fmnist-small", "--model", "mpl", "--run", "x"], 2, "did you mean 'mlp'"),
        (["train", "--scenario", "split-fmnist-small", "--device", "cuda:99", "--run", "x"], 2, "use cpu"),
        (["train", "--scenario", "split-fmnist-small", "--lr", "-1", "--run", "x"], 2, "lr > 0"),
        (["train", "--scenario", "split-fmnist-small", "--optimizer", "sdg", "--run", "x"], 2, "did you mean 'sgd'"),
        (["train", "--scenario", "split-fmnist", "--data-root", "nowhere", "--run", "x"], 4, "nowhere"),
        (["train", "--scenario", "split-fmnist-small", "--scenario-set", "order=3", "--run", "x"], 2, "order"),
        (["train", "--scenario", "blurry-fmnist-small", "--scenario-set", "size=[]", "--run", "x"], 2, "cannot be cut"),
        (["train", "--scenario", "split-digits", "--scenario-set", "seed=3", "--run", "x"], 2, "'seed'; choose one of"),
        (["train", "--scenario", "split-digits", "--scenario-set", "experiences=two", "--run", "x"], 2, "got 'two'"),
        (["train", "--scenario", "rotated-digits", "--scenario-set", "angles=two", "--run", "x"], 2, "cannot be cut"),
        (["train", "--scenario", "permuted-digits", "--scenario-set", "task_ids=no", "--run", "x"], 2, "true or false"),
        (["train", "--scenario", "split-digits", "--run", "file"], 2, "File exists: 'file'; name another path"),
        (["stream", "append", "file/log", "x.npz"], 2, "Not a directory: 'file/log'; name another path"),
        (["bench", "run", "--scenarios", "split-digits", "--out", "file"], 2, "a file is in the way"),
        (["bench", "run", "--protocol", "conventional", "--model", "mlpp"], 2, "did you mean 'mlp'"),
        (["train", "--scenario", "split-fmnist-small", "--threads", "0", "--run", "x"], 2, "threads"),
        (["train"], 2, "--run"),
        (["tran"], 2, "train"),
        (["check", "repaly"], 2, "did you mean 'replay'"),
        (["check"], 2, "--all"),
        (["registry", "list", "nowhere"], 4, "no registry in nowhere"),
        (["registry", "promote", "nowhere", "1"], 4, "no registry in nowhere"),
        (["compat", "nowhere"], 4, "no registry in nowhere"),
        (["data", "get", "imagenet"], 2, "imagenet"),
        (["gallery", "upgrade", "g", "--registry", "r", "--originals", "."], 4, "no registry in r"),
        (["gallery", "upgrade", "g", "--registry", "r", "--originals", "nowhere"], 4, "no folder of originals"),
        (["serve", "--registry", "r", "--state", "s", "--port", "99999"], 2, "1..65535"),
        (["bench", "run", "--seeds", "0"], 2, "seeds"),
        (["bench", "run", "--strategies", "repaly"], 2, "did you mean 'replay'"),
        (["bench", "run", "--scenarios", "online-elec"], 2, "--tune-on"),
        (["bench", "run", "--data-root", "nowhere"], 4, "another --protocol"),
        (["bench", "run", "--set", "replay.capcity=3"], 2, "did you mean 'capacity'"),
        (["bench", "run", "--set", "ewc.pull=3"], 2, "STRATEGY.KEY=VALUE"),
        (["bench", "run", "--scenario-set", "experience=3"], 2, "did you mean 'experiences'"),
        (["bench", "run", "--tune-on", "split-digits", "--scenario-set", "split-digits.sise=3"], 2, "split-digits"),
        (["bench", "run", "--scenario-set", "split-mnist10k.experiences=3"], 2, "SCENARIO.KEY=VALUE"),
        (["bench", "show", "nowhere"], 2, "no grid in nowhere"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(lifelong, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    got, out, err = lifelong(*words)

    assert got == code, err
    assert said in err
    assert "Traceback" not in err + out
    if "Usage" not in err:
        assert len(err.strip().splitlines()) == 1


def test_errors_of_registry_versions(lifelong, trained):
    code, _, err = lifelong("registry", "show", trained / "registry", 77)
    assert (code, "no version 77" in err) == (4, True)
    code, _, err = lifelong("registry", "rollback", trained / "registry", "--to", 77)
    assert (code, "no version 77" in err) == (4, True)


def test_the_demo_does_not_write_over_what_is_there(lifelong, tmp_path):
    (tmp_path / "mine").touch()
    code, _, err = lifelong("demo", "--out", tmp_path)

    assert code == 2
    assert "not empty" in err
