"""Samples as bytes, rows by id, pages of hits: the same answers as with JSON, and short refusals of everything else."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

pytestmark = pytest.mark.slow

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running

NPY, RAW = "application/x-npy", "application/octet-stream"


@pytest.fixture(scope="module")
def shared(tmp_path_factory, kit):
    from lifelong.release.registry import Registry

    folder = tmp_path_factory.mktemp("routes")
    registry = Registry(folder / "registry", create=True)
    registry.publish(kit.numbered(1))
    with running(registry, folder, max_rows=8) as found:
        yield found


def npy(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def sent(client, route, body, kind, status=200):
    return checked(client.post(route, content=body, headers={"content-type": kind}), status)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "<i8", "u1"])
def test_bytes_say_what_json_says(shared, dtype):
    """Predict, embed and search, as `.npy` of any number type and as bare float32; options are in the query."""
    x = np.array([[0, 1, 2, 3], [4, 5, 6, 7]], dtype=dtype)
    raw = x.astype("<f4").tobytes()
    for route, query, key in (
        ("/v1/predict", "?top_k=3", "predictions"),
        ("/v1/embed", "", "vectors"),
        ("/v1/search", "?k=2", "hits"),
    ):
        options = {"top_k": 3} if "top_k" in query else {"k": 2} if query else {}
        json = checked(shared.post(route, json={"x": x.tolist(), **options}))[key]
        assert sent(shared, route + query, npy(x), NPY)[key] == json
        assert sent(shared, route + query, raw, RAW)[key] == json
    assert len(sent(shared, "/v1/embed", raw[:16], RAW)["vectors"]) == 1


class Evil:
    """Would be run if it were ever unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


BAD = [
    (b"", NPY, ".npy"),
    (b"\x93NUMPY", NPY, ".npy"),
    (npy(np.zeros((2, 4), "<f4"))[:-3], NPY, ".npy"),
    (npy(np.array([Evil()], dtype=object), allow_pickle=True), NPY, ".npy"),
    (npy(np.array(["a"])), NPY, "numbers"),
    (npy(np.zeros((1, 4), "<c8")), NPY, "numbers"),
    (npy(np.zeros((2, 3), "<f4")), NPY, "shape [4]"),
    (npy(np.zeros((9, 4), "<f4")), NPY, "at most 8"),
    (npy(np.zeros((0, 4), "<f4")), NPY, "empty"),
    (npy(np.full((1, 4), np.nan, "<f4")), NPY, "finite"),
    (npy(np.zeros((1, 4), "<f4")).replace(b"(1, 4)", b"(1, -4)"), NPY, ""),
    (npy(np.zeros((1, 4), "<f4")).replace(b"(1, 4), }", b"(99999999999, 4), }"), NPY, ""),
    (b"", RAW, "multiple of 4"),
    (b"abc", RAW, "multiple of 4"),
    (b"\0" * 12, RAW, "shape [4]"),
    (np.full(4, np.inf, "<f4").tobytes(), RAW, "finite"),
]


@pytest.mark.parametrize(("body", "kind", "hint"), BAD)
def test_bad_bytes_are_a_short_400_and_never_a_pickle(shared, body, kind, hint):
    assert hint in sent(shared, "/v1/predict", body, kind, 400)["detail"]


@pytest.mark.parametrize("query", ["?nope=1", "?top_k=x", "?x=1&top_k=0", "?top_k=" + "9" * 400, "?remember=yes"])
def test_a_bad_query_is_a_400(shared, query):
    sent(shared, "/v1/predict" + query, np.zeros(4, "<f4").tobytes(), RAW, 400)


@pytest.mark.parametrize("route", ["/v1/gallery/add", "/v1/feedback", "/v1/admin/promote"])
def test_bytes_are_for_samples_only(shared, route):
    sent(shared, route, b"\0" * 16, RAW, 415)


def test_rows_are_got_by_id_overwritten_and_gone_when_removed(registry, tmp_path, kit):
    """Vectors bit for bit as `embed` returned them; order of the ids; what is missing is counted."""
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path) as client:
        client.post("/v1/gallery/add", json={"ids": ["a", 2], "x": X, "payload": [{"n": 1}, {"n": 2}]})
        vectors = checked(client.post("/v1/embed", json={"x": X}))["vectors"]
        told = checked(client.post("/v1/gallery/get", json={"ids": [2, "zz", "a"], "vectors": True}))
        assert [(row["id"], row["payload"]) for row in told["rows"]] == [("2", {"n": 2}), ("a", {"n": 1})]
        assert [row["vector"] for row in told["rows"]] == [vectors[1], vectors[0]]
        assert told["missing"] == 1
        client.post("/v1/gallery/add", json={"ids": ["a"], "x": X[1:], "payload": [{"n": 3}]})
        (row,) = checked(client.post("/v1/gallery/get", json={"ids": ["a"]}))["rows"]
        assert (row["payload"], row["vector"]) == ({"n": 3}, None)
        client.post("/v1/gallery/remove", json={"ids": ["a"]})
        assert checked(client.post("/v1/gallery/get", json={"ids": ["a"]}))["missing"] == 1
        checked(client.post("/v1/gallery/get", json={"ids": ["a"], "vectors": 1}), 400)


def test_pages_fit_together(registry, tmp_path, kit):
    """Three pages of four are the first twelve; an offset past the end is an empty page."""
    registry.publish(kit.numbered(1))
    x = np.random.default_rng(0).random((15, 4)).tolist()
    with running(registry, tmp_path) as client:
        client.post("/v1/gallery/add", json={"ids": list(range(15)), "x": x})
        whole = checked(client.post("/v1/search", json={"x": X[:1], "k": 12}))["hits"][0]
        pages = [
            checked(client.post("/v1/search", json={"x": X[:1], "k": 4, "offset": at}))["hits"][0]
            for at in (0, 4, 8, 100)
        ]
        assert [hit for page in pages for hit in page] == whole
        assert pages[3] == []
        for bad in (-1, 1.5, "1", 10**9):
            checked(client.post("/v1/search", json={"x": X[:1], "offset": bad}), 400)
