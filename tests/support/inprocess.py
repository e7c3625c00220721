"""The service in the test's own process, and answers in their documented form. Import it with warnings off."""

from __future__ import annotations

import contextlib
import time

from starlette.testclient import TestClient

from serving import service
from serving.pages import GETS
from serving.settings import Settings

X = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]
ANSWERS = {route: answer for route, (_, answer) in service.POSTS.items()}
ANSWERS |= {route: answer for route, (answer, _) in GETS.items() if answer is not None}


@contextlib.contextmanager
def running(registry, tmp_path, **settings):
    """A service of its own, started as BentoML starts it."""
    settings = {"insecure": True, "poll_seconds": 0.01, **settings}
    made = service.make(Settings(registry=registry.root, state=tmp_path / "state", **settings))
    with TestClient(made.to_asgi(), "http://127.0.0.1", raise_server_exceptions=False) as client:
        client.runtime = made.inner.runtime
        yield client


def checked(response, status=200):
    """An answer in its documented form, whose head and body agree."""
    assert response.status_code == status, response.text
    route = response.request.url.path
    told = response.json()
    if status == 200:
        ANSWERS[route].model_validate_json(response.content)
        assert response.headers["content-type"] == "application/json"
    else:
        assert set(told) == {"type", "title", "status", "detail", "version", "request_id"}
        assert response.headers["content-type"] == "application/problem+json"
        assert told["status"] == status
        assert len(response.content) < 1024
    assert response.headers["x-request-id"] == told["request_id"]
    assert response.headers["x-model-version"] == str(told["version"] or "none")
    return told


def wait(until):
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
