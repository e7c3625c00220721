"""`lifelong stream` and `lifelong dead`: what is in a source, and what could not be learned of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from lifelong.commands import tables
from lifelong.errors import ConfigError, DataError, LifelongError, NotFound
from lifelong.following.dead import DeadLetters
from lifelong.learning.checkpoint import Checkpoints
from lifelong.locks import FileLock
from lifelong.sources.folder import files_of
from lifelong.sources.locate import locate
from lifelong.sources.log import Log
from lifelong.sources.record import decode

ROWS = 1024  # appended in one step


def append(*, log: Path, files: Sequence[Path], prefix: str, as_json: bool) -> None:
    """Append samples; those whose id is there already are left out."""
    new = seen = 0
    with Log(log, create=True) as made:
        for path in files:
            for records in files_of(path, made.limit, ROWS):
                named = [(prefix + r.sid, _fitting(r.payload, made.limit)) for r in records]
                _refuse_others(made, path, named)
                new += made.append(named)
                seen += len(records)
    if as_json:
        tables.emit({"log": str(log), "appended": new, "there_already": seen - new})
    else:
        click.echo(f"appended {new} samples to {log}; {seen - new} were there already")


def _refuse_others(log: Log, path: Path, records: Sequence[tuple[str, bytes]]) -> None:
    """Raise `DataError` for a sample whose id another one has: leaving it out would lose it."""
    for sid, payload in records:
        if log.payload(sid) not in (None, payload):
            raise DataError(
                f"{path} has a sample {sid!r}, and the log has another one of that id; give the samples of this "
                "file ids of their own with --prefix"
            )


def _fitting(payload: bytes, limit: int) -> bytes:
    """Return a record; of one that was too large to be read, why: it will be a dead letter of who follows the log."""
    return payload if len(payload) <= limit else payload.rstrip()


def show(*, source: str, last: int, as_json: bool) -> None:
    """Show facts, and records from the end."""
    with locate(source) as found:
        facts: dict[str, Any] = found.facts() if isinstance(found, Log) else {}
        facts |= {"first": found.first(), "last": found.last()}
        rows: deque[list[object]] = deque(maxlen=max(last, 1))
        while last and (records := found.poll(ROWS, 1.0)):
            rows += [[r.partition, r.offset, r.sid, r.time, len(r.payload), _said(r.payload)] for r in records]
    columns = ["partition", "offset", "sid", "time", "bytes", "sample"]
    if as_json:
        tables.emit({"source": source, **facts, "records": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    tables.show(source, ["what", "value"], list(facts.items()))
    if last:
        tables.show("Last records", columns, list(rows))


def trim(*, log: Path, keep: int | None, read: bool, forget: Sequence[str], as_json: bool) -> None:
    """Forget readers, and delete what is old enough."""
    if (keep is not None and read) or (keep is None and not read and not forget):
        raise ConfigError("say what may go: either --keep N or --read; or name a reader with --forget")
    with Log(log) as found:
        for reader in forget:
            found.forget(reader)
        if keep is None and not read:
            tables.emit({"deleted": 0}) if as_json else click.echo(f"forgot {', '.join(forget)}")
            return
        readers: Any = found.facts()["readers"]
        if read and not readers:
            raise ConfigError(f"nobody has committed a position in {log}; use --keep")
        gone = found.trim(through=min(readers.values())) if read else found.trim(keep=keep)
    tables.emit({"deleted": gone}) if as_json else click.echo(f"deleted {gone} records of {log}")


def dead_list(*, run_folder: Path, as_json: bool) -> None:
    """List what the newest commit holds."""
    dead = _letters(_state(run_folder)[1])
    columns = ["number", "partition", "offset", "sid", "bytes", "whole", "error"]
    rows = [
        [n.number, n.record.partition, n.record.offset, n.record.sid, len(n.record.payload), n.whole, n.error]
        for n in dead.letters
    ]
    if as_json:
        tables.emit({
            "letters": [dict(zip(columns, row, strict=True)) for row in rows],
            "again": len(dead.again), "total": dead.total, "lost": dead.lost,
        })  # fmt: skip
        return
    tables.show(f"Dead letters of {run_folder}", columns, rows)
    click.echo(f"{dead.total} in all, {len(dead.again)} waiting to be tried again, {dead.lost} lost to the limit")


def dead_replay(*, run_folder: Path, numbers: Sequence[int]) -> None:
    """Mark letters for the next start."""
    count = _edit(run_folder, lambda dead: dead.replay(numbers))
    click.echo(f"{count} records are tried again at the next start of {run_folder}")


def dead_drop(*, run_folder: Path, numbers: Sequence[int]) -> None:
    """Forget letters."""
    click.echo(f"dropped {_edit(run_folder, lambda dead: dead.drop(numbers))} letters of {run_folder}")


def _edit(run_folder: Path, change: Callable[[DeadLetters], int]) -> int:
    """Commit a changed queue; everything else of the newest commit stays."""
    _folder(run_folder)
    with FileLock(run_folder / ".lock", "stop the trainer first"):
        commits, state = _state(run_folder)  # only now: a trainer may have gone on until here
        dead = _letters(state)
        count = change(dead)
        commits.commit({**state, "intake": {**state["intake"], "dead": dead.state(), "halted": 0.0}})
    return count


def _folder(run_folder: Path) -> Path:
    folder = run_folder / "checkpoints"
    if not folder.is_dir():
        raise NotFound(f"there is no run in {run_folder}; name the folder given to lifelong train --run")
    return folder


def _state(run_folder: Path) -> tuple[Checkpoints, dict[str, Any]]:
    commits = Checkpoints(_folder(run_folder))
    commits.keep = len(commits.numbers()) + 1  # how many stay is for the run to say
    state = commits.latest()
    if state is None or "intake" not in state:
        raise NotFound(f"{run_folder} holds no commit of a run over a source")
    return commits, state


def _letters(state: dict[str, Any]) -> DeadLetters:
    dead = DeadLetters(1 << 30)
    dead.restore(state["intake"]["dead"])
    return dead


def _said(payload: bytes) -> str:
    try:
        sample = decode(payload)
    except LifelongError as error:
        return str(error)
    kind = str(sample.x.dtype).removeprefix("torch.")
    return f"{kind}{list(sample.x.shape)} -> {sample.y!r}" + (f" of task {sample.task}" if sample.task >= 0 else "")
