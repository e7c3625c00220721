"""Traces: one OpenTelemetry span per request, made when it was answered, and sent to a collector in the background.

| attribute | meaning |
|---|---|
| `http.request.method`, `http.route`, `http.response.status_code` | as OpenTelemetry has them; a route's template |
| `lifelong.version` | the live version, 0 if there is none |
| `lifelong.request_id` | as in the answer and in the log |

A `traceparent` in the request's head makes its span the parent. The libraries come with BentoML; without them the
setting is refused, and without the setting they are not imported here.
"""

from __future__ import annotations

import time
from typing import Any, final

from lifelong.errors import ConfigError
from serving.exchange import Exchange


@final
class Traces:
    """Sends spans.

    Args:
        endpoint: Address of a collector, such as `http://collector:4318/v1/traces` (OTLP over HTTP).
        exporter: Takes the spans instead, at once.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, exporter: Any = None) -> None:  # noqa: ANN401 - a SpanExporter
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise ConfigError(
                f"LIFELONG_OTLP_ENDPOINT needs {error.name}: "
                "pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
            ) from error
        self._provider = TracerProvider(resource=Resource.create({"service.name": "lifelong"}), shutdown_on_exit=False)
        processor = SimpleSpanProcessor(exporter) if exporter else BatchSpanProcessor(OTLPSpanExporter(endpoint))
        self._provider.add_span_processor(processor)
        self._tracer, self._parents = self._provider.get_tracer("lifelong.serving"), TraceContextTextMapPropagator()

    def ended(self, exchange: Exchange, seconds: float, version: int | None) -> None:
        """A request was answered just now, after so many seconds."""
        if exchange.calm:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode

        now = time.time_ns()
        attributes: dict[str, str | int] = {
            "http.request.method": exchange.method[:16],
            "http.route": exchange.route,
            "http.response.status_code": exchange.status,
            "lifelong.version": version or 0,
            "lifelong.request_id": exchange.request_id,
        }
        span = self._tracer.start_span(
            f"{exchange.method[:16]} {exchange.route}",
            self._parents.extract({"traceparent": exchange.trace}),
            SpanKind.SERVER,
            attributes,
            start_time=now - int(seconds * 1e9),
        )
        if exchange.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
