"""Real server processes of a test's own, load on them from another process, and what they answer."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lifelong.client import Client

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "e2e"


@dataclass
class Server:
    """One `bentoml serve` of our own: own folders, own port, own BENTOML_HOME."""

    folder: Path
    service: str = "serving.service:LifelongService"
    settings: dict[str, str] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] | None = None  # all of it, instead of what is made below

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> Server:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFELONG_", "PROMETHEUS_"))}
        environment = self.environment or {
            **kept,
            "BENTOML_HOME": str(self.folder / f"bentoml-{self.port}"),
            "BENTOML_DO_NOT_TRACK": "true",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
            "LIFELONG_REGISTRY": str(self.folder / "registry"),
            "LIFELONG_STATE": str(self.folder / "state"),
            **({} if "LIFELONG_TOKENS_FILE" in self.settings else {"LIFELONG_INSECURE": "true"}),
            **self.settings,
        }
        served = [sys.executable, "-m", "bentoml", "serve", self.service, "--host", "127.0.0.1", "-p", "{port}"]
        command = [word.format(port=self.port) for word in self.command or served]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log)
        return self

    def up(self, timeout: float = 120) -> Client:
        """Wait until it answers, ready or not."""
        client = Client(self.url, timeout=30)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            assert self.process is not None and self.process.poll() is None, self.log
            with contextlib.suppress(OSError, http.client.HTTPException):
                if get(self, "/livez")[0] == 200:
                    return client
            time.sleep(0.1)
        raise AssertionError(f"not up after {timeout} s:\n{self.log}")

    def kill(self) -> None:
        """kill -9 everything at once, as a power cut would (each worker has a process group of its own)."""
        if self.process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            master = psutil.Process(self.process.pid)
            for process in [master, *master.children(recursive=True)]:
                process.kill()
        self.process.wait()
        self.process = None

    def workers(self) -> list[psutil.Process]:
        """The processes that answer requests."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "_bentoml_impl.worker.service" in " ".join(child.cmdline())]


@contextlib.contextmanager
def load(server: Server, threads: int = 4):
    """Requests from another process until the block ends; gives the list that will hold the results."""
    stop, results = server.folder / f"stop-{time.monotonic_ns()}", []
    command = [sys.executable, str(HERE / "load.py"), str(server.port), str(stop), str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield results
    finally:
        stop.touch()
        out, _ = process.communicate(timeout=60)
        results += [json.loads(line) for line in out.splitlines()]


def mixed(results: list[dict]) -> list[dict]:
    """Answers whose parts come from different versions."""
    return [line for line in results if len(set(line.get("versions", []))) > 1]


def wait(until, timeout: float = 30.0) -> None:
    """Wait for a condition; a test must not depend on how fast the machine is."""
    end = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def get(server: Server, path: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(), {k.lower(): v for k, v in response.headers.items()}
    finally:
        connection.close()


def metric(server: Server, name: str) -> float:
    """The sum of a metric over its label sets."""
    lines = [line for line in get(server, "/metrics")[1].splitlines() if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
