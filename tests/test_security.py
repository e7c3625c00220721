"""Every route that writes or administrates is closed without the right token, and no token is ever written down."""

from __future__ import annotations

import json
import logging
import warnings

import pytest

from lifelong import tokens

pytestmark = pytest.mark.slow

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from inprocess import X, checked, running

    from serving import service
    from serving.audit import MOST, Audit
    from serving.auth import needed
    from serving.exchange import Exchange

CHANGES = sorted(route for route in service.POSTS if needed(route) != "read")


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def held():
    """A token of each scope: secret and what is kept."""
    return {scope: tokens.make(scope, scope) for scope in tokens.SCOPES}


@pytest.fixture
def closed(registry, tmp_path, kit, held):
    registry.publish(kit.numbered(1))
    lines = ";".join(kept.line() for _, kept in held.values())
    with running(registry, tmp_path, insecure=False, tokens=lines) as found:
        yield found


def test_every_route_asks_for_its_scope(closed, held):
    """Before the body is read: nobody learns what a route takes without being let in."""
    for route in [*service.POSTS, "/v1/versions", "/v1/gallery", "/metrics", "/docs.json", "/v1/admin/nothing"]:
        rank = tokens.SCOPES.index(needed(route))
        method = "POST" if route in service.POSTS else "GET"
        refused = closed.request(method, route, content=b"{")
        assert checked(refused, 401)["title"] == "Unauthorized"
        assert refused.headers["www-authenticate"] == "Bearer"
        checked(closed.request(method, route, content=b"{", headers=bearer("ll_" + "x" * 43)), 401)
        for scope in tokens.SCOPES[:rank]:
            checked(closed.request(method, route, content=b"{", headers=bearer(held[scope][0])), 403)
        let_in = closed.request(method, route, content=b"{", headers=bearer(held[needed(route)][0]))
        assert let_in.status_code not in (401, 403)
    assert [closed.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]


def test_remembering_is_writing(closed, held):
    """Who may only read cannot push the open predictions of others out."""
    body = {"x": X, "remember": True}
    told = checked(closed.post("/v1/predict", json=body, headers=bearer(held["read"][0])), 403)
    assert "scope write" in told["detail"]
    assert len(closed.runtime.remembered) == 0
    checked(closed.post("/v1/predict", json={"x": X}, headers=bearer(held["read"][0])))
    told = checked(closed.post("/v1/predict", json=body, headers=bearer(held["write"][0])))
    assert told["predictions"][0]["id"]


def test_a_new_token_is_known_at_once(registry, tmp_path, kit):
    """Whoever made one asks with it in the next line, sooner than the server looks at its file by itself."""
    registry.publish(kit.numbered(1))
    file, (old, first), (new, second) = tmp_path / "tokens", tokens.make("ann", "read"), tokens.make("bob", "read")
    file.write_text(first.line() + "\n")
    with running(registry, tmp_path, insecure=False, tokens_file=str(file), poll_seconds=60.0) as client:
        assert client.get("/metrics", headers=bearer(old)).status_code == 200
        assert client.get("/metrics", headers=bearer(new)).status_code == 401
        file.write_text(f"{first.line()}\n{second.line()}\n")
        assert client.get("/metrics", headers=bearer(new)).status_code == 200


def test_without_tokens_what_changes_something_is_closed(registry, tmp_path, kit):
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path, insecure=False) as client:
        checked(client.post("/v1/predict", json={"x": X}))
        assert CHANGES
        for route in CHANGES:
            assert "closed" in checked(client.post(route, json={}), 403)["detail"]
        assert checked(client.get("/v1/gallery"))["rows"] == 0


def test_no_token_is_written_anywhere(closed, held, tmp_path, caplog):
    """Right, wrong and misplaced ones: not in the log, not in an answer, not in a file of the state folder."""
    secrets = [secret for secret, _ in held.values()] + ["ll_wrong-but-secret"]
    with caplog.at_level(logging.DEBUG):
        for secret in secrets:
            for route in ("/v1/predict", "/v1/gallery/add", "/v1/admin/nothing"):
                answer = closed.post(route, json={"x": X, "ids": ["a", "b"]}, headers=bearer(secret))
                assert secret not in answer.text + str(answer.headers)
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in secrets:
        assert secret not in caplog.text
        assert not [data for data in written if secret.encode() in data]


def test_admin_calls_are_audited_by_name(closed, held, tmp_path):
    """Let in or not; without a known token, with no name, and never with what was guessed."""
    clock = iter(range(0, 1000, 10))
    closed.runtime.audit._clock = lambda: next(clock)
    for scope in tokens.SCOPES:
        closed.post("/v1/admin/nothing", json={}, headers=bearer(held[scope][0]) | {"x-request-id": f"r-{scope}"})
    closed.post("/v1/admin/nothing", json={}, headers=bearer("ll_guessed") | {"x-request-id": "r-guess"})
    text = (tmp_path / "state" / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["who"], line["request_id"], line["status"]) for line in lines] == [
        ("read", "r-read", 403),
        ("write", "r-write", 403),
        ("admin", "r-admin", 404),
        ("", "r-guess", 401),
    ]
    assert "guessed" not in text


def test_a_flood_of_guesses_does_not_fill_the_disk(tmp_path):
    """One line per second and address, and no call uncounted; what was kept back is written a second later."""
    now = 0.0
    audit = Audit(tmp_path / "audit.jsonl", lambda: now)

    def guess(client, times):
        for _ in range(times):
            audit.write(Exchange(client=client, route="/v1/admin/promote", status=401))

    def told():
        lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        return [(line["client"], line.get("times"), line["status"]) for line in lines]

    guess("a", 500)
    guess("b", 1)
    audit.tick()
    assert told() == [("a", 1, 401), ("b", 1, 401)]
    now = 1.5
    audit.tick()
    guess("a", 3)
    assert told()[2:] == [("a", 499, 401)]
    audit.write(Exchange(client="a", status=200))
    audit.tick(0)
    assert told()[3:] == [("a", None, 200), ("a", 3, 401)]
    for n in range(3 * MOST):
        guess(f"c{n}", 1)
    assert len(audit._refused) <= MOST


def test_a_client_that_asks_too_often_is_slowed_down(registry, tmp_path, kit):
    """429 with the time to wait; health is always answered."""
    registry.publish(kit.numbered(1))
    with running(registry, tmp_path, rate_per_second=0.001, rate_burst=2) as client:
        found = [client.post("/v1/predict", json={"x": X}) for _ in range(3)]
        checked(found[1])
        assert int(found[2].headers["retry-after"]) > 900
        assert "slow down" in checked(found[2], 429)["detail"]
        assert client.get("/livez").status_code == 200


def test_json_logs_have_the_request_id_and_no_token(registry, tmp_path, kit, capfd):
    """One object per line; health is not logged."""
    registry.publish(kit.numbered(1))
    secret, kept = tokens.make("ann", "read")
    with running(registry, tmp_path, insecure=False, tokens=kept.line(), log_json=True, access_log=True) as client:
        client.post("/v1/predict", json={"x": X}, headers=bearer(secret) | {"x-request-id": "r-7"})
        client.post("/v1/" + secret, json={}, headers={"x-request-id": "r-8"})
        client.get("/livez")
    text = capfd.readouterr().err
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    told = [line for line in lines if line["logger"] == "lifelong.access"]
    assert [(line["request_id"], line["message"].split()[:3]) for line in told] == [
        ("r-7", ["POST", "/v1/predict", "200"]),
        ("r-8", ["POST", "unmatched", "401"]),
    ]
    assert "who=ann" in told[0]["message"]
    assert secret not in text
