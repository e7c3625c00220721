"""The audit log: who asked for what change of what is served, when, from where, and what came of it.

One line of JSON per call in `audit.jsonl` of the state folder. Workers share the file: a line is one `write` to a
file opened for appending. A full file is set aside once as `audit.jsonl.1`. Tokens are named and never written.
Of the calls that were not let in (401, 403) there is at most one line per second and address; it says of how many.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from serving.exchange import Exchange

log = logging.getLogger("lifelong.audit")
LARGEST = 16 * 2**20  # bytes of one file
SECONDS = 1.0  # between two lines about calls of one address that were not let in
MOST = 1000  # addresses of whom that is kept


@final
@dataclass
class Refused:
    """Calls of one address that were not let in, since the last line about it: when that was, how many, the newest."""

    at: float
    times: int = 0
    told: dict[str, Any] = field(default_factory=dict)


@final
class Audit:
    """One file.

    Args:
        path: Of it; made when there is something to write.
        clock: Seconds that never go back.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self._refused: OrderedDict[str, Refused] = OrderedDict()  # by address, whoever came first at the front
        self._mutex = threading.Lock()

    def write(self, exchange: Exchange) -> None:
        """Note an admin call; where the file cannot be written, the log says so, and has the line as well."""
        told = facts(exchange)
        if exchange.status not in (401, 403):
            self._line(told)
            return
        with self._mutex:
            known = self._refused.setdefault(exchange.client, Refused(-math.inf))
            known.told, known.times = told, known.times + 1
            self._flush(known, SECONDS)
            if len(self._refused) > MOST:
                self._flush(self._refused.popitem(last=False)[1], 0)

    def tick(self, seconds: float = SECONDS) -> None:
        """Write what was kept back for so long; the worker calls this now and then."""
        with self._mutex:
            for client, kept in list(self._refused.items()):
                if not kept.times and self._clock() - kept.at >= seconds:
                    del self._refused[client]
                self._flush(kept, seconds)

    def _flush(self, kept: Refused, seconds: float) -> None:
        if kept.times and self._clock() - kept.at >= seconds:
            self._line({**kept.told, "times": kept.times})
            kept.at, kept.times = self._clock(), 0

    def _line(self, told: Mapping[str, Any]) -> None:
        line = json.dumps(told)
        log.info("%s", line)
        try:
            if self.path.exists() and self.path.stat().st_size > LARGEST:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            log.error("%s cannot be written: %s", self.path, error)


def facts(exchange: Exchange) -> dict[str, Any]:
    """Return what is noted: never a header, and of the body only what the form knows."""
    asked = exchange.form.model_dump() if exchange.form is not None else {}
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "who": exchange.who,
        "client": exchange.client,
        "request_id": exchange.request_id,
        "route": exchange.route,
        "asked": {name: _short(value) for name, value in asked.items()},
        "status": exchange.status,
    }


def _short(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else str(value)[:200]
