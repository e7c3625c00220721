"""Processes that work through a grid: each takes the next cell that nobody has taken, until none is left."""

from __future__ import annotations

import os
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lifelong.bench import cell
from lifelong.bench.job import Job
from lifelong.bench.store import Store
from lifelong.errors import ConfigError, LifelongError, Locked

POLL = 0.2  # seconds
SHARE = 20.0  # looking at a large grid takes time from those who work: at most one part in this many
STILLBORN = 3
TRIES = 2
Tell = Callable[[int, int], None]  # how many cells are settled, of how many


def work(store: Store, jobs: Sequence[Job], attempt: str, root: Path | None = None) -> None:
    """Run every job that is neither settled nor taken by somebody else; a job that fails does not stop the next.

    Ends early when the process that started this one is gone.
    """
    parent = os.getppid()
    for job in in_turns(jobs):
        if os.getppid() != parent:
            return
        if store.settled(job, attempt):
            continue
        try:
            lock = store.claim(job)
        except Locked:
            continue
        with lock:
            if not store.settled(job, attempt):
                one(store, job, attempt, root)


def in_turns(jobs: Sequence[Job]) -> list[Job]:
    """Return `jobs` so that each strategy on each scenario has its turn before any has its next.

    A grid under way then compares all of them already, and its pace tells how long the rest will take.
    """
    before: Counter[tuple[str, str]] = Counter()
    turns: dict[int, list[Job]] = {}
    for job in jobs:
        pair = job.scenario, job.strategy
        turns.setdefault(before[pair], []).append(job)
        before[pair] += 1
    return [job for turn in sorted(turns) for job in turns[turn]]


def one(store: Store, job: Job, attempt: str, root: Path | None) -> None:
    """Run `job` and keep what it gives, or why it gave nothing."""
    try:
        store.write(job, *cell.run(job, root))
    except ConfigError as error:
        store.fail(job, "excluded", str(error), attempt)
    except Exception as error:  # noqa: BLE001 - one cell must not stop the others
        lines = traceback.format_exception_only(error)
        store.fail(job, "failed", "".join(lines).strip()[-2000:], attempt)


def crew(
    store: Store, jobs: Sequence[Job], count: int, attempt: str, command: Sequence[str], environment: Mapping[str, str],
    tell: Tell,
) -> None:  # fmt: skip
    """Let `count` processes work until every job is settled; one that dies is replaced, its cell tried once more.

    A cell at which two processes died is reported as failed.

    Args:
        store: Where results go; its grid holds the jobs.
        jobs: Those of the grid that are wanted.
        count: Processes, each of one thread.
        attempt: Name of this attempt: what failed in it is not tried again in it.
        command: Starts a process that calls `work`.
        environment: Of those processes; the number of threads is set here, for more would change sums.
        tell: Called now and then with what is done.

    Raises:
        ConfigError: `count` is below 1.
        LifelongError: The processes do not even start to work.
    """
    if count < 1:
        raise ConfigError(f"jobs must be at least 1, got {count}")
    told = {**environment, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    running: list[subprocess.Popen[bytes]] = []
    left, spared = list(jobs), STILLBORN  # ends of processes that had taken no cell
    deaths: Counter[str] = Counter()
    try:
        while True:
            begun = time.monotonic()
            left = [job for job in left if not store.settled(job, attempt)]
            if not left:
                break
            for process in [p for p in running if p.poll() is not None]:
                running.remove(process)
                if not process.returncode:
                    continue
                mine = [job for job in left if store.claimant(job) == process.pid and not store.settled(job, attempt)]
                spared -= not mine
                deaths.update(job.key for job in mine)
                for job in mine:
                    if deaths[job.key] >= TRIES:  # what ends one process by chance does not end two
                        store.fail(job, "failed", f"its process ended with code {process.returncode}", attempt)
            if spared <= 0:
                said = " ".join(command)
                raise LifelongError(f"{STILLBORN} processes ended before they took a cell; run {said} to see why")
            if len(running) < count and (free := sum(not store.taken(job) for job in left)):
                running += [subprocess.Popen(list(command), env=told) for _ in range(min(count - len(running), free))]
            tell(len(jobs) - len(left), len(jobs))
            time.sleep(max(POLL, SHARE * (time.monotonic() - begun)))
        tell(len(jobs), len(jobs))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
