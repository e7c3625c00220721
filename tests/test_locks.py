"""A lock has one owner, says who it is, and goes with its process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lifelong.errors import Locked
from lifelong.locks import FileLock

HOLDS = """
import sys
from pathlib import Path
from lifelong.locks import FileLock
lock = FileLock(Path(sys.argv[1]), "wait")
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_one_is_refused_until_the_first_one_closes(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = FileLock(path, "wait for it")
    said = f"{tmp_path} is being written by process {os.getpid()}; wait for it"
    with pytest.raises(Locked, match=f"^{re.escape(said)}$"):
        FileLock(path, "wait for it")
    first.close()
    first.close()
    FileLock(path, "wait for it").close()


def test_it_is_let_go_of_at_the_end_of_a_block_also_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), FileLock(tmp_path / "lock", "wait"):
        raise ZeroDivisionError
    FileLock(tmp_path / "lock", "wait").close()


def test_a_lock_goes_with_its_process_and_names_it_until_then(tmp_path: Path) -> None:
    """Also where that process is killed; and an older, longer number in the file is written over."""
    path = tmp_path / "lock"
    path.write_text("99999999999999\n")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"process {other.pid};"):
            FileLock(path, "wait")
        assert path.read_text() == f"{other.pid}\n"
        other.kill()
    FileLock(path, "wait").close()

    assert path.exists()  # whoever locked a deleted file would lock nothing


def test_without_a_remedy_it_waits(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def wait() -> None:
        with FileLock(path):
            order.append("second")

    with FileLock(path):
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join()

    assert order == ["first", "second"]


def test_an_owner_that_wrote_nothing_is_unknown(tmp_path: Path) -> None:
    """For one moment a lock is held by somebody who has not said so yet."""
    path = tmp_path / "lock"
    with FileLock(path):
        path.write_bytes(b"")
        with pytest.raises(Locked, match="process unknown; wait"):
            FileLock(path, "wait")
