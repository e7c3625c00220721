"""How a stream is followed: every setting, its default and its range, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, final

from lifelong.errors import ConfigError, UnknownName

KINDS = ("online", "class-il", "domain-il", "data-il")
WINDOWS = ("none", "count", "time", "declared", "drift")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How a stream is followed.

    Args:
        window: What makes an experience: `none` (task-free), `count:N` samples, `time:SECONDS` of the records' own
            clock, `declared` (the record's task changes), or `drift:THRESHOLD` (Page-Hinkley on the test-then-train
            errors; about so many errors more than usual).
        kind: What the stream is to a strategy: `online`, `class-il`, `domain-il` or `data-il`; empty is `online`
            without windows and `data-il` with them. In `domain-il` each window is a task of its own.
        dedup: Sample ids that are remembered to drop duplicates.
        dead_letters: Records that cannot be learned and are kept for a person.
        max_dead: Share (0..1) of dead letters in 1,000 records at which the run stops; 1 never does.
        max_classes: Labels that the stream may bring; one more is a dead letter.
        commit_seconds: Time between two commits, beside the number of steps.
        keep: Commits that are retained.
        publish_samples: Samples between two candidates; 0 is never.
        publish_seconds: Time between two candidates; 0 is never.
        held_out_capacity: Samples that the gate judges on, at most; equal room for each class.
        spike: A loss above this many times the usual one (and above chance) is taken back; 0 looks at NaN only.
        linger: Seconds after which an incomplete batch is learned all the same; 0 waits for a whole one, and only
            then do two runs over the same stream end with the same bits.
        until: `forever`, or `end`: stop when everything that is there has been learned.
        on_gap: Where records were deleted unread: `error`, or `skip` and count.
        record_bytes: The largest record.
    """

    window: str = "none"
    kind: str = ""
    dedup: int = 100_000
    dead_letters: int = 1_000
    max_dead: float = 0.5
    max_classes: int = 1_000
    commit_seconds: float = 30.0
    keep: int = 3
    publish_samples: int = 0
    publish_seconds: float = 0.0
    held_out_capacity: int = 2_000
    spike: float = 0.0
    linger: float = 0.0
    until: str = "forever"
    on_gap: str = "error"
    record_bytes: int = 16 * 2**20

    def __post_init__(self) -> None:
        name, amount = self.cut
        if name not in WINDOWS:
            raise UnknownName.among("window", name, WINDOWS)
        if (name in ("count", "time", "drift")) != (amount > 0):
            forms = "count:N, time:SECONDS, drift:THRESHOLD, declared or none"
            raise ConfigError(f"write the window as {forms}, got {self.window!r}")
        if self.kind and self.kind not in KINDS:
            raise UnknownName.among("kind of stream", self.kind, KINDS)
        if self.until not in ("forever", "end"):
            raise UnknownName.among("end of a run", self.until, ("forever", "end"))
        if not 0 <= self.max_dead <= 1:
            raise ConfigError(f"max_dead is a share from 0 to 1, got {self.max_dead}")
        for key in ("dedup", "dead_letters", "max_classes", "keep", "held_out_capacity", "record_bytes"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} must be at least 1, got {getattr(self, key)}")
        for key in ("commit_seconds", "publish_samples", "publish_seconds", "spike", "linger"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key} must not be negative, got {getattr(self, key)}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings of plain values by name.

        Raises:
            UnknownName: There is no such setting; the message names the nearest.
            ConfigError: A value is of another type, or out of range.
        """
        kinds = {f.name: type(f.default) for f in fields(cls)}
        for name, value in values.items():
            if name not in kinds:
                raise UnknownName.among("setting of a stream", name, kinds)
            if type(value) is not kinds[name] and not (kinds[name] is float and type(value) is int):
                raise ConfigError(f"{name} is a {kinds[name].__name__}, got {value!r}")
        return cls(**values)

    @property
    def cut(self) -> tuple[str, float]:
        """What makes an experience, and how much of it (0 where there is no amount)."""
        name, _, text = self.window.partition(":")
        try:
            return name, float(text) if text else 0.0
        except ValueError:
            return name, -1.0

    @property
    def provides(self) -> frozenset[str]:
        """What the stream tells a strategy."""
        if self.window == "none":
            return frozenset()
        return frozenset({"boundaries", "task_id"}) if self.named_kind == "domain-il" else frozenset({"boundaries"})

    @property
    def named_kind(self) -> str:
        """What the stream is to a strategy."""
        return self.kind or ("online" if self.window == "none" else "data-il")


@final
@dataclass(frozen=True, slots=True)
class StreamSetting:
    """What a stream says about itself (see `lifelong.learning.setting.Setting`)."""

    kind: str
    provides: frozenset[str]
