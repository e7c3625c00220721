"""Where a version comes from, as its manifest says it: data, memories, and the program that made it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from lifelong.learning import Learner


def made_by() -> dict[str, Any]:
    """Return what bits may hang on, beside data and settings: versions, kind of processor, threads."""
    return {
        "lifelong": version("lifelong"), "torch": str(torch.__version__), "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(),
    }  # fmt: skip


def origin(learner: Learner, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of where its weights come from, beside what is being run.

    Args:
        learner: After the last record.
        data: As `Intake.range` says it.
    """
    return {"data": dict(data), "memory": dict(learner.strategy.summary()), "made_by": made_by()}
