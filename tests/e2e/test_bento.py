"""A bento made, carried away, installed and served by the commands of `docs/operate.md`, without an index to ask."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml
from page import blocks
from servers import ROOT, Server

from lifelong.client import Client
from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
X = [[0.1, 0.2, 0.3, 0.4]]
NEEDED = ["bentofile.yaml", "constraints.txt", "LICENSE", "pyproject.toml", "README.md"]
PACKAGES = ["lifelong", "serving", "strategies"]


def checkout(folder: Path) -> Path:
    """The repository as somebody has it who cloned it: what was built in this one is not there."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in NEEDED:
        shutil.copy(ROOT / name, folder / name)
    return folder


def index(folder: Path) -> Path:
    """What an index would say of everything that is installed here: wheels of nothing but metadata."""
    folder.mkdir()
    for found in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "_", found.name)
        inside = f"{name}-{found.version}.dist-info"
        with zipfile.ZipFile(folder / f"{name}-{found.version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{inside}/METADATA", found.read_text("METADATA") or "")
            wheel.writestr(f"{inside}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{inside}/RECORD", "")
    return folder


def machine(folder: Path) -> dict[str, str]:
    """The environment of a Python that has all libraries of this one, but neither this project nor its entry points."""
    libraries = folder / "libraries"
    libraries.mkdir(parents=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "lifelong" not in entry.name:
            (libraries / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "python"], check=True)
    own = next((folder / "python" / "lib").glob("python*/site-packages"))
    (own / "libraries.pth").write_text(f"{libraries}\n")
    for name in ("pip", "bentoml"):
        program = folder / "python" / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {folder}/python/bin/python -m {name} "$@"\n')
        program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIFELONG_", "PYTHON", "PIP_"))}
    return {
        **kept,
        "PATH": f"{folder}/python/bin{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "BENTOML_HOME": str(folder / "bentoml"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which says: without isolation; pip would ask an index for setuptools
        "UV_NO_INDEX": "1",
        "UV_NO_CONFIG": "1",
    }


def shell(command: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def pins(text: str) -> dict[str, str]:
    """Exact versions by normalized name."""
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", text, flags=re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_a_bento_is_built_carried_away_installed_and_answers(tmp_path, kit):
    """With nothing of this project on the machine but what the bento brings; models come from the registry."""
    here, there = machine(tmp_path / "here"), machine(tmp_path / "there")
    build, carry, arrive, serve = blocks("As a bento")
    work = checkout(tmp_path / "here" / "lifelong-checkout")
    shell(build, work, {**here, "UV_FIND_LINKS": str(index(tmp_path / "index"))})
    shell(carry, work, here)
    (work / "lifelong.tar.gz").rename(tmp_path / "there" / "lifelong.tar.gz")
    shell(arrive, tmp_path / "there", there)
    (bento,) = (tmp_path / "there" / "bentoml" / "bentos" / "lifelong").glob("*/")
    locked = pins((bento / "env" / "python" / "requirements.txt").read_text())
    allowed = pins((ROOT / "constraints.txt").read_text())
    assert {"bentoml", "torch", "faiss-cpu", "starlette", "uvloop"} <= set(locked)
    others = {name: version for name, version in locked.items() if allowed.get(name) != version}
    assert set(others) <= {"setuptools"}  # which `pip freeze` leaves out
    assert not yaml.safe_load((bento / "bento.yaml").read_text())["models"]
    assert not list(bento.rglob("weights.safetensors"))

    registry = Registry(tmp_path / "there" / "runs" / "registry", create=True)
    kit.publish(registry, 1, promote=True)
    server = Server(tmp_path / "there")
    server.command = ["bash", "-eu", "-c", serve.replace("3000", "{port}")]
    server.environment = there
    try:
        server.start().up()
        with Client(server.url, timeout=30) as client:
            assert client.ready(60)
            told = client.predict(X, top_k=3)
        assert (told["version"], kit.number_in(told["predictions"][0])) == (1, 1)
        (worker,) = server.workers()
        assert str(bento) in Path(f"/proc/{worker.pid}/cwd").readlink().as_posix()
    finally:
        server.kill()
