"""The client: what it sends, what it makes of refusals, and what it does when the connection is gone."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from lifelong import errors
from lifelong.awaited import AsyncClient
from lifelong.client import Client, refusal
from lifelong.errors import Busy, ConfigError, DataError, Forbidden, LifelongError, NotFound, TooLarge, Unavailable
from serving.problems import Problem


class Script(BaseHTTPRequestHandler):
    """Answers from `server.answers` (the last one for ever) and remembers what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, body, self.client_address))
        self.server.heads.append(dict(self.headers))
        if self.server.meeting:
            self.server.meeting.wait()
        answers = self.server.answers
        status, body, close = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:  # hang up without a word
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, value in self.server.extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if close:  # as a server does with a connection that was idle for too long: without saying so
            self.close_connection = True

    def do_GET(self):
        self.do_POST()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    found = ThreadingHTTPServer(("127.0.0.1", 0), Script)
    found.daemon_threads = True
    found.extra, found.meeting = {}, None
    found.asked, found.heads, found.answers = [], [], [(200, b"{}", False)]
    found.url = f"http://127.0.0.1:{found.server_port}"
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def client(server):
    with Client(server.url, timeout=10) as found:
        yield found


def asked(server):
    return [(method, path, json.loads(body) if body else None) for method, path, body, _ in server.asked]


def test_every_call_sends_what_the_server_documents(client, server):
    """Only what was given is sent."""
    client.predict([[1.0]], top_k=2)
    client.embed([[1.0]])
    client.search([[1.0]], k=3, where={"a": 1})
    client.search(vectors=[[1.0]], space="s")
    client.add(["a"], [[1.0]], [{"a": 1}])
    client.add(["a"], [[1.0]])
    client.remove(["a", 2])
    client.versions()

    assert asked(server) == [
        ("POST", "/v1/predict", {"x": [[1.0]], "top_k": 2}),
        ("POST", "/v1/embed", {"x": [[1.0]]}),
        ("POST", "/v1/search", {"x": [[1.0]], "k": 3, "where": {"a": 1}}),
        ("POST", "/v1/search", {"vectors": [[1.0]], "space": "s", "k": 10}),
        ("POST", "/v1/gallery/add", {"ids": ["a"], "x": [[1.0]], "payload": [{"a": 1}]}),
        ("POST", "/v1/gallery/add", {"ids": ["a"], "x": [[1.0]]}),
        ("POST", "/v1/gallery/remove", {"ids": ["a", 2]}),
        ("GET", "/v1/versions", None),
    ]


@pytest.mark.parametrize("x", [np.ones((1, 2), np.float32), torch.ones(1, 2), [[1.0, 1.0]]])
def test_arrays_tensors_and_lists_are_the_same(client, server, x):
    """The client needs neither library to take them."""
    client.embed(x)

    assert asked(server) == [("POST", "/v1/embed", {"x": [[1.0, 1.0]]})]


def test_one_connection_is_kept(client, server):
    """Requests of one client go to one worker: no reading backwards in versions."""
    for _ in range(3):
        client.versions()

    assert len({address for _, _, _, address in server.asked}) == 1


def sequences(server):
    return [head.get("x-gallery-sequence") for head in server.heads]


def test_a_client_reads_what_it_wrote(client, server):
    """The number of its last write goes along with what it asks next; told that it is not there, it forgets it."""
    client.search([[1.0]])
    server.extra = {"x-gallery-sequence": "7"}
    client.add(["a"], [[1.0]])
    server.extra = {}
    client.search([[1.0]])
    problem = Problem.of(errors.Behind("at change 3"))
    server.answers = [(412, problem.body(1, "r"), False), (200, b"{}", False)]
    with pytest.raises(errors.Behind):
        client.search([[1.0]])
    client.search([[1.0]])

    assert sequences(server) == [None, None, "7", "7", None]


def test_an_awaited_client_is_closed_twice_without_harm(server):
    """By hand inside the block, and by the end of the block."""

    async def twice():
        async with AsyncClient(server.url, connections=2) as pool:
            await pool.versions()
            await pool.close()
        await pool.close()

    asyncio.run(asyncio.wait_for(twice(), 20))


def test_clients_of_one_pool_read_what_any_of_them_wrote(server):
    """The connections of an AsyncClient share the number."""

    async def both():
        async with AsyncClient(server.url, connections=2) as pool:
            server.extra = {"x-gallery-sequence": "9"}
            await pool.add(["a"], [[1.0]])
            server.extra = {}
            await asyncio.gather(*(pool.search([[1.0]]) for _ in range(4)))

    asyncio.run(both())

    assert sequences(server) == [None, *["9"] * 4]


def test_who_cannot_write_here_is_asked_on_a_new_connection(server):
    """A kept connection would ask the same worker again and again."""
    server.answers = [(409, Problem.of(errors.Locked("another")).body(1, "r"), False), (200, b"{}", False)]
    with Client(server.url, retries=1, pause=0.001) as client:
        client.add(["a"], [[1.0]])

    assert len({address for _, _, _, address in server.asked}) == 2


def test_a_connection_closed_while_idle_is_opened_again(client, server):
    """Servers close idle connections; that is nobody's error."""
    server.answers = [(200, b"{}", True), (200, b'{"second": 1}', False)]
    client.versions()

    assert client.versions() == {"second": 1}


def test_a_server_that_hangs_up_on_a_fresh_connection_is_unavailable(client, server):
    """Repeated once at most, and only on a connection that was kept."""
    server.answers = [(0, b"", True)]
    with pytest.raises(Unavailable, match="does not answer"):
        client.versions()

    assert len(server.asked) == 1


def test_a_repeated_admin_call_has_the_key_of_the_first(server):
    """A lost answer, on a fresh or a kept connection, repeats the call under its key; another call has another."""
    lost, good = (0, b"", True), (200, b"{}", False)
    with Client(server.url, retries=3, pause=0.001) as client:
        server.answers = [lost, good]
        client.admin("rollback")
        server.answers = [lost, good]
        client.admin("rollback")
        client.admin("rollback", key="mine", why="x")
    keys = [head["idempotency-key"] for head in server.heads]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert keys[4] == '"mine"'
    assert all(len(key) == 34 for key in keys[:4])
    assert asked(server)[4] == ("POST", "/v1/admin/rollback", {"why": "x"})


@pytest.mark.slow
def test_an_awaited_client_has_as_many_requests_under_way_as_connections(server):
    """Also more than the event loop's own threads: all of them meet in the server."""
    count = 40
    server.meeting = threading.Barrier(count, timeout=60)

    async def main():
        async with AsyncClient(server.url, connections=count, timeout=60) as pool:
            await asyncio.gather(*(pool.versions() for _ in range(count)))
            assert sum(thread.name.startswith("lifelong-client") for thread in threading.enumerate()) == count

    asyncio.run(main())
    assert len(server.asked) == count
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lifelong-client")]


def test_every_error_of_ours_survives_the_way(server, client):
    """What the server raises is what the client raises: same class, same sentence."""
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, LifelongError)]
    assert len(classes) > 8
    for kind in classes:
        problem = Problem.of(kind("what, got, do"))
        server.answers = [(problem.status, problem.body(1, "r"), False)]
        with pytest.raises(kind) as caught:
            client.versions()

        assert type(caught.value) is kind
        assert str(caught.value) == "what, got, do"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, DataError),
        (404, NotFound),
        (405, DataError),
        (408, Unavailable),
        (413, TooLarge),
        (415, DataError),
        (401, Forbidden),
        (403, Forbidden),
        (429, Busy),
        (500, LifelongError),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
def test_an_error_without_a_class_goes_by_its_status(status, kind):
    """Proxies answer too, in HTML."""
    for body in (Problem(status).body(None, "r"), b"<html>", b"[]", b""):
        assert type(refusal(status, body)) is kind


def test_a_foreign_class_name_is_not_looked_up():
    """Only classes of our tree can be raised by a server's answer."""
    body = json.dumps({"type": "urn:lifelong:error:KeyboardInterrupt", "detail": "x"}).encode()

    assert type(refusal(400, body)) is DataError


@pytest.mark.parametrize("body", [b"<html>", b""])
def test_an_answer_that_is_not_json_is_unavailable(client, server, body):
    """Another program listens there."""
    server.answers = [(200, body, False)]
    with pytest.raises(Unavailable, match="does not speak our protocol"):
        client.versions()


def test_nobody_listening_is_unavailable():
    """The message names the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with Client(url) as client:
        with pytest.raises(Unavailable, match=url):
            client.versions()
        assert client.ready() is False


def test_ready_waits_for_a_version(client, server):
    """503 until a version is live; an answer of 200 ends the waiting, whatever its body is."""
    busy = (503, Problem(503).body(None, "r"), False)
    server.answers = [busy, busy, (200, b"\n", False)]

    assert client.ready(timeout=30, pause=0.001)
    assert len(server.asked) == 3


@pytest.mark.parametrize("x", [[[float("nan")]], [[float("inf")]], [[object()]]])
def test_what_cannot_be_json_is_never_sent(client, server, x):
    """Refused here, with a reason."""
    with pytest.raises(DataError, match="cannot be sent as JSON"):
        client.embed(x)

    assert server.asked == []


@pytest.mark.parametrize(("url", "timeout"), [("ftp://a", 1), ("127.0.0.1:3000", 1), ("", 1), ("http://a", 0)])
def test_a_url_that_is_none_is_refused(url, timeout):
    """At construction, not at the first request."""
    with pytest.raises(ConfigError):
        Client(url, timeout=timeout)


def test_a_prefix_in_the_url_is_kept(server):
    """Behind a proxy the API may live below a path."""
    with Client(server.url + "/models/") as client:
        client.versions()

    assert asked(server) == [("GET", "/models/v1/versions", None)]


@pytest.mark.slow
def test_threads_may_share_a_client(client, server):
    """They take turns; no answer gets lost or mixed up."""
    server.answers = [(200, b'{"ok": 1}', False)]
    found = []
    threads = [threading.Thread(target=lambda: found.extend(client.versions()["ok"] for _ in range(5))) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [1] * 20


def test_the_client_needs_no_torch():
    """It runs where nothing heavy is installed."""
    import subprocess
    import sys

    code = "import sys, lifelong.client; print(sorted({'torch', 'numpy', 'bentoml', 'pydantic'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_token_is_sent_and_nothing_without_one(server):
    """On every request, GET and POST alike."""
    with Client(server.url, token="ll_abc") as client:
        client.versions()
        client.embed([[1.0]])
    with Client(server.url) as client:
        client.versions()
    told = [{k.lower(): v for k, v in head.items()}.get("authorization") for head in server.heads]
    assert told == ["Bearer ll_abc", "Bearer ll_abc", None]


@pytest.mark.parametrize("kind", [Unavailable, Busy, errors.Locked])
@pytest.mark.slow
def test_what_may_pass_is_asked_again_and_again(server, kind):
    """As often as was asked for, then raised; what will not pass is raised at once."""
    problem = Problem.of(kind("later"))
    bad = (problem.status, problem.body(1, "r"), False)
    with Client(server.url, retries=2, pause=0.001) as client:
        server.answers = [bad, bad, (200, b'{"ok": 1}', False)]
        assert client.versions() == {"ok": 1}
        server.answers, server.asked = [bad], []
        with pytest.raises(kind):
            client.versions()
        assert len(server.asked) == 3
        never = Problem.of(DataError("never"))
        server.answers, server.asked = [(never.status, never.body(1, "r"), False)], []
        with pytest.raises(DataError):
            client.versions()
        assert len(server.asked) == 1


@pytest.mark.parametrize("x", [np.ones((1, 2), np.float64), torch.ones(1, 2)])
def test_bytes_are_float32_and_the_rest_is_in_the_query(server, x):
    """Lists still go as JSON."""
    with Client(server.url, binary=True) as client:
        client.predict(x, top_k=3, remember=True)
        client.search(x, k=2)
        client.search(x, k=2, where={"a": 1})
        client.embed([[1.0, 1.0]])
    raw = np.ones(2, "<f4").tobytes()
    assert [(path, body) for _, path, body, _ in server.asked[:2]] == [
        ("/v1/predict?top_k=3&remember=true", raw),
        ("/v1/search?k=2", raw),
    ]
    assert [json.loads(body)["x"] for _, _, body, _ in server.asked[2:]] == [[[1.0, 1.0]]] * 2


def test_a_revision_of_no_label_is_refused(client, server):
    with pytest.raises(DataError, match="'p-2'"):
        client.feedback({"p-1": "dog"}, revisions={"p-2": 1})
    assert server.asked == []


def test_the_rest_of_the_routes_send_what_the_server_documents(client, server):
    client.get(["a"])
    client.feedback({"p-0": "cat"})
    client.feedback({"p-0": "cat", "p-1": "dog"}, revisions={"p-1": 3})
    client.labels()
    client.rollout()
    client.admin("canary", version=2, share=0.1)
    client.embed([[1.0]], version=3)
    assert asked(server) == [
        ("POST", "/v1/gallery/get", {"ids": ["a"]}),
        ("POST", "/v1/feedback", {"labels": [{"prediction": "p-0", "label": "cat"}]}),
        (
            "POST",
            "/v1/feedback",
            {"labels": [{"prediction": "p-0", "label": "cat"}, {"prediction": "p-1", "label": "dog", "revision": 3}]},
        ),
        ("GET", "/v1/labels", None),
        ("GET", "/v1/rollout", None),
        ("POST", "/v1/admin/canary", {"version": 2, "share": 0.1}),
        ("POST", "/v1/embed", {"x": [[1.0]], "model_version": 3}),
    ]


def test_the_awaited_client_does_the_same_over_several_connections(server):
    """Requests overlap, at most as many as there are connections; errors are the same; methods are the same."""
    server.answers = [(200, b'{"ok": 1}', False)]

    async def main():
        async with AsyncClient(server.url, connections=3) as client:
            found = await asyncio.gather(*(client.versions() for _ in range(12)))
            server.answers = [(404, Problem.of(NotFound("gone")).body(1, "r"), False)]
            with pytest.raises(NotFound):
                await client.embed([[1.0]], version=9)
            return found

    assert asyncio.run(main()) == [{"ok": 1}] * 12
    assert len({address for _, _, _, address in server.asked}) <= 3
    public = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
    assert public <= set(vars(AsyncClient))
