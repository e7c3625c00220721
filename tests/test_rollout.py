"""Trials beside the live version: stable, harmless to clients, stopped when they are bad, and all of it recorded."""

from __future__ import annotations

import gc
import json
import warnings
import weakref

import pytest
import torch

from lifelong.errors import ConfigError, DataError, NotFound
from lifelong.labels import LabelMap
from lifelong.release.registry import Registry
from lifelong.release.rollout import FILE, Limits, Rollouts, Trial
from lifelong.release.snapshot import Snapshot
from serving.exchange import assigned

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running, wait

    from serving.mirror import Tally


@pytest.fixture
def two(registry, kit):
    """Versions 1 (live) and 2, which agree on every label."""
    kit.publish(registry, 2)
    registry.promote(1)
    return registry


def test_what_is_tried_is_one_file_and_one_event_each(two):
    """Who, when, from, to, share, why; the pointer does not move."""
    rollouts = Rollouts(two)
    assert rollouts.read().canary is None
    rollouts.start("canary", 2, 0.25, who="ann", why="try it", limits=Limits(agreement=0.9))
    rollouts.start("shadow", 2, 1.0, who="ann")
    found = Rollouts(Registry(two.root)).read()
    assert (found.canary, found.shadow, found.limits.agreement) == (Trial(2, 0.25), Trial(2, 1.0), 0.9)
    assert rollouts.stop("canary", who="bob", why="enough")
    assert not rollouts.stop("canary", who="bob", why="again")
    events = two.history()[-3:]
    assert [(e.kind, e.version, e.previous, e.who, e.share) for e in events] == [
        ("canary", 2, 1, "ann", 0.25),
        ("shadow", 2, 1, "ann", 1.0),
        ("stop", 2, 1, "bob", 0.0),
    ]
    assert events[2].why == "canary: enough"
    assert two.current() == 1
    assert two.rollback(2) == 2  # the events of trials are no steps of the lineage


def test_the_same_key_starts_and_stops_a_trial_once(two, kit, monkeypatch):
    """A repeat undoes nothing that others did since; it completes what was cut off, and tries again what was undone."""
    two.publish(kit.numbered(3), promote=False)
    rollouts = Rollouts(two)
    rollouts.start("canary", 2, 0.5, who="ann", key="a")
    assert rollouts.stop("canary", who="ann", why="", key="b")
    rollouts.start("canary", 3, 0.5, who="bob")
    rollouts.start("canary", 2, 0.5, who="ann", key="a")
    assert not rollouts.stop("canary", who="ann", why="", key="b")
    assert rollouts.read().canary == Trial(3, 0.5)
    assert [e.kind for e in two.history()[-3:]] == ["canary", "stop", "canary"]
    with pytest.raises(DataError, match="used before"):
        rollouts.start("shadow", 2, 0.5, who="ann", key="a")

    def cut(path, data):
        raise KeyboardInterrupt

    def act(key, share):
        if share:
            rollouts.start("canary", 2, share, who="ann", key=key)
        else:
            rollouts.stop("canary", who="ann", why="", key=key)

    for key, share, found in (("c", 0.25, Trial(2, 0.25)), ("d", 0, None)):
        count = len(two.history())
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("lifelong.files.write_atomic", cut)
            act(key, share)
        act(key, share)
        assert (rollouts.read().canary, len(two.history()) - count) == (found, 1)

    rollouts.start("canary", 2, 0.5, who="ann", key="e")
    rollouts.stop("canary", who="ann", why="not ready", key="e")
    rollouts.start("canary", 2, 0.5, who="ann", key="e")
    assert rollouts.read().canary == Trial(2, 0.5)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_is_above_0_and_at_most_1(two, share):
    with pytest.raises(ConfigError):
        Rollouts(two).start("canary", 2, share, who="ann")


def test_only_another_version_that_is_there_is_tried(two):
    with pytest.raises(NotFound):
        Rollouts(two).start("canary", 3, 0.5, who="ann")
    with pytest.raises(ConfigError, match="live already"):
        Rollouts(two).start("canary", 1, 0.5, who="ann")
    assert not (two.root / FILE).exists()


def test_keys_fall_evenly_and_a_larger_share_keeps_who_was_in():
    """20,000 keys at 10 %: within 5 standard deviations of 2,000; monotone by construction of one number per key."""
    falls = [assigned(f"user-{n}", 7) for n in range(20_000)]
    assert abs(sum(f < 0.1 for f in falls) - 2000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    other = [assigned(f"user-{n}", 8) for n in range(20_000)]
    both = sum(a < 0.1 and b < 0.1 for a, b in zip(falls, other, strict=True))
    assert abs(both - 200) < 5 * (20_000 * 0.01 * 0.99) ** 0.5  # the next canary meets other users


@pytest.mark.parametrize(
    ("tally", "limits", "broken"),
    [
        (Tally(answered=49, errors=1), Limits(errors=0.02), False),
        (Tally(answered=48, errors=2), Limits(errors=0.02), True),
        (Tally(answered=47, errors=2), Limits(errors=0.02), False),  # too few to tell
        (Tally(nans=1), Limits(), True),
        (Tally(nans=1), Limits(nans=1), False),
        (Tally(compared=50, agreed=44), Limits(agreement=0.9), True),
        (Tally(compared=50, agreed=45), Limits(agreement=0.9), False),
        (Tally(compared=49, agreed=0), Limits(agreement=0.9), False),
    ],
)
def test_limits_are_broken_above_them_and_not_at_them(tally, limits, broken):
    assert bool(tally.broken(limits)) == broken


# ---- in a server

slow = pytest.mark.slow


def versions(client, kit, keys=40):
    """Who answered each key; body, head and content agree."""
    found = {}
    for n in range(keys):
        told = checked(client.post("/v1/predict", json={"x": X, "top_k": 3}, headers={"x-request-key": f"user-{n}"}))
        assert kit.number_in(told["predictions"][0]) == told["version"]
        found[f"user-{n}"] = told["version"]
    return found


def post(client, what, status=200, **body):
    return checked(client.post(f"/v1/admin/{what}", json=body), status)


@slow
def test_a_canary_answers_its_keys_always_the_same(two, tmp_path, kit):
    """Exactly the keys that fall below the share; the others and those of a restarted server alike."""
    expected = {f"user-{n}": 2 if assigned(f"user-{n}", 2) < 0.5 else 1 for n in range(40)}
    with running(two, tmp_path) as client:
        state = post(client, "canary", version=2, share=0.5)
        assert (state["canary"]["version"], state["version"]) == (2, 1)
        assert versions(client, kit) == expected
        assert versions(client, kit) == expected
    with running(two, tmp_path) as client:
        wait(lambda: client.runtime.slot.trials.beside.canary)
        assert versions(client, kit) == expected
        post(client, "canary", share=0, why="enough")
        wait(lambda: client.runtime.slot.trials.beside.canary is None)
        assert set(versions(client, kit).values()) == {1}


@slow
def test_vectors_go_to_the_version_that_made_them(two, tmp_path, kit):
    """A client that embedded with the canary and searches with its vectors is not told to embed again."""
    with running(two, tmp_path) as client:
        client.post("/v1/gallery/add", json={"ids": ["a"], "x": X[:1]})
        post(client, "canary", version=2, share=0.5)
        for n in range(10):
            told = checked(client.post("/v1/embed", json={"x": X}, headers={"x-request-key": str(n)}))
            query = {"vectors": told["vectors"], "space": told["space"]}
            found = checked(client.post("/v1/search", json=query, headers={"x-request-key": str(n + 100)}))
            assert found["version"] == told["version"]


@slow
def test_a_request_may_pin_a_version(two, tmp_path, kit):
    """In its head or body; 404 with the list when it is gone; rows are never written by it."""
    with running(two, tmp_path, keep_retired=1) as client:
        post(client, "promote", version=2)
        wait(lambda: client.runtime.version() == 2)
        for kind in ({"json": {"x": X, "top_k": 2, "model_version": 1}}, None):
            kind = kind or {"json": {"x": X, "top_k": 2}, "headers": {"x-model-version": "1"}}
            told = checked(client.post("/v1/predict", **kind))
            assert told["version"] == kit.number_in(told["predictions"][0]) == 1
        gone = checked(client.post("/v1/embed", json={"x": X, "model_version": 7}), 404)
        assert "held are: 2 (live), 1" in gone["detail"]
        for bad in ("x", 0, -1, 1.5, True, [1]):
            checked(client.post("/v1/embed", json={"x": X, "model_version": bad}), 400)


def broken_snapshot(kit, first):
    """A version whose answer to large samples is not finite, though its probe is."""
    model = kit.numbered_model(2)
    with torch.no_grad():
        model.backbone.layers[0].weight.mul_(1e30)
        model.backbone.layers[-1].weight.mul_(1e5)
    random = torch.Generator().manual_seed(2)
    made = Snapshot.of(model, LabelMap(kit.labels), probe_x=torch.rand(3, 4, generator=random) * 1e-32)
    proof = {"space": first.space.id, "dim": first.space.dim, "cross": 1.0, "self": 0.5}
    return made.with_proofs([{**proof, "measure": "test", "n": 9, "probe": "0" * 64}])


BIG = [[1e4, 2e4, 3e4, 4e4]]


@slow
def test_a_canary_that_says_nan_is_taken_back_and_nobody_notices(registry, tmp_path, kit):
    """The live version answers instead; the registry records who stopped it and why."""
    registry.publish(first := kit.numbered(1))
    registry.publish(broken_snapshot(kit, first), promote=False)
    with running(registry, tmp_path) as client:
        post(client, "canary", version=2, share=1.0)
        told = checked(client.post("/v1/predict", json={"x": BIG, "top_k": 2}))
        assert told["version"] == kit.number_in(told["predictions"][0]) == 1
        wait(lambda: Rollouts(registry).read().canary is None)
        assert 'lifelong_automatic_rollbacks_total{kind="canary"} 1.0' in client.get("/metrics").text
        assert 'lifelong_canary_requests_total{outcome="nan"} 1.0' in client.get("/metrics").text
    last = registry.history()[-1]
    assert (last.kind, last.version) == ("stop", 2)
    assert last.who.startswith("server:")
    assert "not finite" in last.why


@slow
def test_a_live_version_that_fails_where_the_one_before_does_not_is_taken_back(registry, tmp_path, kit):
    """After `guard_least` requests; samples that are too large for both prove nothing."""
    model = kit.numbered_model(1)
    model.backbone.layers[0].weight.data *= 1000  # finite for BIG, and not for 3e38
    registry.publish(first := Snapshot.of(model, LabelMap(kit.labels), probe_x=torch.rand(2, 4)))
    with running(registry, tmp_path, guard_least=3) as client:
        registry.publish(broken_snapshot(kit, first))
        wait(lambda: client.runtime.version() == 2)
        for _ in range(6):
            checked(client.post("/v1/predict", json={"x": [[3e38] * 4]}), 400)
        for n in range(3):
            assert client.runtime.version() == 2, n
            checked(client.post("/v1/predict", json={"x": BIG}), 400)
        wait(lambda: client.runtime.version() == 1)
        checked(client.post("/v1/predict", json={"x": BIG}))
    assert registry.history()[-1].kind == "rollback"
    assert registry.history()[-1].who.startswith("server:")


@slow
def test_a_canary_that_disagrees_is_taken_back(registry, tmp_path, kit):
    """Agreement is counted against the live version's labels on the same samples."""
    registry.publish(first := kit.numbered(1))
    registry.publish(kit.numbered(-5, reads=[first]), promote=False)  # likes the second label best
    with running(registry, tmp_path) as client:
        post(client, "canary", version=2, share=1.0, agreement=0.9, least=10)
        for _ in range(5):
            checked(client.post("/v1/predict", json={"x": X}))
        wait(lambda: Rollouts(registry).read().canary is None)
    assert registry.history()[-1].why == "canary: it agrees on 0 of 10 samples"


@slow
def test_a_shadow_is_compared_and_never_answers(two, tmp_path, kit):
    """Agreement and its time are in the metrics and in the state; a full queue drops and counts."""
    with running(two, tmp_path) as client:
        post(client, "shadow", version=2, share=1.0)
        assert set(versions(client, kit, 10).values()) == {1}
        wait(lambda: checked(client.get("/v1/rollout"))["shadow"]["seen"].get("compared") == 20)
        seen = checked(client.get("/v1/rollout"))["shadow"]["seen"]
        assert (seen["agreed"], seen["answered"]) == (20, 10)
        text = client.get("/metrics").text
        assert 'lifelong_compared_total{kind="shadow",outcome="agree"} 20.0' in text
        assert 'lifelong_compared_seconds_count{kind="shadow"} 10.0' in text


@slow
def test_promotion_is_refused_if_a_worker_does_not_let_the_version_in(registry, tmp_path, kit):
    """Two steps: nothing moves before every worker is ready."""
    registry.publish(kit.numbered(1))
    registry.publish(kit.numbered(2, inputs=5), promote=False)
    with running(registry, tmp_path) as client:
        told = post(client, "promote", 409, version=2)
        assert told["type"] == "urn:lifelong:error:Refused"
        assert "input shape" in told["detail"]
        post(client, "promote", 404, version=9)
    assert registry.current() == 1


@slow
def test_promote_and_rollback_are_recorded_with_who_and_why(two, tmp_path, kit):
    with running(two, tmp_path) as client:
        post(client, "canary", version=2, share=0.5)
        moved = post(client, "promote", version=2, why="it is better")
        assert (moved["live"], moved["previous"]) == (2, 1)
        wait(lambda: client.runtime.version() == 2)
        assert Rollouts(two).read().canary is None  # a trial of what is live is over
        assert post(client, "rollback", why="it is not")["live"] == 1
        wait(lambda: client.runtime.version() == 1)
    told = [(e.kind, e.previous, e.version, e.who, e.why) for e in two.history() if e.pointer][-2:]
    who = "http:insecure"
    assert told == [("promote", 1, 2, who, "it is better"), ("rollback", 2, 1, who, "it is not")]
    lines = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert [line["route"].rpartition("/")[2] for line in lines] == ["canary", "promote", "rollback"]
    assert lines[1]["asked"] == {"version": 2, "why": "it is better"}


@slow
def test_an_admin_call_that_comes_twice_is_one_step(registry, tmp_path, kit):
    """Also to another worker, and after a restart; it is answered as the first time."""
    kit.publish(registry, 4, promote=True)
    head = {"idempotency-key": '"call-1"'}
    told = []
    for part in ("one", "two"):
        with running(registry, tmp_path / part) as client:
            for _ in range(2):
                told.append(checked(client.post("/v1/admin/rollback", json={}, headers=head)))
                wait(lambda: client.runtime.version() == registry.current())
            assert (
                "idempotency-key"
                in checked(client.post("/v1/admin/rollback", json={}, headers={"idempotency-key": "a b"}), 400)[
                    "detail"
                ]
            )
            checked(client.post("/v1/admin/promote", json={"version": 1}, headers=head), 400)
    assert {(t["live"], t["previous"], t["sequence"]) for t in told} == {(3, 4, 5)}
    assert registry.current() == 3
    with running(registry, tmp_path) as client:
        for what, body in (("promote", {"version": 4}), ("canary", {"version": 2, "share": 0.5}), ("canary", {})):
            count, once = len(registry.history()), {"idempotency-key": f"{what}-{len(body)}"}
            twice = [checked(client.post(f"/v1/admin/{what}", json=body, headers=once)) for _ in range(2)]
            assert len(registry.history()) == count + 1
            first, second = (t["live"] if what == "promote" else t["canary"] for t in twice)
            assert first == second


@slow
def test_retired_versions_are_freed(registry, tmp_path, kit):
    """What is not kept for a rollback is collected."""
    made = kit.publish(registry, 5)
    assert made
    registry.promote(1)
    with running(registry, tmp_path, keep_retired=1) as client:
        seen = []
        for version in range(1, 6):
            registry.promote(version)
            wait(lambda version=version: client.runtime.version() == version)
            seen.append(weakref.ref(client.runtime.slot.live.model))
        gc.collect()
        assert [ref() is not None for ref in seen] == [False, False, False, True, True]
