"""Logs for machines: one JSON object per line, with the id of the request that a line belongs to."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import final

from serving.exchange import Exchange

REQUEST: ContextVar[str] = ContextVar("lifelong_request", default="")
access = logging.getLogger("lifelong.access")


@final
class Json(logging.Formatter):
    """Time, level, logger, message, request id if there is one, and the traceback of a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := getattr(record, "request_id", "") or REQUEST.get():
            told["request_id"] = request
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)


def install(*, as_json: bool) -> logging.Handler | None:
    """Let our loggers write JSON to stderr, past the handlers of BentoML; return the handler, to be taken away."""
    if not as_json:
        return None
    handler, ours = logging.StreamHandler(sys.stderr), logging.getLogger("lifelong")
    handler.setFormatter(Json())
    ours.addHandler(handler)
    ours.propagate = False
    return handler


def remove(handler: logging.Handler | None) -> None:
    """Undo `install`."""
    if handler is not None:
        ours = logging.getLogger("lifelong")
        ours.removeHandler(handler)
        ours.propagate = True


def level(wanted: int) -> int:
    """Set the level of all our loggers and return what it was; the handlers are BentoML's."""
    ours = logging.getLogger("lifelong")
    before = ours.level
    ours.setLevel(wanted)
    return before


def answered(exchange: Exchange, seconds: float) -> None:
    """Write the line of one request: the route's template and never the path, the token's name and never the token."""
    access.info(
        "%s %s %d %.1f ms who=%s client=%s request_id=%s",
        exchange.method[:16],
        exchange.route,
        exchange.status,
        seconds * 1000,
        exchange.who or "-",
        exchange.client,
        exchange.request_id,
        extra={"request_id": exchange.request_id},
    )
