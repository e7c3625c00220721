"""The commands of `docs/operate.md`, and a shell that follows them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operate.md").read_text()


def blocks(title: str) -> list[str]:
    """The blocks of commands of a section, in order."""
    (section,) = [part for part in re.split(r"^## ", PAGE, flags=re.M) if part.startswith(title + "\n")]
    return re.findall(r"```sh\n(.*?)```", section, flags=re.S)


def commands(title: str) -> list[str]:
    """The same, line by line."""
    return [line for block in blocks(title) for line in block.splitlines()]


class Shell:
    """One shell in one folder, with `lifelong` on its path and the server at the port of the page."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 3000
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LIFELONG_")}
        self.environment = {**kept, "PYTHONPATH": str(ROOT)}
        (folder / "bin").mkdir()
        script = folder / "bin" / "lifelong"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m lifelong.cli "$@"\n')
        script.chmod(0o755)
        self.environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, line: str) -> str:
        line = line.replace("localhost:3000", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", line],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return done.stdout
