"""What a server says of its versions: states, gates, traffic and swaps; of those that matter now, and no others."""

from __future__ import annotations

import warnings

import pytest

from lifelong.release.report import Check, Report
from lifelong.release.rollout import Rollouts

pytestmark = pytest.mark.slow  # starts services

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running, wait

    from serving.dashboard import Dashboard

GOOD = Report((Check("finite", True, "fine"),))


def states(client):
    return {each["version"]: (each["state"], each["gate"]) for each in checked(client.get("/v1/versions"))["versions"]}


def test_a_version_goes_from_candidate_to_retired_and_a_rejection_names_its_gate(registry, tmp_path, kit):
    """Every state at once: two were live, one is tried, one judged, one not, one does not fit."""
    kit.publish(registry, 2)
    registry.promote(1)
    registry.promote(2)
    registry.publish(kit.numbered(3), promote=False)
    registry.publish(kit.numbered(4), GOOD, promote=False)
    registry.publish(kit.numbered(5), GOOD, promote=False)
    refused = Report(
        (Check("finite", True, "fine"), Check("accuracy", False, "too bad"), Check("probe", False, "skipped: x"))
    )
    registry.refuse(kit.numbered(6), refused)
    with running(registry, tmp_path) as client:
        wait(lambda: client.runtime.version() == 2)
        Rollouts(registry).start("shadow", 5, 1.0, who="ann")
        registry.publish(kit.numbered(6, inputs=5))
        wait(lambda: client.runtime.slot.rejected and client.runtime.slot.trials.beside.shadow)
        told = checked(client.get("/v1/versions"))

        assert states(client) == {
            1: ("retired", ""), 2: ("live", ""), 3: ("candidate", ""), 4: ("validated", ""), 5: ("warm", ""),
            6: ("rejected", "input"),
        }  # fmt: skip
        assert "input shape" in told["versions"][0]["reason"]
        assert (told["rejected"][0]["gate"], told["refused"][0]["gates"]) == ("input", ["accuracy"])
        assert 'lifelong_rejected_total{gate="input"} 1.0' in client.get("/metrics").text


def lines(client) -> dict[tuple[str, str], float]:
    """Answers by kind and version, as Prometheus would read them."""
    rows = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("lifelong_version_seconds_count")
    ]
    parts = [(line.split('kind="')[1].split('"')[0], line.split('version="')[1].split('"')[0], line) for line in rows]
    return {(kind, version): float(line.rpartition(" ")[2]) for kind, version, line in parts}


def test_traffic_is_told_of_those_that_answer_now(registry, tmp_path, kit):
    """Three requests to one version are three; ten versions later there is still one line, and one live version."""
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path) as client:
        for _ in range(3):
            checked(client.post("/v1/predict", json={"x": X}))
        wait(lambda: lines(client) == {("live", "1"): 3.0})
        (row,) = Dashboard(client.runtime, {}).state()["answers"]
        assert (row["kind"], row["version"], row["answers"]) == ("live", 1, 3)
        assert row["mean"] > 0 and row["p99"] > 0
        assert "lifelong_version_skew 1.0" in client.get("/metrics").text
        assert 'lifelong_swap_phase_seconds_count{phase="warm"} 1.0' in client.get("/metrics").text
        for n in range(2, 12):
            registry.publish(kit.numbered(n, reads=[kit.numbered(k) for k in range(1, n)]))
            wait(lambda: client.runtime.version() == n)  # noqa: B023
            checked(client.post("/v1/embed", json={"x": X}))
        wait(lambda: lines(client) == {("live", "11"): 1.0})
    assert not list((tmp_path / "state" / "workers").glob("*.times"))
