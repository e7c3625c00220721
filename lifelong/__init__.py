"""Continual learning that is served: the public names, each loaded when it is first used.

>>> import lifelong
>>> lifelong.LabelMap(["cat"]).index("cat")
0
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.client import Client as Client
    from lifelong.daemon import Trainer as Trainer
    from lifelong.gallery.embedded import EmbeddedGallery as EmbeddedGallery
    from lifelong.labels import LabelMap as LabelMap
    from lifelong.learning import Chain as Chain
    from lifelong.learning import Learner as Learner
    from lifelong.learning import Needs as Needs
    from lifelong.learning import Optim as Optim
    from lifelong.learning import Strategy as Strategy
    from lifelong.models import Classifier as Classifier
    from lifelong.models import build as build
    from lifelong.plan import Plan as Plan
    from lifelong.release.gate import Gate as Gate
    from lifelong.release.registry import Registry as Registry
    from lifelong.release.snapshot import Snapshot as Snapshot
    from lifelong.streams.scenarios import scenario as scenario
    from lifelong.types import Batch as Batch
    from lifelong.types import Experience as Experience
    from lifelong.types import Output as Output
    from lifelong.types import Space as Space

_HOMES = {
    "lifelong.client": ("Client",),
    "lifelong.daemon": ("Trainer",),
    "lifelong.gallery.embedded": ("EmbeddedGallery",),
    "lifelong.labels": ("LabelMap",),
    "lifelong.learning": ("Chain", "Learner", "Needs", "Optim", "Strategy"),
    "lifelong.models": ("Classifier", "build"),
    "lifelong.plan": ("Plan",),
    "lifelong.release.gate": ("Gate",),
    "lifelong.release.registry": ("Registry",),
    "lifelong.release.snapshot": ("Snapshot",),
    "lifelong.streams.scenarios": ("scenario",),
    "lifelong.types": ("Batch", "Experience", "Output", "Space"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is public
    """Import a public name from where it lives."""
    if name not in _HOME:
        raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
