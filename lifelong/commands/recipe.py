"""What a learner on a stream is made of: written into each version, so that the version can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, final

from lifelong import compose
from lifelong.commands.train import device_of
from lifelong.errors import ConfigError
from lifelong.following.settings import Follow, StreamSetting
from lifelong.learning import Learner
from lifelong.learning.ranks import ALONE, Ranks
from lifelong.models import build


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything but the records: two learners of one recipe that meet the same records have the same weights.

    Args:
        strategy: As it is typed: plug-ins joined by `+`.
        settings: Of the strategy, as they are typed.
        model: The spec of the model.
        optimizer: `sgd`, `adam` or `adamw`.
        lr: Learning rate.
        momentum: Of sgd.
        weight_decay: L2 factor.
        rate: How the learning rate changes, as it is typed.
        budget: Of a step, as it is typed.
        batch_size: Samples per step.
        held_out: Share (0..1) of the samples that only the gate sees.
        seed: Of everything that is drawn.
        device: Where it is trained.
        threads: Of torch: sums are cut into as many parts.
        processes: That train it together: gradients are summed from as many parts.
        follow: Every setting of the stream.
    """

    strategy: str
    settings: list[str]
    model: dict[str, Any]
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    rate: list[str]
    budget: list[str]
    batch_size: int
    held_out: float
    seed: int
    device: str
    threads: int
    processes: int
    follow: dict[str, Any]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Return the recipe that a manifest holds.

        Raises:
            ConfigError: It holds none, or one of another version of this program.
        """
        known = {f.name for f in fields(cls)}
        if odd := known ^ set(values):
            raise ConfigError(
                f"the recipe lacks or has in excess {', '.join(sorted(odd))}; use the version of lifelong that wrote it"
            )
        return cls(**values)

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def learner(self, ranks: Ranks = ALONE) -> Learner:
        """Return a fresh learner, the same each time.

        Raises:
            ConfigError: It was trained by another number of processes than `ranks` are.
        """
        if ranks.count != self.processes:
            raise ConfigError(
                f"it was trained by {self.processes} processes together and this is {ranks.count}: sums of other parts "
                "end with other bits; start as many"
            )
        told = Follow.of(self.follow)
        optim = compose.optim(self.optimizer, self.lr, self.momentum, self.weight_decay, self.rate)
        return Learner(
            build(self.model, seed=self.seed), compose.strategy(self.strategy, self.settings, seed=self.seed),
            optim=optim, batch_size=self.batch_size, seed=self.seed, device=device_of(self.device),
            budget=compose.budget(self.budget), setting=StreamSetting(told.named_kind, told.provides), ranks=ranks,
        )  # fmt: skip
