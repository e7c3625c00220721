"""The most memory that this process had at once since a moment, not since it began: a worker runs many cells."""

from __future__ import annotations

import resource
from pathlib import Path

SELF = Path("/proc/self")


def begin() -> None:
    """Forget earlier peaks, where the kernel can."""
    try:
        (SELF / "clear_refs").write_text("5")
    except OSError:  # no Linux, or not allowed: then it is the peak of the whole process
        return


def peak_bytes() -> int:
    """Return the largest resident set since `begin`, or since the process began where that is all that is known."""
    try:
        lines = (SELF / "status").read_text().splitlines()
    except OSError:
        lines = []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * (found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
