"""Traces: what a span says, whose child it is, and what makes none."""

from __future__ import annotations

import sys

import pytest

from lifelong.errors import ConfigError
from serving.exchange import Exchange
from serving.traces import Traces


@pytest.fixture
def sent():
    """The spans of some requests."""
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    traces = Traces("", exporter)

    def told(*requests: Exchange):
        for request in requests:
            traces.ended(request, 0.25, 7)
        return exporter.get_finished_spans()

    yield told
    traces.close()


def test_a_span_names_the_route_and_never_the_path(sent):
    (span,) = sent(Exchange("r1", "/v1/predict", status=200))

    assert span.name == "POST /v1/predict"
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "lifelong.version": 7,
        "lifelong.request_id": "r1",
    }
    assert span.end_time - span.start_time == 250_000_000
    assert span.parent is None and span.status.is_unset
    assert span.resource.attributes["service.name"] == "lifelong"


def test_the_caller_is_the_parent_and_a_bug_is_an_error(sent):
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    child, odd, _ = sent(
        Exchange("r2", "/v1/search", status=503, trace=trace),
        Exchange("r3", "/v1/search", status=404, trace="nonsense"),
        Exchange("r4", status=404),
    )

    assert (child.parent.trace_id, child.parent.span_id) == (int("ab" * 16, 16), int("cd" * 8, 16))
    assert not child.status.is_ok and odd.status.is_unset
    assert odd.parent is None


def test_health_and_metrics_make_no_spans(sent):
    assert sent(*(Exchange("r", route, "GET", status=200) for route in ("/livez", "/readyz", "/metrics"))) == ()


def test_without_the_library_the_setting_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match="pip install opentelemetry-sdk"):
        Traces("http://localhost:4318/v1/traces")
