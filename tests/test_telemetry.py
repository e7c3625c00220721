"""Metrics: one list, made on demand, bounded, and right across processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lifelong.errors import UnknownName
from lifelong.telemetry import FAST, SERVING, Reading, Telemetry, forget_dead


def samples(text: bytes) -> dict[str, float]:
    """Values by `name{labels}`, read by the official parser."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_names_follow_the_convention():
    """Unique, prefixed; counters end in _total, times in _seconds; every one says what it is."""
    names = [m.name for m in SERVING]

    assert len(set(names)) == len(names)
    assert all(m.name.startswith("lifelong_") and m.help.endswith(".") for m in SERVING)
    assert all(m.name.endswith("_total") == (m.kind == "counter") for m in SERVING)
    assert all(m.name.endswith("_seconds") for m in SERVING if m.kind == "histogram")
    assert not {"path", "id", "reason"} & {label for m in SERVING for label in m.labels}
    assert all(m.asked for m in SERVING if "version" in m.labels)  # of a version that is gone no line is left


def test_importing_registers_nothing():
    """Two processes, two tests or two services can each have their own."""
    code = "import lifelong.telemetry, sys; print('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_two_sets_in_one_process_do_not_meet():
    """No global registry."""
    one, two = Telemetry(), Telemetry()
    one.count("lifelong_swaps_total", outcome="live")

    assert samples(one.exposition())["lifelong_swaps_total{outcome=live}"] == 1
    assert "lifelong_swaps_total{outcome=live}" not in samples(two.exposition())


def test_every_metric_can_be_used_and_shows_up():
    """The three kinds, with and without labels."""
    telemetry = Telemetry()
    for m in SERVING:
        labels = dict.fromkeys(m.labels, "x")
        if m.asked:
            with pytest.raises(UnknownName):
                (telemetry.gauge if m.kind == "gauge" else telemetry.observe)(m.name, 2, **labels)
        elif m.kind == "counter":
            telemetry.count(m.name, 2, **labels)
        elif m.kind == "gauge":
            telemetry.gauge(m.name, 2, **labels)
        else:
            telemetry.observe(m.name, 2, **labels)
    shown = samples(telemetry.exposition())

    for m in [m for m in SERVING if not m.asked]:
        suffix = "_sum" if m.kind == "histogram" else ""
        labels = ",".join(f"{label}=x" for label in sorted(m.labels))
        assert shown[f"{m.name}{suffix}{{{labels}}}"] == 2


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_asked_for_is_as_it_is_at_that_moment(folder, tmp_path):
    """A histogram in cumulative buckets, as the official client writes its own; what is told no more is gone."""
    from prometheus_client import CollectorRegistry, Histogram, generate_latest

    own = CollectorRegistry()
    official = Histogram("lifelong_version_seconds", "x", ["kind", "version", "pid"], buckets=FAST, registry=own)
    counts, seconds = [0] * (len(FAST) + 1), (0.0005, 0.001, 0.3, 99.0)
    for each in seconds:
        official.labels("live", "3", "7").observe(each)
        counts[next((i for i, bound in enumerate(FAST) if each <= bound), len(FAST))] += 1
    labels = (("kind", "live"), ("version", "3"), ("pid", "7"))
    told = [Reading("lifelong_version_seconds", sum(seconds), labels, counts), Reading("lifelong_version_skew", 2)]
    telemetry = Telemetry(ask=lambda: told, folder=tmp_path if folder else None)

    shown = samples(telemetry.exposition())
    assert shown["lifelong_version_skew{}"] == 2
    mine = {name: value for name, value in shown.items() if name.startswith("lifelong_version_seconds")}
    theirs = samples(generate_latest(own))
    assert mine == {name: value for name, value in theirs.items() if "_created" not in name}
    told.clear()
    assert not [name for name in samples(telemetry.exposition()) if name.startswith("lifelong_version")]


@pytest.mark.parametrize("use", ["count", "tell", "gauge", "observe"])
def test_an_unknown_name_is_refused(use):
    """A typing error in a metric's name must not vanish."""
    with pytest.raises(UnknownName):
        getattr(Telemetry(), use)("lifelong_nothing", 1)


PROCESS = """
import sys
from lifelong.telemetry import Telemetry
t = Telemetry(folder=sys.argv[1])
t.count("lifelong_swaps_total", outcome="live")
t.gauge("lifelong_live_version", float(sys.argv[2]))
print("up", flush=True)
sys.stdin.read()
"""
SCRAPE = """
import sys
from lifelong.telemetry import Telemetry
sys.stdout.buffer.write(Telemetry(folder=sys.argv[1]).exposition())
"""


def started(folder, version):
    """A process that counts one swap, shows a version, and waits."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(folder), str(version)]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.slow
def test_workers_are_summed_and_the_dead_forgotten(tmp_path):
    """Counters of a killed worker stay in the sum; its live version does not stay for ever."""
    one, two = started(tmp_path, 1), started(tmp_path, 2)
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    try:
        scrape = [sys.executable, "-c", SCRAPE, str(tmp_path)]
        both = samples(subprocess.run(scrape, env=environment, capture_output=True, check=True).stdout)
        one.kill()
        one.communicate()
        left = samples(subprocess.run(scrape, env=environment, capture_output=True, check=True).stdout)
    finally:
        for process in (one, two):
            process.kill()
            process.communicate()

    assert both["lifelong_swaps_total{outcome=live}"] == left["lifelong_swaps_total{outcome=live}"] == 2
    assert both[f"lifelong_live_version{{pid={one.pid}}}"] == 1
    assert f"lifelong_live_version{{pid={one.pid}}}" not in left
    assert left[f"lifelong_live_version{{pid={two.pid}}}"] == 2


def test_only_live_gauges_of_dead_processes_go(tmp_path):
    """Counters, other files and living processes keep theirs."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    keep = [f"counter_{dead.pid}.db", f"gauge_liveall_{os.getpid()}.db", "gauge_live_x.txt"]
    for name in [*keep, f"gauge_liveall_{dead.pid}.db"]:
        (tmp_path / name).touch()

    assert forget_dead(tmp_path) == [dead.pid]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(keep)


def test_what_is_told_is_there_when_somebody_asks_and_none_of_it_is_lost():
    """Four threads tell, others flush at the same time."""
    telemetry, many = Telemetry(), 2000
    with ThreadPoolExecutor(6) as pool:
        for work in [lambda: telemetry.tell("lifelong_rows_total", 2, route="/a")] * 4 + [telemetry.flush] * 2:
            pool.submit(lambda work=work: [work() for _ in range(many)])
    telemetry.tell("lifelong_rows_total", route="/b")

    shown = samples(telemetry.exposition())
    assert (shown["lifelong_rows_total{route=/a}"], shown["lifelong_rows_total{route=/b}"]) == (4 * 2 * many, 1)
    assert ("lifelong_rows_total", {"route": "/b"}, 1.0) in telemetry.samples()


@pytest.mark.parametrize("write", ["flush", "close"])
def test_what_is_told_waits_until_it_is_written(write):
    """The registry itself is what others read; also when a worker ends, nothing of it is left behind."""
    telemetry = Telemetry()
    telemetry.tell("lifelong_rows_total", 3, route="/a")
    shown = "lifelong_rows_total", {"route": "/a"}
    assert telemetry.registry.get_sample_value(*shown) == 0
    getattr(telemetry, write)()
    assert telemetry.registry.get_sample_value(*shown) == 3
