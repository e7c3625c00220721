"""The image, read and not built: what can be wrong in a Dockerfile without an engine to tell."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lifelong.cli import cli

ROOT = Path(__file__).resolve().parents[1]
KNOWN = {"ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "VOLUME", "WORKDIR"}


def instructions() -> list[tuple[str, str]]:
    """`(instruction, rest)` in order; comments gone, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, rest.strip()) for line in joined.splitlines() if line.strip() for word, rest in [line.split(None, 1)]
    ]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def environment() -> dict[str, str]:
    pairs = [pair for word, rest in last_stage() if word == "ENV" for pair in shlex.split(rest)]
    return dict(pair.split("=", 1) for pair in pairs)


def only(word: str) -> str:
    (rest,) = [rest for found, rest in last_stage() if found == word]
    return rest


def exec_form(text: str) -> list[str]:
    """A JSON array: no shell between the engine and the process, so signals reach it."""
    found = json.loads(text)
    assert isinstance(found, list)
    assert all(isinstance(part, str) for part in found)
    return found


def test_every_instruction_is_known() -> None:
    assert {word for word, _ in instructions()} <= KNOWN


def test_both_stages_are_the_slim_python_that_the_project_asks_for() -> None:
    images = [rest.split()[0] for word, rest in instructions() if word == "FROM"]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert images == [f"python:{wanted.removeprefix('>=')}-slim"] * 2


def copied() -> list[str]:
    """What is copied out of the build context."""
    copies = [shlex.split(rest) for word, rest in instructions() if word == "COPY"]
    return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    """The last rule of .dockerignore that fits a path decides."""
    rules = [r for r in (ROOT / ".dockerignore").read_text().split("\n") if r and not r.startswith("#")]
    for source in copied():
        assert (ROOT / source).exists(), source
        fitting = [rule for rule in rules if fnmatch(source, rule.removeprefix("!"))]
        assert fitting[-1].startswith("!"), source


def test_every_package_of_the_project_is_copied() -> None:
    """A new top-level package must not be missing in the image only."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {pattern.rstrip("*") for pattern in found} <= set(copied())


def test_no_model_and_no_secret_is_baked_in() -> None:
    words = " ".join(rest for _, rest in instructions())
    assert not re.search(r"safetensors\b|runs/|demo-run|versions/|token|password|secret", words, flags=re.I)
    assert not [rest for word, rest in instructions() if word == "COPY" and rest.split()[0] in (".", "./")]


def test_the_index_of_torchs_wheels_is_the_builders_choice() -> None:
    assert ("ARG", 'TORCH_INDEX=""') in instructions()
    assert any("$TORCH_INDEX" in rest for word, rest in instructions() if word == "RUN")


def test_the_environment_is_set_before_anything_is_imported() -> None:
    wanted = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "true"}
    assert wanted.items() <= environment().items()
    assert environment()["BENTOML_HOME"].startswith("/state/")


def test_it_does_not_run_as_root() -> None:
    """By number: an orchestrator can tell that it is not 0."""
    stage = last_stage()
    user = max(index for index, (word, _) in enumerate(stage) if word == "USER")
    number = stage[user][1]

    assert number.isdecimal()
    assert int(number) > 0
    assert any(f"--uid {number}" in rest for word, rest in stage if word == "RUN")
    assert not [word for word, _ in stage[user:] if word in ("RUN", "COPY")]  # nothing is written as that user


def test_registry_and_state_are_volumes_and_only_the_state_is_writable() -> None:
    assert set(exec_form(only("VOLUME"))) == {"/registry", "/state"}
    (made,) = [rest for word, rest in last_stage() if word == "RUN"]
    assert re.search(r"chown lifelong /state\s*$", made)


def test_the_command_is_one_of_ours_with_options_that_exist() -> None:
    program, name, *arguments = exec_form(only("CMD"))
    given = cli.commands[name].make_context(name, list(arguments)).params

    assert program == "lifelong"
    assert (str(given["registry"]), str(given["state"])) == ("/registry", "/state")
    assert given["host"] == "0.0.0.0"
    assert only("EXPOSE") == str(given["port"])


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers `/readyz` with `status` and anything else with 404; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
@pytest.mark.slow
def test_the_health_check_is_healthy_exactly_while_a_version_is_live(status: int, code: int) -> None:
    """It is run here, against another port."""
    program, flag, script = exec_form(only("HEALTHCHECK").split("CMD", 1)[1])
    port = only("EXPOSE")

    assert (program, flag) == ("python", "-c")
    assert script.count(port) == 1
    with answering(status) as own:
        done = subprocess.run([sys.executable, "-I", "-c", script.replace(port, str(own))], timeout=60, check=False)
    assert done.returncode == code


def test_the_dependencies_are_read_as_the_project_declares_them() -> None:
    """The first RUN that prints them is run here."""
    (line,) = [rest for word, rest in instructions() if word == "RUN" and "tomllib" in rest]
    script = shlex.split(line.split(">", 1)[0])[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert done.stdout.splitlines() == declared
