"""The learning rate as a function of how many samples have come: no state but two counters, so it resumes exactly.

Source: `cosine`: Gupta et al. 2023, "Continual Pre-Training of Large Language Models: How to (re)warm your model?";
    `power`: Shen et al. 2024, "Power Scheduler: A Batch Size and Token Number Agnostic Learning Rate Scheduler". Of
    both only the abstract was open to us; the forms are those that are usually written down.
Differs: counts samples, not tokens; `power` has no last phase that anneals (a stream has no last phase).
Checked: closed forms at the ends and between, batch-size law, exact resume (tests/test_rates.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from lifelong import ranges
from lifelong.errors import ConfigError
from lifelong.ranges import setting

POLICIES = ("constant", "cosine", "power")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How the learning rate changes; the optimizer's `lr` is its highest value.

    Args:
        policy: `constant`; `cosine`: up from `floor` and back along half a cosine, anew in each experience; `power`:
            falls as a power of the samples seen, with no end.
        floor: Share (0..1) of `lr` where warming up begins, and where `cosine` ends.
        warmup: Samples over which it rises linearly; 0 begins at the top.
        period: Samples of `cosine` from the first to the last; after them it stays at the floor.
        scale: a of `power`: the rate is min(lr, batch size * a * samples ** b).
        power: b of `power`, below 0.
    """

    policy: str = setting("constant", enum=POLICIES)
    floor: float = setting(0.1, minimum=0, maximum=1)
    warmup: int = setting(0, minimum=0)
    period: int = setting(0, minimum=0)
    scale: float = setting(4.0, exclusiveMinimum=0)
    power: float = setting(-0.51, exclusiveMaximum=0)

    def __post_init__(self) -> None:
        ranges.check(self)
        if self.policy == "cosine" and self.period <= self.warmup:
            raise ConfigError(f"cosine needs a period longer than warmup={self.warmup} samples, got {self.period}")

    @property
    def moves(self) -> bool:
        """Whether it changes at all."""
        return self.policy != "constant"

    def at(self, samples: int, batch_size: int, lr: float) -> float:
        """Return the rate of the step that begins after `samples` samples since it was warmed.

        Args:
            samples: >= 0.
            batch_size: New samples per step.
            lr: Of the optimizer.

        >>> [Rate(policy="cosine", floor=0.0, warmup=10, period=30).at(n, 1, 2.0) for n in (0, 5, 10, 20, 30, 99)]
        [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]
        """
        if samples < self.warmup and self.moves:
            low, high = self.floor * lr, self._settled(self.warmup, batch_size, lr)
            return low + (high - low) * samples / self.warmup
        return self._settled(samples, batch_size, lr)

    def _settled(self, samples: int, batch_size: int, lr: float) -> float:
        if self.policy == "power":
            return float(min(lr, batch_size * self.scale * samples**self.power)) if samples else lr
        if self.policy == "constant":
            return lr
        done = min(1.0, (samples - self.warmup) / (self.period - self.warmup))
        return lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))
