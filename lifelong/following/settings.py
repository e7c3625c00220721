"""How a stream is followed: every setting, its default and its range, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

from lifelong import ranges
from lifelong.errors import ConfigError, UnknownName
from lifelong.ranges import setting

KINDS = ("online", "class-il", "domain-il", "data-il")
DETECTORS = ("drift", "adwin", "shift")
WINDOWS = ("none", "count", "time", "declared", *DETECTORS)
ACTIONS = ("consolidate", "rewarm", "publish", "alert")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """How a stream is followed.

    Args:
        window: What makes an experience: `none` (task-free), `count:N` samples, `time:SECONDS` of the records' own
            clock, `declared` (the record's task changes), or `drift:THRESHOLD` (Page-Hinkley on the test-then-train
            errors; about so many errors more than usual), `adwin:DELTA` (ADWIN on them; probability of a false alarm
            each time, once in 32 samples), or `shift:ALPHA` (Kolmogorov-Smirnov on embeddings, 250 samples against
            250; probability of a false alarm each time; needs SciPy).
        on_drift: What is done where `drift`, `adwin` or `shift` finds a change, by commas: `consolidate` (the window
            ends), `rewarm` (the learning rate begins anew), `publish` (a candidate is due), `alert` (a warning in the
            log). Without `consolidate` there are no windows.
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
        publish_improvement: Rise (0..1) of the accuracy above its lowest since the last candidate at which another is
            due: of the test-then-train figure `recent`, or of the canary's where there is one; 0 is never. Looked at
            every `commit_every` steps.
        held_out_capacity: Samples that the gate judges on, at most; equal room for each class.
        merge: What goes to the gate: `none`: the weights as they are; `ema`: averaged with the version published last;
            `soup`: the greedy soup of the last candidates. Training goes on from the weights as they are.
        merge_weight: Share (0..1) of the version published last in `ema`.
        merge_keep: Candidates among which `soup` chooses, the one of now included.
        canary: Samples of each class that are never learned, and predicted every 1,000 samples to see what was
            forgotten.
        spike: A loss above this many times the usual one (and above chance) is taken back; 0 looks at NaN only.
        linger: Seconds after which an incomplete batch is learned all the same; 0 waits for a whole one, and only
            then do two runs over the same stream end with the same bits.
        until: `forever`, or `end`: stop when everything that is there has been learned.
        on_gap: Where records were deleted unread: `error`, or `skip` and count.
        record_bytes: The largest record.
        queue_bytes: Records that are read ahead; at least one. A broker may pass it once where records become larger.
    """

    window: str = setting("none", pattern=r"^(none|declared|(count|time|drift|adwin|shift):[0-9.eE+-]+)$")
    on_drift: str = "consolidate"
    kind: str = setting("", enum=("", *KINDS))
    dedup: int = setting(100_000, minimum=1)
    dead_letters: int = setting(1_000, minimum=1)
    max_dead: float = setting(0.5, minimum=0, maximum=1)
    max_classes: int = setting(1_000, minimum=1)
    commit_seconds: float = setting(30.0, minimum=0)
    keep: int = setting(3, minimum=1)
    publish_samples: int = setting(0, minimum=0)
    publish_seconds: float = setting(0.0, minimum=0)
    publish_improvement: float = setting(0.0, minimum=0, exclusiveMaximum=1)
    held_out_capacity: int = setting(2_000, minimum=1)
    merge: str = setting("none", enum=("none", "ema", "soup"))
    merge_weight: float = setting(0.5, minimum=0, exclusiveMaximum=1)
    merge_keep: int = setting(4, minimum=2)
    canary: int = setting(0, minimum=0)
    spike: float = setting(0.0, minimum=0)
    linger: float = setting(0.0, minimum=0)
    until: str = setting("forever", enum=("forever", "end"))
    on_gap: str = setting("error", enum=("error", "skip"))
    record_bytes: int = setting(16 * 2**20, minimum=1)
    queue_bytes: int = setting(256 * 2**20, minimum=1)

    def __post_init__(self) -> None:
        name, amount = self.cut
        if name not in WINDOWS:
            raise UnknownName.among("window", name, WINDOWS)
        if (name in ("count", "time", *DETECTORS)) != (amount > 0) or (name == "adwin" and amount >= 1):
            forms = "count:N, time:SECONDS, drift:THRESHOLD, adwin:DELTA (below 1), shift:ALPHA, declared or none"
            raise ConfigError(f"write the window as {forms}, got {self.window!r}")
        ranges.check(self)
        if unknown := self.actions - set(ACTIONS):
            raise UnknownName.among("action on a drift", min(unknown), ACTIONS)
        if self.actions != {"consolidate"} and name not in DETECTORS:
            raise ConfigError(
                f"on_drift={self.on_drift} needs window=drift:T, adwin:DELTA or shift:ALPHA, got {self.window}"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings of plain values by name.

        Raises:
            UnknownName: There is no such setting; the message names the nearest.
            ConfigError: A value is of another type, or out of range.
        """
        return ranges.of(cls, values, "setting of a stream")

    @property
    def cut(self) -> tuple[str, float]:
        """What makes an experience, and how much of it (0 where there is no amount)."""
        name, _, text = self.window.partition(":")
        try:
            return name, float(text) if text else 0.0
        except ValueError:
            return name, -1.0

    @property
    def actions(self) -> frozenset[str]:
        """What is done on a drift."""
        return frozenset(name.strip() for name in self.on_drift.split(","))

    @property
    def cuts(self) -> bool:
        """Whether there are experiences at all."""
        name, _ = self.cut
        return name != "none" and (name not in DETECTORS or "consolidate" in self.actions)

    @property
    def provides(self) -> frozenset[str]:
        """What the stream tells a strategy."""
        if not self.cuts:
            return frozenset()
        return frozenset({"boundaries", "task_id"}) if self.named_kind == "domain-il" else frozenset({"boundaries"})

    @property
    def named_kind(self) -> str:
        """What the stream is to a strategy."""
        return self.kind or ("data-il" if self.cuts else "online")


@final
@dataclass(frozen=True, slots=True)
class StreamSetting:
    """What a stream says about itself (see `lifelong.learning.setting.Setting`)."""

    kind: str
    provides: frozenset[str]
