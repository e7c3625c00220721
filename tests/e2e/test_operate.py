"""`docs/operate.md` followed as it is written, from an empty folder: its own commands, run by a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from servers import ROOT, Server, get, wait

from lifelong.client import Client
from lifelong.errors import Forbidden
from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.skipif(shutil.which("curl") is None, reason="uses curl")]
X = [[0.1, 0.2, 0.3, 0.4]]
PAGE = (ROOT / "docs" / "operate.md").read_text()


def commands(title: str) -> list[str]:
    """The commands of a section, in order, without what they print."""
    (section,) = [part for part in re.split(r"^## ", PAGE, flags=re.M) if part.startswith(title + "\n")]
    return [line for block in re.findall(r"```sh\n(.*?)```", section, flags=re.S) for line in block.splitlines()]


class Shell:
    """One shell in one folder, with `lifelong` on its path and the server at the port of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.environment = folder, 3000, {**os.environ, "PYTHONPATH": str(ROOT)}
        (folder / "bin").mkdir()
        script = folder / "bin" / "lifelong"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m lifelong.cli "$@"\n')
        script.chmod(0o755)
        self.environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, line: str) -> str:
        line = line.replace("localhost:3000", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", line],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout


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
    """Tokens made and rotated, versions tried, promoted and rolled back, a gallery backed up and restored."""
    registry = Registry(tmp_path / "runs" / "registry", create=True)
    kit.publish(registry, 6)
    registry.promote(5)
    shell = Shell(tmp_path)
    make_admin, make_write, _ = commands("Tokens")
    admin, shop = shell(make_admin).split()[-1], shell(make_write).split()[-1]
    server = Server(tmp_path, settings={"LIFELONG_TOKENS_FILE": str(tmp_path / "runs" / "tokens")})
    server.command = [str(tmp_path / "bin" / "lifelong"), "serve", "--registry", "runs/registry"]
    server.command += ["--state", "runs/state", "--port", "{port}"]
    try:
        server.start().up()
        shell.port, shell.environment["TOKEN"] = server.port, admin
        with Client(server.url, token=shop, timeout=30) as client:
            assert client.ready(60)
            client.add(["a-1"], X)
            listing, _, verify, promote, rollback = commands("Looking and choosing")
            assert "6" in shell(listing)
            shell(verify)
            shell(promote)
            wait(lambda: client.versions()["version"] == 3)
            shell(rollback)
            wait(lambda: client.versions()["version"] == 5)
            told = [json.loads(shell(line)) for line in commands("Trying a version first")]
            assert [answer.get("status", 200) for answer in told] == [200] * 5, told
            assert [told[0]["shadow"]["version"], told[2]["canary"]["version"]] == [6, 6]
            assert (told[3]["live"], told[4]["live"]) == (6, 5)
            assert [event.why for event in registry.history()][-1] == "too many wrong hits"

            fresh = shell(make_write.replace("shop", "shop-2")).split()[
                -1
            ]  # to rotate: a new one, then the old line out
            file = tmp_path / "runs" / "tokens"
            file.write_text(
                "".join(line + "\n" for line in file.read_text().splitlines() if not line.startswith("shop "))
            )
            wait(lambda: "tokens read anew: alice:admin, shop-2:write" in server.log)
            with pytest.raises(Forbidden):
                client.predict(X)
        audit = [json.loads(line) for line in (tmp_path / "runs" / "state" / "audit.jsonl").read_text().splitlines()]
        assert {line["who"] for line in audit} == {"alice"} and len(audit) == 4
        if shutil.which("sqlite3"):
            (backup,) = re.findall(r"`(sqlite3 [^`]*)`", PAGE)
            shell(backup)
            server.process.terminate()
            server.process.wait(60)
            shutil.rmtree(tmp_path / "runs" / "state" / "gallery")
            (tmp_path / "runs" / "state" / "gallery").mkdir()
            (tmp_path / "copy.sqlite").rename(tmp_path / "runs" / "state" / "gallery" / "items.sqlite")
            server.start().up()
            with Client(server.url, token=fresh, timeout=30) as client:
                assert client.ready(60)
                assert client.search(X)["hits"][0][0]["id"] == "a-1"
        assert get(server, "/metrics")[0] == 401  # reading needs a token as soon as there are some
    finally:
        server.kill()
    assert admin not in server.log and shop not in server.log
