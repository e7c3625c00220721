"""Test-then-train: each sample is predicted before it is learned, beside two baselines that learn nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from lifelong.labels import Label

FADE = 0.999  # of `recent`: about the last thousand samples


@final
class Prequential:
    """Shares of right predictions over the whole stream.

    `model` is the learner's, `majority` always says the most frequent label so far, `no_change` the label of the
    sample before. `recent` fades: a sample that lies n samples back weighs 0.999 ** n.
    """

    def __init__(self) -> None:
        self.seen = self.right = self.majority = self.no_change = 0
        self.counts: dict[Label, int] = {}
        self.most: Label | None = None
        self.last: Label | None = None
        self.faded = self.weight = 0.0

    def add(self, said: Sequence[Label | None], labels: Sequence[Label]) -> list[bool]:
        """Score predictions (None where there was none) against labels, in order; return which were wrong."""
        wrong = []
        for guess, label in zip(said, labels, strict=True):
            right = guess is not None and guess == label
            wrong.append(not right)
            self.seen += 1
            self.right += right
            self.majority += self.most == label
            self.no_change += self.last == label
            self.faded, self.weight = FADE * self.faded + right, FADE * self.weight + 1
            self.counts[label] = self.counts.get(label, 0) + 1
            if self.most is None or self.counts[label] > self.counts[self.most]:
                self.most = label
            self.last = label
        return wrong

    def figures(self) -> dict[str, float]:
        """Return the four shares (0..1), 0 before the first sample."""
        total = max(self.seen, 1)
        return {
            "model": self.right / total,
            "majority": self.majority / total,
            "no_change": self.no_change / total,
            "recent": self.faded / self.weight if self.weight else 0.0,
        }

    def state(self) -> dict[str, Any]:
        """Return all counts."""
        return {
            "seen": self.seen, "right": self.right, "majority": self.majority, "no_change": self.no_change,
            "counts": [[label, count] for label, count in self.counts.items()],
            "most": self.most, "last": self.last, "faded": self.faded, "weight": self.weight,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        for name in ("seen", "right", "majority", "no_change", "most", "last", "faded", "weight"):
            setattr(self, name, state[name])
        self.counts = dict(state["counts"])
