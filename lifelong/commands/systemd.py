"""What a service says to systemd: ready, alive, stopping; nothing where nobody listens.

Source: sd_notify(3): datagrams of `NAME=VALUE` lines to the socket that `NOTIFY_SOCKET` names, `@` for abstract ones.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, final


def notify(message: str) -> bool:
    """Send one message; return whether it was taken: a socket that is gone or full is no reason to stop, or to wait."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
        one.setblocking(False)
        one.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        return True
    return False


@final
class Systemd:
    """Says ready with the first beat, and alive with each."""

    def __init__(self) -> None:
        self._ready = False

    def beat(self, vital: Mapping[str, Any], now: bool = False) -> None:
        """Say that all is well, and how far it is."""
        status = f"STATUS={vital['state']}, {vital['samples']} samples\nWATCHDOG=1"
        self._ready = notify(status if self._ready else f"READY=1\n{status}") or self._ready

    def happened(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Events are of no interest to it."""
