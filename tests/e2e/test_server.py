"""A real server process under load, swaps, kills, damaged artifacts and hostile clients."""

from __future__ import annotations

import http.client
import json
import socket
import time
from pathlib import Path

import pytest
from servers import Server, get, load, metric, mixed, wait

from lifelong.client import Client
from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
X = [[0.1, 0.2, 0.3, 0.4]]


def swaps(server: Server, registry: Registry, versions: list[int]) -> int:
    """Promote one version after the other, each seen live; return how many."""
    with Client(server.url, timeout=30) as client:
        for version in versions:
            registry.promote(version)
            wait(lambda version=version: client.versions()["version"] == version)
    return len(versions)


def test_swaps_under_load_fail_nothing_and_mix_nothing(server, kit):
    """40 swaps, back and forth, while another process asks: every answer is whole and of one version."""
    registry = Registry(server.folder / "registry", create=True)
    made = kit.publish(registry, 10)
    registry.promote(1)
    server.start().up()
    with load(server) as results:
        count = swaps(server, registry, [*range(2, 11), *range(9, 0, -1)] * 2)
    spaces = {n: snapshot.space.id for n, snapshot in enumerate(made, 1)}

    assert [line for line in results if line["status"] != 200] == []
    assert mixed(results) == []
    assert all(line["space"] == spaces[line["versions"][0]] for line in results if line.get("space"))
    assert len({line["versions"][0] for line in results}) == 10  # the load saw the swaps
    assert metric(server, "lifelong_swap_seconds_count") == count + 1


def test_the_detector_finds_a_naive_handler(server, kit):
    """Negative control: the same swaps, and a handler that looks at the live version twice."""
    server.service = "naive:NaiveService"
    registry = Registry(server.folder / "registry", create=True)
    kit.publish(registry, 10)
    registry.promote(1)
    server.start().up()
    with load(server) as results:
        swaps(server, registry, [*range(2, 11), *range(9, 0, -1)] * 2)

    assert len(results) > 100
    assert mixed(results) != []


@pytest.mark.parametrize("moment", [0.0, 0.03, 0.06])
def test_kill_during_a_swap_comes_back_whole(server, kit, moment):
    """kill -9 while rows are written and a swap is under way: the last good version, and every acknowledged row."""
    registry = Registry(server.folder / "registry", create=True)
    kit.publish(registry, 3)
    registry.promote(1)
    server.start().up()
    with load(server) as results:
        swaps(server, registry, [2])
        wait(lambda: json.loads(get(server, "/v1/gallery")[1])["rows"] > 0)
        time.sleep(0.5)
        registry.promote(3)
        time.sleep(moment)
        server.kill()
    acknowledged = {line["id"] for line in results if line["path"].endswith("add") and line["status"] == 200}
    (server.folder / "registry" / "CURRENT").write_text("torn")  # and the pointer is lost as well
    with server.start().up() as client:
        assert client.ready(60)
        found = client.versions()
        rows = json.loads(get(server, "/v1/gallery")[1])["rows"]
        answer = client.search(X, k=100)

    assert found["version"] in (2, 3)
    assert found["rejected"][0]["version"] is None  # the torn pointer, with its reason
    assert acknowledged
    assert rows >= len(acknowledged)
    assert answer["unreadable_rows"] == 0 or found["version"] == 2  # what version 3 stored before it was lost
    assert len(answer["hits"][0]) == min(100, rows - answer["unreadable_rows"])
    with Client(server.url) as client:  # each row is really there: removing finds it
        for start in range(0, len(acknowledged), 256):
            some = sorted(acknowledged)[start : start + 256]
            assert client.remove(some)["missing"] == 0


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flipped byte":
        data[-3] ^= 1
    path.write_bytes(bytes(data[:-5]) if how == "truncated" else bytes(data))


@pytest.mark.parametrize("how", ["flipped byte", "truncated", "NaN", "label map", "space"])
def test_a_bad_candidate_is_refused_and_visible(server, kit, how):
    """The old version answers on; the reason is in the log, in /v1/versions, and in a counter."""
    registry = Registry(server.folder / "registry", create=True)
    first = kit.numbered(1)
    registry.publish(first)
    with server.start().up() as client:
        assert client.ready(60)
        client.add(["a"], X)
        bad = {
            "label map": lambda: kit.numbered(2, labels=("bee", "ant", "cat"), reads=[first]),
            "space": lambda: kit.numbered(2),
        }.get(how, lambda: kit.numbered(2, reads=[first]))()
        assert registry.publish(bad, promote=False) == 2
        folder = server.folder / "registry" / "versions" / "000002"
        if how == "NaN":
            kit.forge_nan(folder)
        else:
            damage(folder / "weights.safetensors", how)
        (folder.parents[1] / "next").write_text('{"version": 2, "seq": 9}')
        (folder.parents[1] / "next").replace(folder.parents[1] / "CURRENT")
        wait(lambda: client.versions()["rejected"])
        told = client.versions()
        prediction = client.predict(X, top_k=3)

    reason = told["rejected"][0]["reason"]
    hint = {
        "flipped byte": "weights.safetensors",
        "truncated": "weights.safetensors",
        "NaN": "not finite",
        "label map": "labels may only be appended",
        "space": "does not read",
    }[how]
    assert hint in reason
    assert told["version"] == prediction["version"] == kit.number_in(prediction["predictions"][0]) == 1
    assert reason in server.log
    assert server.log.count("rejected version=2") == 1
    assert metric(server, "lifelong_swaps_total") == 2
    assert 'lifelong_swaps_total{outcome="rejected"} 1.0' in get(server, "/metrics")[1]
    assert get(server, "/readyz")[0] == 200


def test_a_server_without_a_version_is_alive_and_becomes_ready(server, kit):
    """readyz 503, livez 200, predict 503 as a problem; then a version appears."""
    with server.start().up() as client:
        assert get(server, "/readyz")[0] == 503
        status, body, head = get(server, "/readyz")
        assert json.loads(body)["status"] == status and head["x-model-version"] == "none"
        assert send(server, "/v1/predict", json.dumps({"x": X}).encode())[0] == 503
        Registry(server.folder / "registry", create=True).publish(kit.numbered(1))
        assert client.ready(60)
        assert client.predict(X)["version"] == 1


def send(server: Server, path: str, body: object, head: dict[str, str] | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    chunked = not isinstance(body, bytes)
    try:
        connection.request("POST", path, body, head or {"content-type": "application/json"}, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_hostile_requests_get_short_problems(server, kit):
    """Every bad request is a 4xx of less than 1 KB without a traceback; the server answers on, /metrics is bounded."""
    server.settings = {"LIFELONG_MAX_BODY_BYTES": "100000", "LIFELONG_TIMEOUT_SECONDS": "2"}
    Registry(server.folder / "registry", create=True).publish(kit.numbered(1))
    server.start().up()
    js = {"content-type": "application/json"}
    table = [
        ("/v1/predict", b"{", js, 400),
        ("/v1/predict", b'{"x": [[NaN, 1, 1, 1]]}', js, 400),
        ("/v1/predict", b'{"x": [[1e999, 1, 1, 1]]}', js, 400),
        ("/v1/predict", b'{"x": ' + b"[" * 50000 + b"]" * 49000, js, 400),
        ("/v1/predict", b'{"x": ' + b"[" * 40000 + b"]" * 40000 + b"}", js, 400),
        ("/v1/predict", b'{"x": [[' + b"9" * 5000 + b", 1, 1, 1]]}", js, 400),
        ("/v1/predict", json.dumps({"x": [["a"] * 4] * 4000}).encode(), js, 400),
        ("/v1/gallery/add", json.dumps({"ids": [None] * 15000, "x": X}).encode(), js, 400),
        ("/v1/predict", b"\x80\x04\x95", {"content-type": "application/vnd.bentoml+pickle"}, 415),
        ("/v1/predict", b"x=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("/v1/predict", b"--b--", {"content-type": "multipart/form-data; boundary=b"}, 415),
        ("/v1/predict", b" " * 100001, js, 413),
        ("/v1/predict", b" " * 399999, js, 413),
        ("/v1/predict", iter([b" " * 50000] * 3), js, 413),
        ("/v1/nothing", b"{}", js, 404),
        ("/v1/versions", b"{}", js, 405),
    ]
    for path, body, head, wanted in table:
        status, answer = send(server, path, body, head)
        told = json.loads(answer)

        assert (status, told["status"]) == (wanted, wanted), (path, str(body)[:50], answer)
        assert len(answer) < 1024
        assert set(told) == {"type", "title", "status", "detail", "version", "request_id"}
    slow = socket.create_connection(("127.0.0.1", server.port))
    slow.sendall(
        b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{"
    )
    slow.settimeout(30)
    assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    slow.close()
    size = len(get(server, "/metrics")[1])
    for n in range(200):
        assert get(server, f"/scan/{n}")[0] == 404

    assert len(get(server, "/metrics")[1]) < size + 3000
    assert "Traceback" not in server.log
    with Client(server.url) as client:
        assert client.predict(X)["version"] == 1


def test_two_workers_swap_each_and_are_counted_together(server, kit):
    """Each worker polls for itself; a killed one no longer counts as live, and its requests stay counted."""
    server.settings = {"LIFELONG_WORKERS": "2"}
    registry = Registry(server.folder / "registry", create=True)
    kit.publish(registry, 2)
    registry.promote(1)
    server.start().up()

    def live() -> list[float]:
        lines = get(server, "/metrics")[1].splitlines()
        return [float(line.split()[-1]) for line in lines if line.startswith("lifelong_live_version{")]

    wait(lambda: live() == [1.0, 1.0], 120)
    registry.promote(2)
    wait(lambda: live() == [2.0, 2.0])
    swapped = metric(server, "lifelong_swap_seconds_count")
    victim = server.workers()[0]
    victim.kill()
    wait(lambda: f'pid="{victim.pid}"' not in get(server, "/metrics")[1])

    assert swapped == 4
    assert metric(server, "lifelong_swap_seconds_count") >= 4


def test_a_worker_whose_master_was_killed_ends_by_itself(server, kit):
    """An orphan would keep the port and the gallery's lock, and the restarted server could never write."""
    Registry(server.folder / "registry", create=True).publish(kit.numbered(1))
    with server.start().up() as client:
        assert client.ready(60)
        client.add(["a"], X)
    (worker,) = server.workers()
    server.process.kill()
    server.process.wait()
    wait(lambda: not worker.is_running(), 60)
    with server.start().up() as client:
        assert client.ready(60)
        assert client.add(["b"], X)["sequence"] == 2


def begun(server: Server, body: bytes) -> socket.socket:
    """A connection on which a prediction is under way: all of its body but the last byte was sent."""
    head = f"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall(head.encode() + b"\r\n" + body[:-1])
    return connection


def received(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_sigterm_drains(server, kit, workers=2):
    """Not ready first, answering still; then no new connection, and what is under way is answered; then the end."""
    server.settings = {"LIFELONG_DRAIN_SECONDS": "3", "LIFELONG_WORKERS": str(workers)}
    Registry(server.folder / "registry", create=True).publish(kit.numbered(1))
    with server.start().up() as client:
        assert client.ready(60)
    wait(
        lambda: (
            len(server.workers()) == workers and len(json.loads(get(server, "/v1/rollout")[1])["workers"]) == workers
        )
    )
    body = json.dumps({"x": X}).encode()
    waiting = [begun(server, body) for _ in range(6)]
    time.sleep(0.5)  # until the server has read them: it ends a connection on which nothing was asked
    server.process.terminate()
    wait(lambda: get(server, "/readyz")[0] == 503)
    assert "about to stop" in get(server, "/readyz")[1]
    status, _, head = get(server, "/livez")
    assert (status, head["connection"]) == (200, "close")
    assert send(server, "/v1/predict", body)[0] == 200

    wait(lambda: server.log.count("drained: no new connections") == workers)
    time.sleep(0.5)
    assert server.process.poll() is None
    for connection in waiting:
        connection.sendall(body[-1:])
    answers = [received(connection) for connection in waiting]
    for connection in waiting:
        connection.close()
    server.process.wait(30)

    assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 6
    assert "Traceback" not in server.log


def test_a_terminated_server_finishes_and_leaves_nothing(server, kit):
    """SIGTERM: exit without a traceback, and the gallery can be opened again at once."""
    from lifelong.gallery.embedded import EmbeddedGallery

    Registry(server.folder / "registry", create=True).publish(kit.numbered(1))
    with server.start().up() as client:
        assert client.ready(60)
        client.add(["a"], X)
    server.process.terminate()
    server.process.wait(60)

    assert "Traceback" not in server.log
    with EmbeddedGallery(server.folder / "state" / "gallery") as gallery:
        assert gallery.stats().rows == 1
