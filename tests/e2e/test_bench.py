"""A grid as a person meets it: the report in a real browser, and runs that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import PROGRAM, Browser

from lifelong.bench import workers
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.commands import bench, bench_report

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3000)]
LONG = bool(os.environ.get("LIFELONG_SOAK"))
KILLS = 10 if LONG else 2
GRID = {
    "strategies": "nmc,trgp,naive,replay,slda,ewc,joint" if LONG else "nmc,trgp,naive",
    "scenarios": "split-fmnist-small",
    "seeds": 5 if LONG else 2,
    "trials": 4 if LONG else 2,
    "epochs": 1,
    "batch_size": 128,
}
JOBS = [
    Job(scenario=scenario, strategy=name, seed=seed, batch_size=128, options=options)
    for scenario, options in (("split-fmnist-small", {"experiences": 2}), ("online-fmnist-small", {"size": 400}))
    for name in ("nmc", "trgp", "naive")
    for seed in (0, 1)
]


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid with results of both kinds, exclusions and a cell that was not run."""
    store = Store.create(tmp_path_factory.mktemp("grid"), JOBS, {"protocol": "conventional"})
    workers.work(store, JOBS[:-1], "first")
    bench_report.write(store)
    return store


@pytest.mark.skipif(PROGRAM is None, reason="needs chromium")
@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True)])
def test_the_report_fits_a_desk_and_a_phone_and_complains_of_nothing(grid, width, phone):
    """Only tables scroll sideways, pictures load, and every table says the protocol where it can be seen at once."""
    with Browser(width, 900, phone=phone) as browser:
        browser.open((grid.folder / "report.html").as_uri())
        browser.wait("document.readyState === 'complete'")
        assert (
            browser.value("document.documentElement.scrollWidth") <= width
        )  # innerWidth of a phone grows with the page
        assert browser.value("[...document.images].every(i => i.naturalWidth > 0) && document.images.length") == 4
        labels = "[...document.querySelectorAll('caption')].map(c => c.querySelector('span.label, small'))"
        assert browser.value(f"{labels}.length") >= 7
        assert browser.value(f"{labels}.every(e => e.textContent.includes('conventional'))")
        assert browser.value(f"{labels}.every(e => e.getBoundingClientRect().right <= {width})")
        text = browser.value("document.body.innerText")
        assert browser.complaints == []
    for word in ("12 cells, 7 finished, 4 excluded, 1 not run yet", "meant for domain-il", "torch", JOBS[0].strategy):
        assert word in text
    for result in (grid.result(JOBS[0]), grid.result(JOBS[6])):
        assert result["signature"]["data"]["sha256"] in text


def test_a_page_that_complains_is_noticed(tmp_path):
    """The browser of these tests hears errors: of scripts, and of files that are not there."""
    if PROGRAM is None:
        pytest.skip("needs chromium")
    page = tmp_path / "page.html"
    page.write_text("<script>console.error('ouch')</script><script>nothing()</script>")
    with Browser() as browser:
        browser.open(page.as_uri())
        browser.wait("document.readyState === 'complete'")
        assert len(browser.complaints) == 2


def artefacts(folder):
    """Return by name the bytes of all that must not depend on how a grid was run: no times, no reasons of one try."""
    kept = [*folder.glob("results.*"), *folder.rglob("grid.json"), *folder.rglob("cells/**/*.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_a_run_killed_again_and_again_gives_the_same_files(tmp_path, monkeypatch):
    """Kill -9 of the parent and its workers, each time after more cells were finished, in the search and after it."""
    pytest.importorskip("optuna")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    monkeypatch.setattr(bench, "_local", lambda store, jobs, _, attempt, *__: workers.work(store, jobs, attempt))
    common = {"protocol": "two-phase", "tune_on": None, "jobs": 1, "ray": None, "data_root": None, "as_json": True}
    job = {"settings": (), "model": "auto", "model_settings": (), "optimizer": "sgd", "lr": 0.05, "momentum": 0.0}
    bench.run(out=whole, flops=None, **GRID, **common, **job)
    expected = artefacts(whole)
    total = sum("cells/" in name for name in expected)

    line = [
        sys.executable,
        "-m",
        "lifelong.cli",
        "bench",
        "run",
        "--json",
        "--out",
        str(parts),
        "--jobs",
        "2" if LONG else "1",
    ]
    line += [word for name, value in GRID.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    chance = random.Random(0)
    for kill in range(KILLS):
        target = 1 + kill * (total - 1) // KILLS
        process = subprocess.Popen(line, start_new_session=True, stdout=subprocess.DEVNULL)
        while process.poll() is None and len([*parts.rglob("cells/**/*.json")]) < target:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(line, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = artefacts(parts)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_run_that_is_told_to_stop_takes_its_workers_along(tmp_path):
    line = [sys.executable, "-m", "lifelong.cli", "bench", "run", "--protocol", "conventional", "--jobs", "2"]
    line += ["--strategies", "naive,replay", "--scenarios", "permuted-fmnist-small", "--epochs", "50", "--seeds", "2"]
    process = subprocess.Popen([*line, "--out", str(tmp_path / "grid")], stdout=subprocess.DEVNULL)
    children, found = Path(f"/proc/{process.pid}/task/{process.pid}/children"), list[Path]()
    while process.poll() is None and len(found) < 2:
        time.sleep(0.05)
        found = [Path("/proc", pid) for pid in children.read_text().split()]
        found = [path for path in found if b"\0work\0" in (path / "cmdline").read_bytes()]
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert len(found) == 2
    assert not any(path.exists() for path in found)
