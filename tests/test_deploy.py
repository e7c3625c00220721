"""What is deployed parses, names only metrics, settings and routes that exist, and is locked down."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from lifelong import files
from lifelong.cli import cli
from lifelong.commands.serve import SERVICE
from lifelong.telemetry import SERVING, TRAINING
from serving.auth import needed
from serving.settings import Settings, table

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
KINDS = {metric.name: metric.kind for metric in (*SERVING, *TRAINING)}
LABELS = {metric.name: {*metric.labels, "instance", "pid", "le"} for metric in (*SERVING, *TRAINING)}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "lifelong.json").read_text())["panels"]
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in alerts()] + [t["expr"] for panel in panels() for t in panel["targets"]]


def documents() -> Iterator[dict[str, Any]]:
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        yield from yaml.safe_load_all(path.read_text())


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_that_is_asked_for_exists_and_is_documented(expression: str) -> None:
    """A histogram by its series, a counter in a rate or an increase, a gauge bare; labels that the metric has."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    names = re.findall(r"lifelong_\w+", expression)
    assert names
    for name in names:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert base in KINDS, name
        assert f"| `{base}` |" in page
        assert (base != name) == (KINDS[base] == "histogram"), name
        ranged = re.search(rf"(?:rate|increase)\({name}(?:{{[^}}]*}})?\[", expression)
        assert bool(ranged) == (KINDS[base] != "gauge"), name
        for label in re.findall(rf"{name}{{(\w+)", expression):
            assert label in LABELS[base]
    for group in re.findall(r"by \(([^)]*)\)", expression):
        for label in group.split(","):
            assert any(label.strip() in LABELS[re.sub(r"_(bucket|sum|count)$", "", name)] for name in names)
    assert expression.count("(") == expression.count(")")


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(t["expr"] for panel in panels() for t in panel["targets"])
    assert {name for name in KINDS if name not in shown} == set()


def test_panels_do_not_overlap_and_have_titles() -> None:
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels()]
    assert len(set(places)) == len(places)
    assert len({p["id"] for p in panels()}) == len({p["title"] for p in panels()}) == len(places)


def test_every_alert_says_what_is_wrong_and_the_page_what_to_do() -> None:
    page = (ROOT / "docs" / "operate.md").read_text()
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"`{rule['alert']}`" in page


def test_every_setting_that_is_set_exists_and_can_be_read() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["server"]["environment"]
    pods = [c for d in documents() if d["kind"] == "StatefulSet" for c in d["spec"]["template"]["spec"]["containers"]]
    for environment in [compose, *({e["name"]: e["value"] for e in pod["env"]} for pod in pods)]:
        assert set(environment) <= {name for name, _, _ in table()}
        loaded = Settings.load(environment)
        assert loaded.tokens_file
        assert not loaded.insecure


def unit(path: str) -> configparser.SectionProxy:
    """The service of a systemd unit, as systemd reads it."""
    parsed = configparser.ConfigParser(strict=False)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(DEPLOY / path)
    service = parsed["Service"]
    assert shlex.split(service["ExecStart"])[0].endswith("/lifelong")
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    return service


def test_the_unit_of_the_trainer_runs_the_sample_and_is_locked_down() -> None:
    """With a line for each thing to protect."""
    service = unit("trainer/lifelong-train.service")
    words = shlex.split(service["ExecStart"])
    parsed = cli.commands[words[1]].make_context("train", ["--config", str(DEPLOY / "trainer" / "train.toml")])
    assert parsed.params["source"]
    assert words[2:] == ["--config", "/etc/lifelong/train.toml"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 60
    assert service["Restart"] == "on-failure"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_unit_of_the_server_drains_and_writes_where_it_may() -> None:
    """SIGTERM goes to the first process alone; nothing that takes is killed before its time is over."""
    service = unit("server/lifelong-serve.service")
    words = shlex.split(service["ExecStart"])
    given = cli.commands[words[1]].make_context("serve", words[2:]).params
    assert {Path(given[name]).parent.name for name in ("registry", "state")} == {service["StateDirectory"]}
    assert service["KillMode"] == "mixed"
    longest = next(each.metadata["high"] for each in fields(Settings) if each.name == "drain_seconds")
    assert int(service["TimeoutStopSec"]) > longest + 30
    assert service["Restart"] == "always"
    named = re.findall(r"LIFELONG_\w+", (DEPLOY / "server" / "lifelong-serve.service").read_text())
    assert set(named) <= {name for name, _, _ in table()}


def test_containers_are_locked_down_and_probed() -> None:
    (pods,) = [d for d in documents() if d["kind"] == "StatefulSet"]
    pod = pods["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['securityContext']['runAsUser']}" in (ROOT / "Dockerfile").read_text()
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert pods["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    drain = next(float(e["value"]) for e in container["env"] if e["name"] == "LIFELONG_DRAIN_SECONDS")
    seen = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    assert seen <= drain < pod["terminationGracePeriodSeconds"] - 30  # BentoML waits 30 s for its workers
    (service,) = [d for d in documents() if d["kind"] == "Service"]
    assert service["spec"]["selector"] == pods["spec"]["template"]["metadata"]["labels"]
    claims = {d["metadata"]["name"] for d in documents() if d["kind"] == "PersistentVolumeClaim"}
    used = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
    assert claims == used
    own = {c["metadata"]["name"] for c in pods["spec"]["volumeClaimTemplates"]}
    assert own == {"state"}  # two pods on one state would write one gallery, and hide each other's workers
    assert {m["name"] for m in container["volumeMounts"]} == own | {v["name"] for v in pod["volumes"]}


def test_the_files_that_compose_mounts_are_there() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounts = [v for service in compose["services"].values() for v in service["volumes"]]
    for mount in mounts:
        source = mount.split(":")[0]
        assert source in compose["volumes"] or source.startswith("./secrets/") or (DEPLOY / source).is_file()
    for port in [p for service in compose["services"].values() for p in service["ports"]]:
        assert port.startswith("127.0.0.1:")


def test_prometheus_asks_what_there_is_with_a_token_that_it_has() -> None:
    """Path, scheme, place and token fit the server that stands beside it."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    settings = Settings.load(services["server"]["environment"])
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert f"## GET {job['metrics_path']}\n" in (ROOT / "docs" / "http.md").read_text()
    assert needed(job["metrics_path"]) == "read" and not settings.public_read
    assert job["scheme"] == ("https" if settings.tls_cert else "http")
    assert job["static_configs"] == [{"targets": ["server:3000"]}]
    assert "EXPOSE 3000" in (ROOT / "Dockerfile").read_text()
    inside = [Path(mount.split(":")[1]) for mount in services["prometheus"]["volumes"]]
    assert job["authorization"]["type"] == "Bearer"
    for path in map(Path, [job["authorization"]["credentials_file"], *config["rule_files"]]):
        assert [mount for mount in inside if path.is_relative_to(mount)]


def test_folders_are_mounted_for_what_is_replaced_and_kept_out_of_the_repository() -> None:
    """A file that is mounted by itself stays the old one when `sed -i` replaces it: no token could be rotated."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    mounts = [v for service in services.values() for v in service["volumes"] if "secrets" in v]
    assert sorted(mounts) == [f"./secrets/{name}:/run/secrets/{name}:ro" for name in ("prometheus", "server")]
    assert Path(services["server"]["environment"]["LIFELONG_TOKENS_FILE"]).parent == Path("/run/secrets/server")
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_bento_is_of_this_release_and_of_what_the_command_serves() -> None:
    """The wheel's name has the version in it, twice; all that is packed is there, but for that wheel."""
    told = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = f"wheels/{project['name']}-{project['version']}-py3-none-any.whl"
    assert told["service"] == SERVICE
    assert f"./{wheel}" in told["python"]["packages"]
    assert [path for path in told["include"] if not (ROOT / path.strip("/")).exists()] in ([], [f"/{wheel}"])
    assert f"/{wheel}" in told["include"]
    assert project["requires-python"] == f">={told['docker']['python_version']}"


def test_what_a_swap_costs_is_what_was_measured() -> None:
    """The numbers of the page, from the committed results."""
    found = files.parse_json(files.read_file(ROOT / "benchmarks" / "results" / "swap.json"))["figures"]
    rows = {row["name"]: row["value"] for row in found}
    words = " ".join((ROOT / "docs" / "operate.md").read_text().split())
    few, many = (f"{rows[f'swap_{size}_seconds']:.3f}".lstrip("0") for size in (10_000, 1_000_000))
    assert f"At a million rows a swap took {many} s, at 10,000 rows {few} s" in words
    large, small = rows["backfill_lite0_1000000_seconds"] / 60, rows["backfill_served_1000000_seconds"]
    assert f"takes {large:.0f} minutes with EfficientNet-lite0" in words
    assert f"and {small:.0f} seconds with the small network" in words
