"""The main job, as a user runs it."""

import json
import subprocess
import sys

import pytest

from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    line = [sys.executable, "-m", "lifelong.cli", "demo", "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (out / "said.txt").write_text(done.stdout)
    return out


def test_no_request_fails_and_no_answer_mixes_versions_while_five_go_live(folder):
    result = json.loads((folder / "demo.json").read_text())

    assert result["requests"] >= 1000
    assert result["failed"] == 0
    assert result["mixed_version"] == 0
    assert result["versions"] == 5
    assert sum(result["requests_by_version"].values()) == result["requests"]
    assert set(result["requests_by_version"]) == {str(v) for v in Registry(folder / "registry").versions()}
    assert result["rejected_by_server"] == []


def test_no_row_of_the_gallery_is_re_embedded_and_old_rows_are_found(folder):
    """A plain model of the same size, rehearsed alike, finds less in what its predecessors stored."""
    result = json.loads((folder / "demo.json").read_text())

    assert result["gallery_rows"] == 1000
    assert result["reembedded"] == 0
    assert all(step["above"] for step in result["updates"]["map"])
    searched = result["search"]
    assert searched["compatible_as_stored"]["recall_at_1"] > searched["plain_as_stored"]["recall_at_1"] + 0.1
    through_the_server = result["search_over_http"]["recall_at_1"]
    assert through_the_server == pytest.approx(searched["compatible_as_stored"]["recall_at_1"], abs=0.005)


def test_it_says_what_it_did_and_draws_it(folder):
    said = (folder / "said.txt").read_text()

    for words in ("packaged subset", "Accuracy on experience", "Search across each update", "gallery rows re-embedded"):
        assert words in said
    assert (folder / "demo.png").stat().st_size > 20_000
