"""Processes that a command starts, waits for and ends."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lifelong.errors import Unavailable


def wait(done: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 90) -> None:
    """Wait until something is `done`, as long as the process that is to do it runs."""
    until = time.monotonic() + seconds
    while not done():
        if process.poll() is not None or time.monotonic() > until:
            raise Unavailable(f"{log.stem} did not get ready (exit code {process.returncode}); see {log}")
        time.sleep(0.05)


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Ask processes to end, and end those that do not within 20 seconds."""
    for process in processes:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port on loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
