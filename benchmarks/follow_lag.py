"""How long a label takes to be in what is served: real processes, a server and a trainer that share two folders.

A client asks for predictions, sends their labels to `/v1/feedback`, and looks which version answers. The trainer
follows the server's log. The labels of a round are three batches, and make a candidate due when the third has been
learned (up to 7 of the 24 may be the gate's). The lag is from the answer that the labels were accepted, to the first
answer of the version that has learned them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from figures import ROOT, figure

from lifelong.client import Client
from lifelong.commands.processes import free_port
from lifelong.sources.log import Log
from lifelong.sources.record import encode

WIDTH, CLASSES, BATCH, DUE, LABELS = 6, 3, 8, 17, 24


def sample(random: torch.Generator) -> tuple[torch.Tensor, int]:
    """Return a blob around one of the axes, and which one."""
    y = int(torch.randint(CLASSES, (1,), generator=random))
    return 2 * torch.eye(CLASSES, WIDTH)[y] + 0.4 * torch.randn(WIDTH, generator=random), y


def trainer(root: Path, registry: str, *more: str) -> list[str]:
    """Return the command of the trainer."""
    line = [sys.executable, "-m", "lifelong.cli", "train", "--source", str(root / "state" / "stream"), "--run"]
    line += [str(root / "run"), "--registry", registry, "--batch-size", str(BATCH), "--allow-major"]
    line += ["--follow", f"publish_samples={DUE}", "--max-accuracy-drop", "1", "--max-forgetting", "1"]
    return [*line, *more]


@contextlib.contextmanager
def running(line: list[str], root: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a program until the block ends; its output goes to a file."""
    with (
        (root / "log").open("ab") as log,
        subprocess.Popen(line, env=environment, cwd=root, stdout=log, stderr=log) as one,
    ):
        try:
            yield
        finally:
            one.terminate()
            one.wait(60)


def lags(root: Path, rounds: int, registry: str = "") -> list[float]:
    """Return the seconds of each round, with a registry in a folder, or in the store that is named."""
    registry = registry or str(root / "registry")
    random, environment = (
        torch.Generator().manual_seed(0),
        {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    with Log(root / "state" / "stream", create=True) as log:
        log.append((f"first-{i}", encode(*sample(random))) for i in range(64))
    first = trainer(root, registry, "--follow", "until=end")
    subprocess.run(first, env=environment, check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    serve = [sys.executable, "-m", "lifelong.cli", "serve", "--registry", registry, "--state"]
    serve += [str(root / "state"), "--port", str(port), "--insecure"]
    server, follower = running(serve, root, environment), running(trainer(root, registry), root, environment)
    with server, follower, Client(f"http://127.0.0.1:{port}", timeout=60) as client:
        if not client.ready(240):
            raise RuntimeError(f"the server is not ready: {(root / 'log').read_text()[-2000:]}")
        return [one_round(client, random) for _ in range(rounds)]


def one_round(client: Client, random: torch.Generator) -> float:
    """Label enough predictions for a candidate, and wait for it to answer."""
    some = [sample(random) for _ in range(LABELS)]
    told = client.predict(torch.stack([x for x, _ in some]).numpy(), remember=True)
    names = [each["id"] for each in told["predictions"]]
    client.feedback({name: y for name, (_, y) in zip(names, some, strict=True)})
    begun, until = time.monotonic(), time.monotonic() + 120
    while client.predict([some[0][0].tolist()])["version"] <= told["version"]:
        if time.monotonic() > until:
            raise RuntimeError("no version followed within 120 s")
        time.sleep(0.01)
    return time.monotonic() - begun


def rows(rounds: int = 5) -> Iterator[dict[str, Any]]:
    """Yield the lag."""
    with tempfile.TemporaryDirectory() as folder:
        found = lags(Path(folder), rounds)
    yield figure("lag_label_to_live", statistics.median(found), "s")
    yield figure("lag_label_to_live_worst", max(found), "s")
