"""The trainer on a long stream that drifts: all of covtype, 581,012 samples in file order, through a log on disk.

    python benchmarks/follow.py --data-root DATA --out benchmarks/results/follow.json     # up to 6 minutes a strategy
    python benchmarks/follow.py --data-root DATA --samples 20000 --strategies naive       # a look

Each strategy runs as `lifelong train --source LOG` in a process of its own, one at a time, one thread. Nothing is
tuned: the settings are the defaults, the same for all (`powerlaw` runs without windows: `mode=stochastic`). Inputs are
scaled by what the first 5,000 samples have. Every sample is predicted before it is learned; `static` is the same
network that stops learning after a tenth of the stream, `majority` and `no_change` learn nothing. Memory is what the
process holds (VmRSS), and speed is samples per second of processor time.

Whether it becomes slower with time is seen beside a second trainer: the first is halted before its last tenth until
another one, from the beginning of the stream, is learning too, and then both go on at the same time, in turns on one
processor. Neighbours on the machine make processor time longer, by a factor of two and within seconds; so they do for
both.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from figures import ROOT, figure, show, write
from follow_costs import costs, processor_seconds

from lifelong.compose import model_spec
from lifelong.data import load
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.sources.log import Log
from lifelong.sources.record import encode

STRATEGIES = ("naive", "replay", "powerlaw", "slda", "ridge")
SETTINGS = {"powerlaw": ["--set", "mode=stochastic"]}
CLOSED = ("slda", "ridge")  # whose features are the inputs
BATCH, LR, FIRST = 256, 0.05, 5_000
APPENDED = 20_000  # records in one durable step
SAID = re.compile(r"^(\d+) samples, ")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Moment:
    """How far a trainer was: samples, its processor seconds, the bytes that it held, and when."""

    samples: int
    seconds: float
    bytes: int
    at: float


@dataclass(frozen=True)
class Run:
    """What was seen of a trainer: its moments, its figures, its minutes, and its speed at the end over a new one's."""

    moments: list[Moment]
    told: dict[str, Any]
    minutes: float
    lasting: float


def stream(root: Path | None, count: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs, scaled, and labels in file order."""
    rows = load("covtype", root=root).train
    x, y = rows.x[:count].float(), rows.y[:count]
    return ((x - x[:FIRST].mean(0)) / (x[:FIRST].std(0) + 1e-3)).clamp(-5, 5), y


def logged(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    """Write the stream into an embedded log."""
    with Log(folder, create=True) as log:
        for start in range(0, len(y), APPENDED):
            some = range(start, min(start + APPENDED, len(y)))
            log.append((f"covtype-{i}", encode(x[i], int(y[i]))) for i in some)
    return folder


def moment(pid: int, samples: int) -> Moment:
    """Ask the kernel how a process is."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
    return Moment(samples, processor_seconds(pid), rss, time.monotonic())


class Trainer:
    """A trainer in a process of its own, and what it said so far."""

    def __init__(self, name: str, log: Path, run: Path) -> None:
        self.moments = list[Moment]()
        model = "identity" if name in CLOSED else "mlp"
        line = [sys.executable, "-m", "lifelong.cli", "train", "--source", log, "--run", run, "--follow", "until=end"]
        line += ["--strategy", name, "--model", model, "--batch-size", BATCH, "--lr", LR, "--commit-every", 1_000_000]
        words = [str(word) for word in [*line, *SETTINGS.get(name, [])]]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def reached(self, samples: float) -> bool:
        """Wait until it has learned so many; return False if it ended before."""
        while not (found := self.moments and self.moments[-1].samples >= samples) and self.reader.is_alive():
            time.sleep(0.05)
        return bool(found)

    def end(self, stop: bool = False) -> None:
        """Wait until it has ended; tell it to, if that is wanted."""
        if stop:
            self.process.terminate()
        self.reader.join()
        if self.process.wait() and not stop:
            raise RuntimeError(f"a trainer ended with {self.process.returncode}")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            if found := SAID.match(text):
                with suppress(OSError, TypeError):  # it has ended meanwhile
                    self.moments.append(moment(self.process.pid, int(found[1])))


def followed(name: str, log: Path, run: Path, count: int) -> Run:
    """Run a trainer to the end of the log, its last tenth beside another one."""
    one, begun, lasting = Trainer(name, log, run), time.monotonic(), 0.0
    paused = 0.0
    if one.reached(0.88 * count):
        one.process.send_signal(signal.SIGSTOP)
        halted = time.monotonic()
        other = Trainer(name, log, run.with_name(f"{name}-beside"))
        other.reached(1)
        for each in (one, other):
            os.sched_setaffinity(each.process.pid, {min(os.sched_getaffinity(0))})
        one.process.send_signal(signal.SIGCONT)
        paused = time.monotonic() - halted
        one.end()
        other.end(stop=True)
        last = [m for m in one.moments if m.at > halted]
        beside = [m for m in other.moments if last and m.at <= last[-1].at]
        lasting = speed(last) / speed(beside) if len(last) > 1 and len(beside) > 1 else 0.0
    one.end()
    minutes = (time.monotonic() - begun - paused) / 60
    words = [sys.executable, "-m", "lifelong.cli", "status", str(run), "--json"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return Run(one.moments, json.loads(told.stdout), minutes, lasting)


def speed(moments: Sequence[Moment]) -> float:
    """Return samples per processor second from the first of some moments to the last."""
    return (moments[-1].samples - moments[0].samples) / max(moments[-1].seconds - moments[0].seconds, 1e-9)


def static(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the share of right predictions of a network that stops learning after a tenth of the stream."""
    learner = Learner(build(model_spec("mlp", x.shape[1:], "naive"), seed=0), optim=Optim(lr=LR), batch_size=BATCH)
    right, stop = 0, len(y) // 10
    for start in range(0, len(y), BATCH):
        rows = slice(start, start + BATCH)
        if len(learner.labels):
            said = learner.predict(x[rows])
            right += sum(a == b for a, b in zip(said, y[rows].tolist(), strict=True))
        if start < stop:
            learner.partial_fit(x[rows], y[rows])
    return right / len(y)


def of_strategy(name: str, log: Path, folder: Path, count: int) -> Iterator[Row]:
    """Yield the figures of one strategy."""
    run = followed(name, log, folder / name, count)
    told, moments = run.told, run.moments
    yield figure(f"{name}_samples_learned", told["samples"], "samples", ">=", count)
    yield figure(f"{name}_accuracy", told["model"], "share")
    yield figure(f"{name}_over_majority", told["model"] - told["majority"], "share", ">", 0)
    yield figure(f"{name}_over_no_change", told["model"] - told["no_change"], "share")
    held = [m.bytes for m in moments if m.samples >= 0.2 * count]
    if len(moments) < 20:
        return
    yield figure(f"{name}_memory", sum(held) / len(held) / 2**20, "MiB")
    yield figure(f"{name}_memory_swing", (max(held) - min(held)) / (max(held) + min(held)), "of mean", "<=", 0.02)
    yield figure(f"{name}_speed_last_over_first", run.lasting, "ratio", ">=", 0.9)
    yield figure(f"{name}_samples_per_cpu_second", speed(moments), "1/s")
    yield figure(f"{name}_minutes", run.minutes, "min", "<=", 6)


def rows(root: Path | None, strategies: Sequence[str], count: int | None) -> Iterator[Row]:
    """Yield all figures of the stream."""
    x, y = stream(root, count)
    labels = y.tolist()
    yield figure("stream_samples", len(y), "samples", ">=", 581_012 if count is None else count)
    yield figure("no_change_accuracy", sum(a == b for a, b in pairwise(labels)) / len(y), "share")
    yield figure("static_accuracy", static(x, y), "share")
    with tempfile.TemporaryDirectory() as folder:
        log = logged(Path(folder) / "log", x, y)
        size = len(y)
        del x, y, labels
        for name in strategies:
            yield from of_strategy(name, log, Path(folder), size)


def main() -> int:
    """Measure, print, and exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("LIFELONG_DATA"), help="folder with covtype")
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="separated by commas; empty for none")
    parser.add_argument("--samples", type=int, help="only so many")
    parser.add_argument("--no-costs", action="store_true", help="leave out commits, recovery and lag")
    parser.add_argument("--out", type=Path, help="file for the figures")
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    told = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in told.strategies.split(",") if name]
    found: list[Row] = []
    parts: list[Iterator[Row]] = [] if told.no_costs else [costs()]
    for part in [*parts, *([rows(told.data_root, names, told.samples)] if names else [])]:
        for row in part:
            show(row, told.json)
            found.append(row)
            if told.out:
                write(told.out, {"batch_size": BATCH, "lr": LR, "strategies": names}, found)
    return int(any(row["holds"] is False for row in found))


if __name__ == "__main__":
    sys.exit(main())
