"""The service in one process: what it answers, how it refuses, and what it documents."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

from lifelong.errors import DataError
from serving.exchange import Exchange
from serving.live import Live
from serving.settings import Settings

pytestmark = pytest.mark.slow  # together too long for `make fast`

with warnings.catch_warnings():  # bentoml's own imports, and starlette would rather have httpx2
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running, wait
    from starlette.testclient import TestClient

    from serving import answers, forms, service
    from serving.edge import Edge
    from serving.pages import GETS


@pytest.fixture
def client(registry, tmp_path, kit):
    """A service with version 1 live."""
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path) as found:
        yield found


def test_predict_answers_with_labels_and_probabilities(client, kit):
    """Only known labels share the probability, though columns without labels have far larger logits."""
    told = checked(client.post("/v1/predict", json={"x": X, "top_k": 3}))

    assert told["version"] == 1
    for prediction in told["predictions"]:
        shares = [guess["probability"] for guess in prediction["top"]]
        expected = np.exp([0.01, 0.0, 0.0]) / np.exp([0.01, 0.0, 0.0]).sum()
        np.testing.assert_allclose(shares, expected, rtol=1e-5)
        assert {guess["label"] for guess in prediction["top"]} == set(kit.labels)
        assert (prediction["label"], prediction["probability"]) == ("ant", shares[0])


@pytest.mark.parametrize("remember", [False, True])
def test_what_is_written_as_it_is_has_the_fields_that_are_documented(client, remember):
    """An answer to predict is not checked on its way out: all fields, no others, in the documented order."""
    body = client.post("/v1/predict", json={"x": X, "top_k": 2, "remember": remember}).content
    told = answers.Predictions.model_validate_json(body, strict=True)

    assert told.model_dump_json().encode() == body
    assert all((prediction.id is not None) == remember for prediction in told.predictions)


def test_a_worker_that_ends_has_written_what_it_counted(registry, tmp_path, kit):
    """Also what it would have written only with its next look at the registry."""
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path, poll_seconds=60.0) as client:
        checked(client.post("/v1/predict", json={"x": X}))
        metrics = client.runtime.telemetry.registry
        before = metrics.get_sample_value("lifelong_rows_total", {"route": "/v1/predict"})

    assert before == 0
    assert metrics.get_sample_value("lifelong_rows_total", {"route": "/v1/predict"}) == len(X)


def test_a_query_is_read_however_long_it_is(client):
    """Short ones are remembered, long ones are not; both say the same, also the second time."""
    body, head = np.float32(X).tobytes(), {"content-type": "application/octet-stream"}
    for _ in range(2):
        short = client.post("/v1/predict?top_k=2", content=body, headers=head)
        long = client.post(f"/v1/predict?{'top_k=1&' * 40}top_k=2", content=body, headers=head)
        wrong = client.post(f"/v1/predict?top_k={'9' * 300}", content=body, headers=head)

        assert [len(p["top"]) for p in checked(short)["predictions"]] == [2] * len(X)
        assert checked(long)["predictions"] == checked(short)["predictions"]
        assert wrong.status_code == 400


def test_top_k_is_one_unless_asked_and_never_more_than_the_labels(client):
    """Three labels, however many were asked for."""
    one = checked(client.post("/v1/predict", json={"x": X}))["predictions"][0]
    all_of_them = checked(client.post("/v1/predict", json={"x": X, "top_k": 100}))["predictions"][0]

    assert (len(one["top"]), len(all_of_them["top"])) == (1, 3)


def test_a_single_sample_is_a_batch_of_one(client):
    """Both forms give the same answer."""
    single = checked(client.post("/v1/embed", json={"x": X[0]}))["vectors"]

    assert single == checked(client.post("/v1/embed", json={"x": X[:1]}))["vectors"]


def test_embed_is_what_the_model_says(client, kit):
    """Against the model itself, built outside the server."""
    told = checked(client.post("/v1/embed", json={"x": X}))
    with torch.no_grad():
        expected = kit.numbered_model(1).eval()(torch.tensor(X)).features

    np.testing.assert_allclose(told["vectors"], expected.numpy(), rtol=1e-6)
    assert told["space"] == kit.numbered(1).space.id


def test_rows_that_are_added_are_found_by_sample_and_by_vector(client):
    """The round trip: add, search with x, search with vectors, filter, remove."""
    added = checked(
        client.post("/v1/gallery/add", json={"ids": ["a", 2], "x": X, "payload": [{"shop": "s"}, {"shop": "t"}]})
    )
    embedded = checked(client.post("/v1/embed", json={"x": X}))
    by_x = checked(client.post("/v1/search", json={"x": X, "k": 1}))
    vectors = {"vectors": embedded["vectors"], "space": embedded["space"], "k": 1}
    by_vector = checked(client.post("/v1/search", json=vectors))
    only_t = checked(client.post("/v1/search", json={"x": X[:1], "k": 5, "where": {"shop": "t"}}))

    assert (added["added"], added["sequence"], added["space"]) == (2, 2, embedded["space"])
    assert [[hit["id"] for hit in hits] for hits in by_x["hits"]] == [["a"], ["2"]]
    assert by_x["hits"] == by_vector["hits"]
    assert by_x["hits"][0][0] == {
        "id": "a",
        "score": pytest.approx(1.0, abs=1e-6),
        "space": added["space"],
        "payload": {"shop": "s"},
    }
    assert [hit["id"] for hit in only_t["hits"][0]] == ["2"]
    removed = checked(client.post("/v1/gallery/remove", json={"ids": ["a", "nobody"]}))
    assert (removed["removed"], removed["missing"]) == (1, 1)
    assert checked(client.get("/v1/gallery"))["rows"] == 1


def test_a_request_may_ask_to_see_a_change(client):
    """The answer to a write names it in its head; what is not there, or no number, is said."""
    added = client.post("/v1/gallery/add", json={"ids": ["a"], "x": X[:1]})
    assert added.headers["x-gallery-sequence"] == str(checked(added)["sequence"]) == "1"
    see = {"headers": {"x-gallery-sequence": "1"}}
    assert checked(client.post("/v1/search", json={"x": X[:1]}, **see))["hits"][0][0]["id"] == "a"
    assert checked(client.get("/v1/gallery", **see))["rows"] == 1
    for route, body in (("/v1/search", {"x": X[:1]}), ("/v1/gallery/get", {"ids": ["a"]})):
        told = checked(client.post(route, json=body, headers={"x-gallery-sequence": "2"}), 412)
        assert told["title"] == "Behind" and "at change 1, and the request wants to see 2" in told["detail"]
        assert (
            "x-gallery-sequence"
            in checked(client.post(route, json=body, headers={"x-gallery-sequence": "-1"}), 400)["detail"]
        )
    assert "x-gallery-sequence" not in client.post("/v1/search", json={"x": X[:1]}).headers


def test_vectors_of_another_space_are_refused(client):
    """A client that embedded before a swap must not get hits that mean nothing."""
    vectors = {"vectors": [[1.0, 2.0, 3.0, 4.0]], "space": "elsewhere"}
    told = checked(client.post("/v1/search", json=vectors), 409)

    assert told["type"] == "urn:lifelong:error:SpaceError"
    assert "embed again" in told["detail"]


def test_versions_tell_what_happened(client, registry, kit, tmp_path):
    """Live, retired, rejected with the reason, published with the gate's report."""
    from lifelong.release.report import Check, Report

    first = kit.numbered(1)
    report = Report((Check("finite", True, "all weights are finite"),))
    registry.publish(kit.numbered(2, reads=[first]), report)
    wait(lambda: client.runtime.version() == 2)
    registry.publish(kit.numbered(3, inputs=5))
    wait(lambda: client.runtime.slot.rejected)
    told = checked(client.get("/v1/versions"))

    assert (told["version"], told["retired"], told["pointer"], told["total"], told["labels"]) == (2, [1], 3, 3, 3)
    assert told["rejected"][0]["version"] == 3
    assert "input shape" in told["rejected"][0]["reason"]
    assert [each["version"] for each in told["versions"]] == [3, 2, 1]
    assert told["versions"][1]["report"] == report.as_dict()


def test_a_major_release_is_told_in_every_answer_and_the_health_of_what_is_live(client, registry, kit):
    """Search, versions and metrics: how many rows cannot be read, the level, and the figures of the manifest."""
    from dataclasses import replace

    checked(client.post("/v1/gallery/add", json={"ids": ["a", "b"], "x": [X[0], X[0]]}))
    told = checked(client.post("/v1/search", json={"x": X}))
    assert (told["unreadable"], told["unreadable_rows"]) == ([], 0)
    health = {"embedding_effective_rank": 3.5, "embedding_cka": 0.25}
    registry.publish(replace(kit.numbered(2), level="major", metrics=health))
    wait(lambda: client.runtime.version() == 2)
    told = checked(client.post("/v1/search", json={"x": X}))
    versions = checked(client.get("/v1/versions"))

    assert (len(told["unreadable"]), told["unreadable_rows"], told["hits"][0]) == (1, 2, [])
    assert (versions["level"], versions["unreadable"]) == ("major", 2)
    assert versions["health"] == {"effective_rank": 3.5, "cka": 0.25}
    assert [each["level"] for each in versions["versions"]] == ["major", None]
    wait(lambda: b"lifelong_embedding_effective_rank 3.5" in client.get("/metrics").content)
    shown = client.get("/metrics").text
    assert "lifelong_embedding_cka 0.25" in shown
    assert "lifelong_embedding_norm_mean NaN" in shown  # nobody measured it


def test_a_swap_is_seen_by_the_next_request(client, registry, kit):
    """Body, head and content change together."""
    registry.publish(kit.numbered(2, reads=[kit.numbered(1)]))
    wait(lambda: client.runtime.version() == 2)
    told = checked(client.post("/v1/predict", json={"x": X, "top_k": 2}))

    assert told["version"] == kit.number_in(told["predictions"][0]) == 2


def test_before_the_first_version(registry, tmp_path, kit):
    """Alive and not ready: 503 with the reason; versions, gallery and metrics answer."""
    with running(registry, tmp_path) as client:
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), client.post("/v1/predict", json={"x": X})):
            assert "nothing is live yet" in checked(response, 503)["detail"]
            assert response.headers["retry-after"] == "1"
        assert checked(client.get("/v1/versions"))["version"] is None
        assert checked(client.get("/v1/gallery"))["version"] is None
        assert "lifelong_live_version 0.0" in client.get("/metrics").text
        registry.publish(kit.numbered(1))
        wait(lambda: client.get("/readyz").status_code == 200)


def test_a_missing_registry_is_no_error(tmp_path):
    """It may come later; until then nothing is published."""
    made = service.make(Settings(registry=tmp_path / "nowhere", state=tmp_path / "state"))
    assert isinstance(made.to_asgi(), Edge)  # what we answer ourselves passes none of BentoML's layers
    with TestClient(made.to_asgi()) as client:
        told = checked(client.get("/v1/versions"))

    assert (told["total"], told["versions"]) == (0, [])


BAD = [
    ("/v1/predict", {}, "'x' is missing"),
    ("/v1/predict", {"x": X, "topk": 1}, "did you mean 'top_k'?"),
    ("/v1/predict", {"x": X, "zzzzzz": 1}, "known are: x, top_k"),
    ("/v1/predict", {"x": X, "a\nb" * 500: 1}, "there is no field"),
    ("/v1/predict", {"x": [["a"] * 4]}, "a string"),
    ("/v1/predict", {"x": [[True] * 4]}, "true or false"),
    ("/v1/predict", {"x": [[None] * 4]}, "null"),
    ("/v1/predict", {"x": [[1, 2, 3, 4], [1]]}, "rectangular"),
    ("/v1/predict", {"x": []}, "empty"),
    ("/v1/predict", {"x": None}, "null"),
    ("/v1/predict", {"x": "abcd"}, "a string"),
    ("/v1/predict", {"x": {"0": 1}}, "an object"),
    ("/v1/predict", {"x": [[1, 2, 3]]}, "shape [4], got [1, 3]"),
    ("/v1/predict", {"x": [[0.5] * 4] * 257}, "at most 256"),
    ("/v1/predict", {"x": [[1e300] * 4]}, "finite"),
    ("/v1/predict", {"x": [[10**300] * 4]}, "finite"),
    ("/v1/predict", {"x": X, "top_k": 0}, "top_k must be"),
    ("/v1/predict", {"x": X, "top_k": 101}, "1..100"),
    ("/v1/predict", {"x": X, "top_k": 1.5}, "top_k must be"),
    ("/v1/predict", {"x": X, "top_k": True}, "top_k must be"),
    ("/v1/predict", {"x": X, "top_k": None}, "top_k must be"),
    ("/v1/search", {}, "either x or vectors"),
    ("/v1/search", {"x": X, "vectors": X}, "either x or vectors"),
    ("/v1/search", {"x": X, "k": 101}, "k must be"),
    ("/v1/search", {"x": X, "k": -1}, "k must be"),
    ("/v1/search", {"x": X, "where": [1]}, "where must be"),
    ("/v1/search", {"vectors": X}, "space"),
    ("/v1/gallery/add", {"ids": ["a"]}, "'x' is missing"),
    ("/v1/gallery/add", {"ids": ["a"], "x": X}, "one sample per id"),
    ("/v1/gallery/add", {"ids": ["a", "a"], "x": X}, "twice"),
    ("/v1/gallery/add", {"ids": ["a", "b"], "x": X, "payload": [1, 2]}, "payload[0]"),
    ("/v1/gallery/remove", {"ids": []}, "ids must be"),
    ("/v1/gallery/remove", {"ids": [{}]}, "ids[0]"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory, kit):
    """One service for the tables of bad requests: none of them may leave a trace in it."""
    from lifelong.release.registry import Registry

    folder = tmp_path_factory.mktemp("shared")
    registry = Registry(folder / "registry", create=True)
    registry.publish(kit.numbered(1))
    with running(registry, folder) as found:
        yield found
        assert checked(found.get("/v1/gallery"))["rows"] == 0


@pytest.mark.parametrize(("route", "body", "hint"), BAD)
def test_bad_input_is_a_short_400(shared, caplog, route, body, hint):
    """One sentence with the reason; no traceback, nothing stored."""
    with caplog.at_level(logging.WARNING):
        told = checked(shared.post(route, json=body), 400)

    assert hint in told["detail"]
    assert told["type"] == "urn:lifelong:error:DataError"
    assert [record for record in caplog.records if record.exc_info] == []


def test_numbers_that_are_too_large_for_the_model_are_a_400(registry, tmp_path, kit):
    """Finite input, infinite answer: JSON has no word for it, and cosines with it mean nothing."""
    from lifelong.labels import LabelMap
    from lifelong.release.snapshot import Snapshot

    model = kit.numbered_model(1)
    model.backbone.layers[0].weight.data *= 1000
    registry.publish(Snapshot.of(model, LabelMap(kit.labels), probe_x=torch.rand(2, 4)))
    with running(registry, tmp_path) as client:
        for route in ("/v1/predict", "/v1/embed", "/v1/search"):
            told = checked(client.post(route, json={"x": [[3e38, 3e38, 3e38, 3e38]]}), 400)
            assert "not finite" in told["detail"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"x": [[NaN]]}', b'{"x": "\xff"}', b'{"x": "\\ud800"}', b"[" * 100000]
)
def test_malformed_json_is_a_400(shared, body):
    """Also an empty body, and other JSON than an object."""
    checked(shared.post("/v1/predict", content=body, headers={"content-type": "application/json"}), 400)


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/vnd.bentoml+pickle", "multipart/form-data; boundary=x", "application/x-ndjson"],
)
def test_another_content_type_is_a_415(shared, kind):
    """Pickle above all."""
    told = checked(shared.post("/v1/predict", content=b"x", headers={"content-type": kind} if kind else {}), 415)

    assert "application/json" in told["detail"]


def test_the_content_type_may_have_parameters(shared):
    """And any case."""
    head = {"content-type": "Application/JSON; charset=utf-8"}

    checked(shared.post("/v1/embed", content=json.dumps({"x": X}), headers=head))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/v1/predictt", 404),
        ("GET", "/v1/predict", 405),
        ("DELETE", "/v1/versions", 405),
    ],
)
def test_unknown_routes_and_methods_are_problems_too(shared, method, path, status):
    """One error format everywhere; 405 says what is allowed."""
    response = shared.request(method, path)
    checked(response, status)

    assert ("allow" in response.headers) == (status == 405)


def chunks(size, count):
    for _ in range(count):
        yield b" " * size


def test_large_bodies_are_413_declared_or_not(registry, tmp_path, kit):
    """Counted while they arrive; nothing more than the limit is held."""
    registry.publish(kit.numbered(1))
    head = {"content-type": "application/json"}
    with running(registry, tmp_path, max_body_bytes=2000) as client:
        declared = client.post("/v1/embed", content=b" " * 2001, headers=head)
        chunked = client.post("/v1/embed", content=chunks(500, 5), headers=head)
        endless = client.post("/v1/embed", content=chunks(500, 10**4), headers=head)
        absurd = client.post("/v1/embed", content=b"", headers=head | {"content-length": "9" * 5000})
        just_right = client.post("/v1/embed", content=json.dumps({"x": X}).encode().ljust(2000), headers=head)

    for response in (declared, chunked, endless, absurd):
        assert checked(response, 413)["type"] == "urn:lifelong:error:TooLarge"
    checked(just_right)


def test_a_slow_answer_is_504_and_too_many_are_429(registry, tmp_path, kit, monkeypatch):
    """Limits of our own, in the one format; health and metrics are always answered."""
    registry.publish(kit.numbered(1))
    gate, embed = threading.Event(), Live.embed
    monkeypatch.setattr(Live, "embed", lambda self, x: gate.wait(30) and embed(self, x))
    with running(registry, tmp_path, timeout_seconds=1.0, max_concurrency=1) as client:
        found = []
        thread = threading.Thread(target=lambda: found.append(client.post("/v1/embed", json={"x": X})))
        thread.start()
        wait(lambda: client.runtime._in_flight)
        busy = client.post("/v1/predict", json={"x": X})
        calm = [client.get(path).status_code for path in ("/livez", "/readyz", "/metrics")]
        thread.join()
        gate.set()
        slow = found[0]
        after = client.post("/v1/predict", json={"x": X})

    assert "retry-after" in busy.headers and checked(busy, 429)
    assert calm == [200, 200, 200]
    checked(slow, 504)
    checked(after)


def test_a_bug_is_a_500_without_details_and_leaves_a_traceback(client, caplog, monkeypatch):
    """The client learns the request id, the log the rest."""
    monkeypatch.setattr(Live, "embed", lambda self, x: 1 / 0)
    told = checked(client.post("/v1/embed", json={"x": X}, headers={"x-request-id": "abc-1"}), 500)

    assert told["request_id"] == "abc-1"
    assert "division" not in json.dumps(told)
    assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_a_plain_request_id_is_kept(shared, given, kept):
    """Anything else is replaced: it goes into logs and headers."""
    told = checked(shared.post("/v1/embed", json={"x": X}, headers={"x-request-id": given}))

    assert (told["request_id"] == given) == kept
    assert told["request_id"]


def test_metrics_are_bounded_and_count(client):
    """Labels are route templates: a scan of 300 paths adds one line per status, not 300."""
    checked(client.post("/v1/embed", json={"x": X}))
    for n in range(300):
        client.get(f"/scan/{n}")
    text = client.get("/metrics").text

    assert 'lifelong_requests_total{code="404",route="unmatched"} 300.0' in text
    assert 'lifelong_requests_total{code="200",route="/v1/embed"} 1.0' in text
    assert 'lifelong_rows_total{route="/v1/embed"} 2.0' in text
    assert 'lifelong_swaps_total{outcome="live"} 1.0' in text
    assert "lifelong_live_version 1.0" in text
    assert "/scan" not in text


def test_gauges_tell_what_the_gallery_holds(client, kit):
    """Rows by space and in all, segments, bytes; and how many rows were not let in."""
    client.post("/v1/gallery/add", json={"ids": ["a", "b"], "x": X})
    assert client.post("/v1/gallery/add", json={"ids": ["c", "d"], "x": X, "payload": [{}, 1]}).status_code == 400
    space = kit.numbered(1).space.id

    def shown():
        lines = [line.rpartition(" ") for line in client.get("/metrics").text.splitlines()]
        return {name: float(value) for name, _, value in lines if name.startswith("lifelong_gallery")}

    wait(lambda: shown()["lifelong_gallery_rows"] == 2)
    found = shown()
    assert found[f'lifelong_gallery_space_rows{{space="{space}"}}'] == 2
    assert found["lifelong_gallery_bytes"] == 2 * 4 * 4
    assert found["lifelong_gallery_segments"] == found["lifelong_gallery_refused_segments"] == 0
    assert found["lifelong_gallery_refused_rows_total"] == 2


@pytest.mark.e2e
def test_rows_may_lie_in_postgresql(registry, tmp_path, kit, database):
    """Set by one variable; two servers share them, and each finds what the other stored."""
    registry.publish(kit.numbered(1))
    with contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(running(registry, tmp_path / name, gallery=database)) for name in ("one", "two")
        )
        checked(one.post("/v1/gallery/add", json={"ids": ["a"], "x": X[:1], "payload": [{"shop": "s"}]}))
        checked(two.post("/v1/gallery/add", json={"ids": ["b"], "x": X[1:]}))
        for client in (one, two):
            wait(lambda: client.get("/v1/gallery").json()["rows"] == 2)  # noqa: B023
            found = checked(client.post("/v1/search", json={"x": X, "k": 1}))
            assert [[hit["id"] for hit in hits] for hits in found["hits"]] == [["a"], ["b"]]
        assert not (tmp_path / "one" / "state" / "gallery").exists()


def test_the_document_describes_every_route(shared):
    """Typed requests with examples, typed answers, one error schema; no dangling reference."""
    document = shared.get("/docs.json").json()
    text, schemas = json.dumps(document), document["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}

    assert {*service.POSTS, *GETS} == set(document["paths"])
    assert references <= set(schemas)
    for route, (form, answer) in service.POSTS.items():
        operation = document["paths"][route]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert body.endswith("/" + form.__name__)
        assert set(schemas[form.__name__]["properties"]) == set(form.model_fields)
        said = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        assert said.endswith("/" + answer.__name__)
        assert "application/problem+json" in operation["responses"]["400"]["content"]


def test_the_examples_in_the_document_are_accepted(tmp_path, kit):
    """An example that does not work is worse than none: their samples are of the live version's shape."""
    from lifelong.release.registry import Registry

    other = Registry(tmp_path / "other", create=True)
    other.publish(kit.numbered(1, inputs=5))
    with running(other, tmp_path / "more") as small:
        document = small.get("/docs.json").json()
        for route, (form, _) in service.POSTS.items():
            checked(small.post(route, json=document["components"]["schemas"][form.__name__]["example"]))


def test_endpoints_can_be_called_without_http(registry, tmp_path, kit):
    """The same code, for unit tests: a form in, a response out."""
    registry.publish(kit.numbered(1))
    made = service.make(Settings(registry=registry.root, state=tmp_path / "state"))
    endpoints = made.inner()
    endpoints.start()
    try:
        form = forms.EmbedForm.read(json.dumps({"x": X}).encode(), Exchange("r-1"))
        response = endpoints.embed(form)
    finally:
        endpoints.stop()

    assert json.loads(response.body)["request_id"] == "r-1"
    assert response.headers["x-model-version"] == "1"


def test_a_form_names_the_nearest_field():
    """Before any model is asked."""
    with pytest.raises(DataError, match="did you mean 'payload'"):
        forms.AddForm.read(b'{"ids": ["a"], "x": [1], "payloads": []}')


def test_the_server_loads_nothing_it_does_not_need():
    """Import budget, in a fresh process; OpenMP is told before torch is loaded."""
    code = """
import os, sys
os.environ.pop("OMP_NUM_THREADS", None)
import serving.service, torch
heavy = {"avalanche", "torchvision", "matplotlib", "ray", "sklearn", "strategies", "pandas"}
print(sorted(heavy & set(sys.modules)), os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)

    assert done.stdout == "[] 1 1\n", done.stderr


def test_a_second_start_in_one_process_works(registry, tmp_path, kit):
    """Metrics and locks of the first are gone."""
    registry.publish(kit.numbered(1))
    for _ in range(2):
        with running(registry, tmp_path) as client:
            checked(client.post("/v1/embed", json={"x": X}))
