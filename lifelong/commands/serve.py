"""`lifelong serve`: BentoML's own server with our service, in this process's place."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from lifelong.errors import ConfigError

SERVICE = "serving.service:LifelongService"


def command(host: str, port: int) -> list[str]:
    """Return the command line of the server."""
    if not 0 < port < 65536:
        raise ConfigError(f"a port lies in 1..65535, got {port}")
    return [sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", host, "--port", str(port)]


def environment(registry: Path, state: Path, base: Mapping[str, str], gallery: str = "") -> dict[str, str]:
    """Return the environment of the server: threads bound before torch is imported, nothing phoned home."""
    fixed = {"LIFELONG_REGISTRY": str(registry.absolute()), "LIFELONG_STATE": str(state.absolute())}
    if gallery:
        fixed["LIFELONG_GALLERY"] = gallery
    defaults = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(state.absolute() / "bentoml"),
    }
    return {**defaults, **base, **fixed}


def run(*, registry: Path, state: Path, gallery: str, host: str, port: int) -> None:
    """Become the server; does not return."""
    state.mkdir(parents=True, exist_ok=True)
    line = command(host, port)
    os.execve(line[0], line, environment(registry, state, os.environ, gallery))
