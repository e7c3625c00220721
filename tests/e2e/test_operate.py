"""`docs/operate.md` followed as it is written, from an empty folder: its own commands, run by a shell.

What needs Docker is not run here; `As a bento` is in `test_bento.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import streams
import yaml
from page import Shell, blocks, commands
from servers import ROOT, Server, get, wait

from lifelong import tokens
from lifelong.client import Client
from lifelong.errors import Forbidden
from lifelong.gallery.embedded import EmbeddedGallery
from lifelong.gallery.opening import opened
from lifelong.release.registry import Registry
from lifelong.sources.log import Log
from lifelong.sources.record import decode

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("sqlite3")), reason="uses curl and sqlite3"),
]
X = [[0.1, 0.2, 0.3, 0.4]]


def serving(shell: Shell, *lines: str) -> Server:
    """A server started by lines of the page, the last of which serves; at a port of its own."""
    *before, serve = lines
    server = Server(shell.folder, environment=shell.environment)
    served = (
        f"exec env {serve.removesuffix(' &')} --port {{port}}"  # in the shell's place, or SIGTERM would end the shell
    )
    server.command = ["bash", "-eu", "-c", "\n".join([*before, served])]
    server.start()
    shell.port = server.port
    return server


def scraped(server: Server, secrets: Path) -> tuple[int, str]:
    """What Prometheus gets with `deploy/prometheus.yml`: the token of `secrets` where the container has it."""
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    told = job["authorization"]
    token = Path(told["credentials_file"].replace("/run/secrets/prometheus", str(secrets))).read_text().strip()
    connections = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = connections[job["scheme"]]("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", job["metrics_path"], headers={"authorization": f"{told['type']} {token}"})
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_feedback_starts_with_the_data_of_the_first_version(tmp_path):
    """As the page says; and a run that has the labels alone is told what to do."""
    shell, draw = Shell(tmp_path), np.random.default_rng(0)
    append, train = commands("Feedback")
    train = train.replace("publish_samples=5000", "publish_samples=200 --follow until=end")
    for name, order in (("original", [1, 2, 0]), ("late", [0, 2, 1])):
        y = np.resize(order, 600)
        x = (2 * np.eye(6)[y] + draw.normal(0, 0.4, (600, 6))).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.array([f"axis-{label}" for label in y]))
    shell("mkdir -p runs/state")
    shell(append)
    shell(train)
    registry = Registry(tmp_path / "runs" / "registry")
    assert list(registry.load(registry.current()).labels) == ["axis-1", "axis-2", "axis-0"]
    shell(append.replace("original", "late"))
    assert "refused" not in [event.kind for event in registry.history()]
    before = registry.current()
    shell(train)
    assert registry.current() > before
    alone = shell(
        f"{append} && {train}".replace("original", "late").replace("/stream", "/other").replace("/live", "/more")
    )
    assert "let the run begin with the data that version" in " ".join(alone.split())


def test_an_operators_day_goes_as_the_page_says(tmp_path, kit):
    """Deployed, scraped, versions tried and rolled back, a token rotated, backed up, restored with two workers."""
    registry = Registry(tmp_path / "runs" / "registry", create=True)
    kit.publish(registry, 6)
    registry.promote(5)
    shell = Shell(tmp_path)
    folder, token, export, serve, ready, versions = commands("Deploying")
    make_shop, make_other, remove_shop = commands("Tokens")
    server = restored = None
    try:
        shell(f"{folder}\n{token}")
        shop = shell(make_shop).strip()
        server = serving(shell, export, serve)
        shell(ready)
        assert json.loads(shell(versions))["version"] == 5
        with Client(server.url, token=shop, timeout=30) as client:
            looked_at(shell, client)
            tried(shell, client)
            told = client.predict(X, remember=True)
            client.feedback({told["predictions"][0]["id"]: "bee"})
            assert get(server, "/metrics")[0] == 401  # reading needs a token as soon as there are some
            assert "lifelong_live_version" in shell("\n".join(commands("Prometheus")))
            (tmp_path / "secrets").mkdir()
            (tmp_path / "runs" / "prometheus.token").rename(tmp_path / "secrets" / "token")
            assert scraped(server, tmp_path / "secrets")[0] == 200
            fresh = shell(make_other).strip()
            shell(remove_shop)
            wait(lambda: "tokens read anew: alice:admin, prometheus:read, shop-2:write" in server.log)
            with pytest.raises(Forbidden):
                client.predict(X)
        audit = [json.loads(line) for line in (tmp_path / "runs" / "state" / "audit.jsonl").read_text().splitlines()]
        assert {line["who"] for line in audit} == {"alice"} and len(audit) == 4
        assert (tmp_path / "runs" / "alice.token").stat().st_mode & 0o077 == 0
        admin = (tmp_path / "runs" / "alice.token").read_text().strip()
        assert not {secret for secret in (admin, shop, fresh) if secret in server.log}

        backup, restore = blocks("Backing up and restoring")
        shell(backup)
        server.process.terminate()
        server.process.wait(60)
        shutil.rmtree(tmp_path / "runs" / "state")
        shutil.rmtree(tmp_path / "runs" / "registry")
        *before, serve_again = restore.splitlines()
        shell("\n".join(before))
        (scaling,) = commands("Scaling")
        assert scaling == "LIFELONG_WORKERS=2 lifelong serve --registry runs/registry --state runs/state"
        restored = serving(shell, export, f"LIFELONG_WORKERS=2 {serve_again}")
        shell(ready)
        with Client(restored.url, token=fresh, timeout=30) as client:
            assert client.versions()["version"] == 5
            wait(lambda: len(client.rollout()["workers"]) == 2)
            assert {hit["id"] for hit in client.search(X)["hits"][0]} == {"a-1", "a-2"}
        restored.process.terminate()
        restored.process.wait(60)
        with Log(tmp_path / "restored" / "state" / "stream") as log:
            assert [decode(record.payload).y for record in log.poll(9, 0.0)] == ["bee"]
    finally:
        for each in (server, restored):
            if each is not None:
                each.kill()
    upgraded(shell)


def test_the_commands_of_compose_make_what_it_mounts(tmp_path):
    """All but Docker's own, from a clean folder: containers can read what is made, and the token is in the file."""
    shell, text = Shell(tmp_path), (ROOT / "deploy" / "compose.yaml").read_text()
    lines = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    shell("\n".join(line for line in lines if not line.startswith("docker ")))
    secrets = tmp_path / "deploy" / "secrets"
    token = (secrets / "prometheus" / "token").read_text().strip()
    found = tokens.find(token, tokens.parse((secrets / "server" / "tokens").read_text()))
    assert found is not None and (found.name, found.scope) == ("prometheus", "read")
    assert {path.stat().st_mode & 0o777 for path in secrets.glob("*/*")} == {0o644}


def looked_at(shell: Shell, client: Client) -> None:
    """Looking and choosing: version 3 and back to 5, and a row of each."""
    client.add(["a-1"], X)
    listing, show, verify, promote, rollback = commands("Looking and choosing")
    assert "6" in shell(listing)
    assert "The gate" in shell(show)
    shell(verify)
    shell(promote)
    wait(lambda: client.versions()["version"] == 3)
    client.add(["a-2"], X)
    shell(rollback)
    wait(lambda: client.versions()["version"] == 5)


def tried(shell: Shell, client: Client) -> None:
    """Trying a version first: a shadow, a canary, promoted, and rolled back."""
    token, *lines = commands("Trying a version first")
    told = [json.loads(shell(f"{token}\n{line}")) for line in lines]
    assert [answer.get("status", 200) for answer in told] == [200] * 5, told
    assert [told[0]["shadow"]["version"], told[2]["canary"]["version"]] == [6, 6]
    assert (told[3]["live"], told[4]["live"]) == (6, 5)
    events = Registry(shell.folder / "runs" / "registry").history()
    assert [event.why for event in events][-1] == "too many wrong hits"


def upgraded(shell: Shell) -> None:
    """Upgrading rows: the one of version 3 is embedded again, after the server was stopped."""
    (shell.folder / "images").mkdir()
    np.save(shell.folder / "images" / "a-2.npy", np.float32(X[0]))
    (line,) = commands("Upgrading rows")
    shell(line.replace("runs/", "restored/"))
    with EmbeddedGallery(shell.folder / "restored" / "state" / "gallery") as gallery:
        one, two = gallery.get(["a-1", "a-2"])
    assert one.space == two.space
    assert one.vector.tobytes() == two.vector.tobytes()


def test_a_store_and_a_database_as_the_page_says(tmp_path, s3, database):
    """A trainer and a server that share only a store, a gallery in PostgreSQL, and a rollback from elsewhere."""
    shell = Shell(tmp_path)
    shell.environment["HOME"] = str(tmp_path)
    streams.log(tmp_path / "runs" / "log", streams.samples(160))
    train, serve, rollback = commands("A registry in an object store")
    export, plain = commands("A gallery in PostgreSQL")
    assert plain == serve.replace("s3://models/shop", "runs/registry")
    settings = "--follow until=end --follow publish_samples=60 --max-accuracy-drop 1 --max-forgetting 1 --allow-major"
    shell(f"{train} --batch-size 8 {settings}")
    wanted = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    assert wanted in export
    server = serving(shell, export.replace(wanted, database), f"{serve} --insecure")
    try:
        server.up()
        with Client(f"http://127.0.0.1:{server.port}", timeout=30) as client:
            assert client.ready(60)
            newest = client.versions()["version"]
            assert newest > 1
            client.add(["a-1"], [[0.0] * streams.WIDTH])
            shell(rollback)
            wait(lambda: client.versions()["version"] == newest - 1)
    finally:
        server.kill()
    assert not (tmp_path / "runs" / "state" / "gallery").exists()
    with opened(database) as gallery:
        assert [row.id for row in gallery.get(["a-1"])] == ["a-1"]
