"""Files that are either the old ones or the new ones, also after kill -9 or a power cut.

Everything is written aside (under `.tmp-<host>-<pid>-<random>`, in the same file system), flushed to disk, and
then renamed or linked into place; the folder that holds the name is flushed last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lifelong.errors import DataError, NotFound

PREFIX = ".tmp-"
STALE_SECONDS = 24 * 3600.0  # leftovers of another host, whose processes cannot be asked


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any plain value
    r"""Return the one JSON text of plain values: sorted keys, no spaces, ASCII, one line.

    Raises:
        DataError: Something in it is not plain (a tensor, NaN, an infinity, a key that is no string ...).

    >>> canonical_json({"b": 1, "a": [True, None, "ü"]})
    b'{"a":[true,null,"\\u00fc"],"b":1}\n'
    """
    try:
        _plain(value, "value")
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"cannot be written as JSON: {error}; keep to finite numbers and nested plain values"
        ) from error
    return text.encode("ascii") + b"\n"


def parse_json(data: bytes) -> Any:  # noqa: ANN401 - any plain value
    """Return the plain values of strict JSON: NaN, infinities and repeated keys are no JSON here.

    Raises:
        DataError: It is not JSON.
    """
    try:
        return json.loads(data, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DataError(f"not JSON: {error}") from error


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file; a symbolic link is not followed.

    Raises:
        NotFound: There is no such file.
        DataError: It is a link, a folder, a pipe, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe must not wait for a writer
    try:
        descriptor = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DataError(f"{path} is not a regular file")
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            return file.read()
    except FileNotFoundError as error:
        raise NotFound(f"{path} is missing") from error
    except OSError as error:
        kind = "a symbolic link, which is never followed" if path.is_symlink() else f"unreadable ({error.strerror})"
        raise DataError(f"{path} is {kind}") from error


def signature(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced, without reading it; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist yet, and flush it (not the folder: a commit does that once).

    Raises:
        FileExistsError: It does.
        OSError: It cannot be written; the error names the file.
    """
    try:
        with path.open("xb") as file:
            path.chmod(0o644)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk is told without a name
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file's content as a whole: readers see the old bytes or the new ones."""
    aside = scratch_name(path.parent)
    try:
        write_new(aside, data)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def create_exclusive(path: Path, data: bytes) -> None:
    """Create a file with its whole content in one step, by a hard link; of two writers one wins.

    Raises:
        FileExistsError: The other one won.
    """
    aside = scratch_name(path.parent)
    try:
        write_new(aside, data)
        os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def commit_folder(folder: Path, final: Path) -> None:
    """Flush a folder written aside, make it readable for everybody, and rename it to `final`.

    Raises:
        FileExistsError: `final` is there and not empty; nothing was changed.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # what is inside before what it is inside of
        path.chmod(0o755 if path.is_dir() else 0o644)
        sync(path)
    folder.chmod(0o755)
    sync(folder)
    try:
        folder.rename(final)
    except OSError as error:
        if final.exists():
            raise FileExistsError(f"{final} exists") from error
        raise
    sync(final.parent)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Give a new folder in `parent` to fill and then `commit_folder`; removed if it was not."""
    folder = scratch_name(parent)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def scratch_name(parent: Path) -> Path:
    """Return a name in `parent` that nobody else uses, and from which `sweep` sees who made it."""
    return parent / f"{PREFIX}{_host()}-{os.getpid()}-{secrets.token_hex(8)}"


def sweep(parent: Path) -> int:
    """Remove what killed writers left in `parent`; return how many.

    Left over is what a process of this host made that no longer runs, or what is a day old.
    """
    stale = [path for path in parent.glob(f"{PREFIX}*") if _stale(path)]
    for path in stale:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()) or "host"


def _stale(path: Path) -> bool:
    host, _, rest = path.name.removeprefix(PREFIX).partition("-")
    pid = rest.partition("-")[0]
    if host == _host() and pid.isdecimal():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass  # somebody else's process, or no process number at all: only its age counts
    with suppress(OSError):  # gone in the meantime
        return time.time() - path.lstat().st_mtime > STALE_SECONDS
    return False


def _plain(value: object, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):  # json would turn 1 into "1" and come back as something else
                raise DataError(f"{where} has the key {key!r}; keys must be strings")
            _plain(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _plain(item, f"{where}[{index}]")
    elif value is not None and type(value) not in (str, int, float, bool):  # numpy's float64 is a float: refuse it
        raise DataError(f"{where} is {type(value).__name__}, not a plain value; convert it first")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found
