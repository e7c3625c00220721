"""The audit log: who asked for what change of what is served, when, from where, and what came of it.

One line of JSON per call in `audit.jsonl` of the state folder. Workers share the file: a line is one `write` to a
file opened for appending. A full file is set aside once as `audit.jsonl.1`. Tokens are named and never written.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from serving.exchange import Exchange

log = logging.getLogger("lifelong.audit")
LARGEST = 16 * 2**20  # bytes of one file


@final
class Audit:
    """One file.

    Args:
        path: Of it; made when there is something to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, exchange: Exchange) -> None:
        """Note an admin call; where the file cannot be written, the log says so, and has the line as well."""
        line = json.dumps(facts(exchange))
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
