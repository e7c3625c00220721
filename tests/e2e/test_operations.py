"""Real servers as an operator runs them: several workers, tokens, TLS, trials, promotion, rollback."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import time

import pytest
from servers import Server, load, metric, mixed, wait

from lifelong import tokens
from lifelong.client import Client, Written
from lifelong.errors import Forbidden, Unavailable
from lifelong.release.registry import Registry
from lifelong.release.rollout import Rollouts

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
X = [[0.1, 0.2, 0.3, 0.4]]


def call(server, path, body=None, head=None, connection=None):
    """Status and answer of one request on a connection of its own: any worker may get it."""
    connection = connection or http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    data = None if body is None else json.dumps(body).encode()
    connection.request("POST" if data else "GET", path, data, {"content-type": "application/json", **(head or {})})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_two_workers_follow_every_step_and_nothing_fails_or_mixes(server, kit):
    """Canary, shadow, two-step promotion, rollback, under load from another process, closed without a token."""
    secret, kept = tokens.make("ann", "admin")
    (server.folder / "tokens").write_text(kept.line())
    server.settings = {
        "LIFELONG_WORKERS": "2",
        "LIFELONG_TOKENS_FILE": str(server.folder / "tokens"),
        "LIFELONG_PUBLIC_READ": "true",
    }
    registry = Registry(server.folder / "registry", create=True)
    kit.publish(registry, 3)
    registry.promote(1)
    head = {"authorization": f"Bearer {secret}"}
    server.start()
    for _ in range(1200):
        try:
            if len([w for w in call(server, "/v1/rollout")[1]["workers"] if w["version"] == 1]) == 2:
                break
        except OSError:
            pass
        time.sleep(0.1)
    assert call(server, "/v1/admin/promote", {"version": 2})[0] == 401
    with load(server) as results:
        status, state = call(server, "/v1/admin/canary", {"version": 2, "share": 0.5}, head)
        assert (status, state["canary"]["version"]) == (200, 2), state
        assert [w["ready"] for w in state["workers"]] == [[1, 2], [1, 2]]
        answers = {}
        for n in range(60):
            told = call(server, "/v1/predict", {"x": X}, {"x-request-key": f"user-{n % 20}"})[1]
            answers.setdefault(n % 20, set()).add(told["version"])
        assert all(len(found) == 1 for found in answers.values())  # whichever worker it was
        assert set.union(*answers.values()) == {1, 2}
        assert call(server, "/v1/admin/shadow", {"version": 3, "share": 1.0}, head)[0] == 200
        status, moved = call(server, "/v1/admin/promote", {"version": 2, "why": "fine"}, head)
        assert (status, moved["live"], moved["previous"]) == (200, 2, 1), moved

        def live() -> set[int]:
            return {w["version"] for w in call(server, "/v1/rollout")[1]["workers"]}

        wait(lambda: live() == {2})
        wait(lambda: metric(server, "lifelong_compared_total") > 0)
        assert call(server, "/v1/admin/rollback", {"why": "back"}, head)[0] == 200
        wait(lambda: live() == {1})
    bad = [line for line in results if line["status"] != 200 and not line["path"].endswith("/add")]
    assert bad == []
    assert {line["status"] for line in results if line["path"].endswith("/add")} == {401}  # no token: nothing written
    assert mixed(results) == []
    assert [(e.kind, e.version, e.who) for e in registry.history()[-5:]] == [
        ("canary", 2, "http:ann"),
        ("shadow", 3, "http:ann"),
        ("promote", 2, "http:ann"),
        ("stop", 2, "http:ann"),
        ("rollback", 1, "http:ann"),
    ]
    assert secret not in server.log
    assert "Traceback" not in server.log
    assert Rollouts(registry).read().shadow.version == 3


def test_an_acknowledged_write_is_found_by_any_worker(server, kit):
    """Two workers that look at nothing by themselves: each row is found on every connection once it is written."""
    server.settings = {"LIFELONG_WORKERS": "2", "LIFELONG_POLL_SECONDS": "3600"}
    Registry(server.folder / "registry", create=True).publish(kit.numbered(1))
    server.start().up()
    wait(lambda: len(call(server, "/v1/rollout")[1]["workers"]) == 2, 120)
    written = Written()
    lost = 0
    with Client(server.url, timeout=30, retries=200, pause=0.001, written=written) as writer:
        for turn in range(10):
            writer.add([f"row-{turn}"], X)
            for _ in range(6):  # each on a connection of its own: any worker may get it
                lost += call(server, "/v1/gallery")[1]["rows"] <= turn
                with Client(server.url, timeout=30, written=written) as reader:
                    assert reader.get([f"row-{turn}"])["missing"] == 0
                    assert len(reader.search(X, k=100)["hits"][0]) == turn + 1

    assert lost > 0  # without the number, the worker that does not write had not heard of some


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_the_command_serves_https_with_a_token(tmp_path, kit, monkeypatch):
    """`lifelong serve --tls-cert --tls-key`, as the pages say; who does not know the certificate refuses it."""
    Registry(tmp_path / "registry", create=True).publish(kit.numbered(1))
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "1", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    secret, kept = tokens.make("shop", "read")
    probe = Server(tmp_path, settings={"LIFELONG_TOKENS": kept.line(), "LIFELONG_TOKENS_FILE": ""})
    line = [sys.executable, "-m", "lifelong.cli", "serve", "--registry", "registry", "--state", "state"]
    probe.command = [*line, "--port", "{port}", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]
    probe.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    url = f"https://localhost:{probe.port}"
    try:
        with Client(url, token=secret) as client:
            assert client.ready(120)
            assert client.predict(X)["version"] == 1
        with Client(url) as nobody, pytest.raises(Forbidden):
            nobody.predict(X)
        with Client(f"http://localhost:{probe.port}", token=secret) as plain, pytest.raises(Unavailable):
            plain.versions()
        monkeypatch.delenv("SSL_CERT_FILE")
        with Client(url, token=secret) as distrustful, pytest.raises(Unavailable, match="certificate verify failed"):
            distrustful.versions()
    finally:
        probe.kill()
    assert secret not in probe.log
