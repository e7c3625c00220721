"""A server as a process of its own, what it costs, and requests to it from yet another process."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from figures import ROOT

from lifelong.commands.processes import free_port

INPUTS, CONNECTIONS = 512, 8
OURS = ["bentoml", "serve", "serving.service:LifelongService", "--host", "127.0.0.1", "-p", "{port}"]
PLAIN = ["bentoml", "serve", "serving_peers:Plain", "--host", "127.0.0.1", "-p", "{port}"]
BARE = ["uvicorn", "serving_peers:app", "--port", "{port}", "--no-access-log", "--log-level", "warning"]


class Server:
    """A process that serves, and what it costs."""

    def __init__(self, folder: Path, command: list[str], **settings: str) -> None:
        self.port, environment = free_port(), {k: v for k, v in os.environ.items() if not k.startswith("LIFELONG_")}
        environment |= {"LIFELONG_REGISTRY": str(folder / "registry"), "LIFELONG_STATE": str(folder / f"s{self.port}")}
        environment |= {"BENTOML_HOME": str(folder / f"b{self.port}"), "BENTOML_DO_NOT_TRACK": "true"}
        environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LIFELONG_INSECURE": "true", **settings}
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"
        line = [sys.executable, "-m", *(word.format(port=self.port) for word in command)]
        with (folder / f"{self.port}.log").open("wb") as log:
            self.process = subprocess.Popen(line, env=environment, cwd=folder, stdout=log, stderr=log)
        self.folder = folder

    def tree(self) -> list[psutil.Process]:
        """Its processes, workers last."""
        master = psutil.Process(self.process.pid)
        return [master, *master.children(recursive=True)]

    def cpu(self) -> float:
        """CPU seconds of all of them."""
        return sum(sum(p.cpu_times()[:2]) for p in self.tree())

    def memory(self) -> int:
        """Bytes of the largest: a worker."""
        return max(p.memory_info().rss for p in self.tree())

    def close(self) -> None:
        """End it."""
        tree = self.tree()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def load(server: Server, kind: str, seconds: float = 1e9) -> Iterator[Callable[[], dict]]:
    """Requests from another process; what is given waits for their end (after `seconds`, or at once) and tells."""
    name = server.folder / f"body-{kind}"
    x = np.linspace(0, 1, INPUTS, dtype=np.float32)
    name.write_bytes(x.tobytes() if kind == "binary" else json.dumps({"x": [x.tolist()], "top_k": 2}).encode())
    path = "/v1/predict?top_k=2" if kind == "binary" else "/v1/predict"
    media = "application/octet-stream" if kind == "binary" else "application/json"
    stop = server.folder / f"stop-{time.monotonic_ns()}"
    line = [sys.executable, str(Path(__file__).parent / "serving_load.py"), str(server.port), str(CONNECTIONS)]
    line += [str(seconds), path, media, str(name), str(stop)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE)

    def ended() -> dict:
        if seconds > 1e8:
            stop.touch()
        found: dict = json.loads(process.communicate()[0])
        return found

    try:
        yield ended
    finally:
        stop.touch()
        process.wait()


def up(server: Server) -> None:
    """Wait until it answers predictions."""
    until = time.monotonic() + 180
    while time.monotonic() < until:
        assert server.process.poll() is None, (server.folder / f"{server.port}.log").read_text()[-2000:]
        with contextlib.suppress(Exception), load(server, "json", 0.3) as ended:
            if (told := ended())["count"] > told["failed"]:
                return
        time.sleep(0.3)
    raise AssertionError("not up")
