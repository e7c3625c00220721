"""A real server and thousands of requests that nobody meant: drawn from its own OpenAPI document, and made by hand."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import random
import socket
import warnings

import pytest
from servers import Server, get, wait

from lifelong.client import Client
from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
X = [[0.1, 0.2, 0.3, 0.4]]
EXAMPLES = 15  # per route, of requests that fit the document and of such that do not
BODY = 100_000  # bytes that the server takes
ANSWERED = ["/v1/predict", "/v1/embed", "/v1/search", "/v1/gallery/add", "/v1/gallery/get", "/v1/gallery/remove"]
JSON, NPY, RAW = ({"content-type": f"application/{kind}"} for kind in ("json", "x-npy", "octet-stream"))


@pytest.fixture(scope="module")
def server(tmp_path_factory, kit):
    """One server for all of this; each test leaves it answering."""
    found = Server(tmp_path_factory.mktemp("fuzz"))
    found.settings = {"LIFELONG_MAX_BODY_BYTES": str(BODY), "LIFELONG_TIMEOUT_SECONDS": "5"}
    Registry(found.folder / "registry", create=True).publish(kit.numbered(1))
    try:
        with found.start().up() as client:
            assert client.ready(60)
        yield found
    finally:
        found.kill()


def memory(server: Server) -> int:
    return sum(worker.memory_info().rss for worker in server.workers())


def well(server: Server) -> None:
    """It answers as ever, and no request was a bug to it."""
    with Client(server.url) as client:
        assert client.predict(X)["version"] == 1
    assert "Traceback" not in server.log


def short(status: int, body: bytes) -> None:
    """Anything but success is a problem document below 1 KB, and never the server's fault."""
    assert status < 500, (status, body)
    if status >= 400:
        told = json.loads(body)
        assert len(body) < 1024
        assert set(told) == {"type", "title", "status", "detail", "version", "request_id"}
        assert told["status"] == status


def operations(server: Server):
    with warnings.catch_warnings():  # of its own imports
        warnings.simplefilter("ignore")
        import schemathesis

        schema = schemathesis.openapi.from_dict(json.loads(get(server, "/docs.json")[1]))
    found = [each.ok() for each in schema.get_all_operations()]
    return [each for each in found if each.path != "/ui/events"]  # answers for 16 seconds


def examples(server: Server) -> dict[str, dict]:
    """The document's own request for each route that takes one."""
    document = json.loads(get(server, "/docs.json")[1])
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    names = {path: post["requestBody"]["content"]["application/json"]["schema"]["$ref"] for path, post in posts.items()}
    return {path: document["components"]["schemas"][ref.split("/")[-1]]["example"] for path, ref in names.items()}


def fuzzed(server: Server, operation, mode: str, example: dict | None) -> set[int]:
    """Hold every answer to requests of one route against the document; return the statuses there were."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import hypothesis
        import schemathesis
        from schemathesis.specs.openapi import checks

        laws = [schemathesis.checks.not_a_server_error, checks.status_code_conformance]
        laws += [checks.content_type_conformance, checks.response_schema_conformance]
        statuses = set()

        @hypothesis.seed(7)
        @hypothesis.settings(
            max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(schemathesis.GenerationMode[mode]))
        def holds(case):
            answer = case.call(base_url=server.url, timeout=30)
            statuses.add(answer.status_code)
            short(answer.status_code, answer.content)
            case.validate_response(answer, checks=laws)

        if example and mode == "POSITIVE":
            shown = operation.Case(method="POST", body=example, media_type="application/json")
            holds = hypothesis.example(case=shown)(holds)
        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with some routes
            holds()
    return statuses


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_what_the_document_says_is_what_the_server_does(server, mode):
    """Drawn requests, good and bad, and its own examples: each answer is documented, and none is above 499."""
    given = examples(server)
    statuses = {each.path: fuzzed(server, each, mode, given.get(each.path)) for each in operations(server)}
    well(server)

    assert set(statuses) >= {"/v1/predict", "/v1/search", "/v1/gallery/add", "/v1/admin/promote"}
    assert 400 in statuses["/v1/predict"]
    if mode == "POSITIVE":
        for path in ANSWERED:
            assert 200 in statuses[path], path


def ask(server: Server, method: str, path: str, body: object, head: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    chunked = not isinstance(body, bytes)
    try:
        connection.request(method, path, body, head, encode_chunked=chunked)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def npy(kind: str, size: int, data: bytes) -> bytes:
    """A .npy file that says of itself what it likes."""
    told = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': ({size},), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(told).to_bytes(2, "little") + told.encode() + data


HOSTILE = [
    ("NaN", "/v1/predict", b'{"x": [[NaN, 1, 1, 1]]}', JSON),
    ("infinite", "/v1/predict", b'{"x": [[1e999, 1, 1, 1]]}', JSON),
    ("too large for float32", "/v1/predict", b'{"x": [[1e39, 1, 1, 1]]}', JSON),
    ("ragged", "/v1/predict", b'{"x": [[1, 2], [1, 2, 3, 4]]}', JSON),
    ("deep", "/v1/embed", b'{"x": ' + b"[" * 45_000 + b"]" * 45_000 + b"}", JSON),
    ("long number", "/v1/predict", b'{"x": [[' + b"9" * 90_000 + b", 1, 1, 1]]}", JSON),
    ("many keys", "/v1/predict", json.dumps({f"k{n}": n for n in range(8000)}).encode(), JSON),
    ("twice the key", "/v1/predict", b'{"x": [[1, 1, 1, 1]], "x": "a"}', JSON),
    ("lone surrogate", "/v1/gallery/get", b'{"ids": ["\\ud800"]}', JSON),
    ("no UTF-8", "/v1/gallery/get", b'{"ids": ["\xff\xfe"]}', JSON),
    ("null bytes", "/v1/gallery/get", b'{"ids": ["\\u0000"]}', JSON),
    ("path as id", "/v1/gallery/get", b'{"ids": ["../../../etc/passwd"]}', JSON),
    ("SQL as id", "/v1/gallery/remove", b"""{"ids": ["a'); DROP TABLE items; --"]}""", JSON),
    ("a huge k", "/v1/search", b'{"x": [[1, 1, 1, 1]], "k": 99999999999999999999}', JSON),
    ("a huge sequence", "/v1/search", b'{"x": [[1, 1, 1, 1]]}', {**JSON, "x-gallery-sequence": "9" * 18}),
    ("gzip bomb", "/v1/predict", gzip.compress(b"[" * 2**24), {**JSON, "content-encoding": "gzip"}),
    ("pickle", "/v1/predict", b"\x80\x04\x95", {"content-type": "application/vnd.bentoml+pickle"}),
    ("pickle in npy", "/v1/predict", npy("|O", 1, b"\x80\x04K\x01."), NPY),
    ("npy of a terabyte", "/v1/predict", npy("<f4", 2**38, b"abcd"), NPY),
    ("raw NaN", "/v1/predict", b"\xff" * 16, RAW),
    ("half a number", "/v1/predict", b"abc", RAW),
    ("query of bytes", "/v1/predict?top_k=-1&x=5&model_version=1e9", bytes(16), RAW),
    ("a form", "/v1/predict", b"x=1", {"content-type": "application/x-www-form-urlencoded"}),
    ("an upload", "/v1/predict", b"--b--", {"content-type": "multipart/form-data; boundary=b"}),
    ("92 MB", "/v1/predict", iter([b" " * 2**20] * 92), JSON),
    ("a long head", "/v1/predict", b'{"x": [[1, 1, 1, 1]]}', {**JSON, "x-request-id": "a" * 30_000}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "head"), [each[1:] for each in HOSTILE], ids=[each[0] for each in HOSTILE])
def test_a_hostile_body_costs_a_short_no(server, path, body, head):
    """Whatever it is, it is refused (or harmless) in less than 1 KB."""
    try:
        status, answer = ask(server, "POST", path, body, head)
    except (BrokenPipeError, ConnectionResetError):  # it is not read to its end, however long it is
        assert not isinstance(body, bytes)
    else:
        short(status, answer)
    well(server)


PATHS = [
    "/../../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/v1/../v1/admin/promote",
    "//v1/versions",
    "/v1/versions/",
]
PATHS += ["/v1//versions", "/ui/../../settings.py", "/ui%00.html", "/" + "a" * 8000, "/%ff%fe", "/v1/versions;a=b"]
PATHS += ["/docs.json/../metrics", "/V1/VERSIONS"]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
@pytest.mark.parametrize("method", ["GET", "POST", "BREW"])
def test_no_trick_with_a_path_leads_anywhere(server, path, method):
    """What is served is served under one spelling."""
    status, answer = ask(server, method, path, b"{}", JSON)
    assert 400 <= status < 500
    assert len(answer) < 1024
    assert b"root:" not in answer


def test_memory_and_metrics_stay_where_they_are(server):
    """2,000 random URLs, large bodies and slow ones leave nothing behind."""
    draw = random.Random(7)
    for _ in range(3):
        ask(server, "POST", "/v1/predict", b" " * 4 * BODY, JSON)
    before, size = memory(server), len(get(server, "/metrics")[1])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(2000):
        path = "/" + "".join(draw.choices("abcdefghij/%-_.~", k=draw.randint(1, 60))).replace("%", "%20")
        connection.request(draw.choice(["GET", "POST", "PUT"]), path, b"{}", JSON)
        response = connection.getresponse()
        assert response.status in (404, 405), path
        assert len(response.read()) < 1024
    connection.close()
    for _ in range(100):
        assert ask(server, "POST", "/v1/predict", b" " * 4 * BODY, JSON)[0] == 413
    slow = []
    for _ in range(50):
        one = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        one.sendall(b"POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
        slow.append(one)
    well(server)  # while they wait
    assert {one.recv(100).split(b" ")[1] for one in slow} == {b"408"}
    for one in slow:
        one.close()

    assert len(get(server, "/metrics")[1]) < size + 5000
    wait(lambda: memory(server) < 1.2 * before)
    well(server)
