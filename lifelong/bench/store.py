"""A grid's folder: one file per finished cell, written at once or not at all, so that a killed run goes on.

grid.json                          the jobs, in order
cells/SCENARIO/STRATEGY/SEED.json  what a job gives: the same bytes wherever it was run
costs/SCENARIO/STRATEGY/SEED.json  seconds, memory, versions: not the same twice
failed/SCENARIO/STRATEGY/SEED.json why there is no result
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

from lifelong import files
from lifelong.bench.job import Job, revision
from lifelong.errors import ConfigError, DataError
from lifelong.locks import FileLock, held

FORMAT = 1


@final
class Store:
    """The results of the jobs of one grid.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, jobs: Sequence[Job], about: Mapping[str, Any]) -> Store:
        """Return the store of `jobs` in `folder`, which may hold an earlier run of the same jobs or of some of them.

        Results of jobs that have changed in any way are not kept for new ones: they will be run.

        Raises:
            ConfigError: Two jobs have the same scenario, strategy and seed.
        """
        cls.refuse_twice(jobs)
        store = cls(folder)
        _make(folder)
        body = {"format": FORMAT, "about": dict(about), "jobs": [job.plain() for job in jobs]}
        files.write_atomic(folder / "grid.json", files.canonical_json(body))
        return store

    @staticmethod
    def alone(folder: Path) -> FileLock:
        """Return the right to say what the grid in `folder` is, until it is closed or this process ends.

        Raises:
            ConfigError: A file is in the way.
            Locked: Another process runs a grid there.
        """
        _make(folder)
        return FileLock(folder / "run.lock", "wait until it has ended, or choose another --out")

    @staticmethod
    def refuse_twice(jobs: Sequence[Job]) -> None:
        """Raise `ConfigError` unless there are jobs, each with a key of its own."""
        counts = Counter(job.key for job in jobs)
        twice = sorted(key for key, count in counts.items() if count > 1)
        if twice or not jobs:
            raise ConfigError(f"a grid has each cell once and at least one, got {len(jobs)} jobs, twice: {twice[:3]}")

    def grid(self) -> dict[str, Any]:
        """Return what `create` was told.

        Raises:
            ConfigError: No grid of this format is there.
        """
        path = self.folder / "grid.json"
        if not path.is_file():
            raise ConfigError(
                f"no grid in {self.folder}: {path.name} is missing; make one with lifelong bench run --out"
            )
        found = _plain(path)
        whole = found is not None and isinstance(found.get("jobs"), list) and isinstance(found.get("about"), dict)
        if found is None or not whole or found.get("format") != FORMAT:
            got = f"of format {found.get('format')}" if found and found.get("format") != FORMAT else "damaged"
            raise ConfigError(f"{path} is {got}, this version reads format {FORMAT}; run the grid anew")
        return found

    def jobs(self) -> list[Job]:
        """Return the jobs in the order of the grid."""
        return [Job.of(plain) for plain in self.grid()["jobs"]]

    def result(self, job: Job) -> dict[str, Any] | None:
        """Return what `job` gave, None where it has not been run as it is now."""
        found = self._read("cells", job)
        return found if found is not None and found.get("digest") == job.digest else None

    def cost(self, job: Job) -> dict[str, Any]:
        """Return what running `job` took, nothing where that is unknown."""
        return self._read("costs", job) or {}

    def failure(self, job: Job) -> dict[str, Any] | None:
        """Return why `job` gave nothing: `kind` (`failed` or `excluded`), `reason` and `attempt`."""
        found = self._read("failed", job)
        return found if found is not None and found.get("digest") == job.digest else None

    def write(self, job: Job, result: Mapping[str, Any], cost: Mapping[str, Any]) -> None:
        """Keep the outcome of `job`; once this returns it survives a loss of power."""
        self._write("costs", job, cost)
        self._write("cells", job, result)
        self.path("failed", job).unlink(missing_ok=True)

    def fail(self, job: Job, kind: str, reason: str, attempt: str) -> None:
        """Keep why `job` gave nothing in this `attempt` of the grid; another attempt may try again."""
        if self.result(job) is not None:  # of older code, or it would not have been tried
            self.path("cells", job).unlink(missing_ok=True)
        self._write("failed", job, {"digest": job.digest, "kind": kind, "reason": reason, "attempt": attempt})

    def settled(self, job: Job, attempt: str) -> bool:
        """Whether there is nothing left to do for `job` in this attempt; what older code gave does not count."""
        result, failure = self.result(job), self.failure(job)
        if result is not None and result.get("revision") == revision(job):
            return True
        return failure is not None and bool(failure["attempt"] == attempt)

    def claim(self, job: Job) -> FileLock:
        """Return the right to run `job`, held until it is closed or this process ends.

        Raises:
            Locked: Somebody else is at it.
        """
        path = self.path("claims", job).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, "it will be there when that process has finished")

    def taken(self, job: Job) -> bool:
        """Whether somebody is at `job` now."""
        return held(self.path("claims", job).with_suffix(".lock"))

    def claimant(self, job: Job) -> int | None:
        """Return the number of the process that last took `job`."""
        path = self.path("claims", job).with_suffix(".lock")
        text = path.read_text().strip() if path.is_file() else ""
        return int(text) if text.isdigit() else None

    def path(self, kind: str, job: Job) -> Path:
        """Return where the `kind` of file of `job` lies."""
        return self.folder / kind / f"{job.key}.json"

    def _read(self, kind: str, job: Job) -> dict[str, Any] | None:
        path = self.path(kind, job)
        return _plain(path) if path.is_file() else None

    def _write(self, kind: str, job: Job, value: Mapping[str, Any]) -> None:
        path = self.path(kind, job)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, files.canonical_json(dict(value)))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"{folder} is to be the folder of a grid, and a file is in the way; choose another"
        ) from error


def _plain(path: Path) -> dict[str, Any] | None:
    """Return what a file of ours holds, None if it is damaged: then it counts as not there, and is made anew."""
    try:
        found = files.parse_json(files.read_file(path))
    except DataError:
        return None
    return found if isinstance(found, dict) else None
