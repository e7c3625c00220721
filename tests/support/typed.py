"""Commands as a person types them, in this process."""

from __future__ import annotations

from click.testing import CliRunner

from lifelong.cli import cli
from lifelong.errors import LifelongError


def run(*words: object) -> str:
    """Run a command; return what it printed, or raise what it raised."""
    done = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(done.exception, LifelongError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout
