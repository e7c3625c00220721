"""A fixed set of samples that is never learned, to see what is forgotten while a stream goes on.

The first samples of each class whose id falls into one tenth of all ids; they are predicted every `EVERY` samples. What
is forgotten is the mean over classes of the best accuracy that there ever was, minus the accuracy of now (`forgetting`
of Chaudhry et al. 2018, with classes for tasks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from lifelong.following.shift import stacked
from lifelong.labels import Label

EVERY = 1000  # samples between two looks
TENTH = 10


@final
class Canary:
    """Samples by class, and how many of them were right at the last look and at the best one.

    Args:
        capacity: Samples for each class; 0 keeps none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.x: list[Tensor] = []
        self.y: list[Label] = []
        self.best: dict[Label, float] = {}
        self.now: dict[Label, float] = {}
        self.next = EVERY  # learned samples at the next look

    def take(self, number: int, x: Tensor, label: Label) -> bool:
        """Keep a sample if it is one of this set; then it must not be learned.

        Args:
            number: Its id.
            x: Input.
            label: As it was given.
        """
        if not self.capacity or number % TENTH or self.y.count(label) >= self.capacity:
            return False
        self.x.append(x)
        self.y.append(label)
        return True

    def look(self, samples: int, predict: Callable[[Tensor], Sequence[Label]]) -> None:
        """Predict the set if `samples` learned samples make it time to."""
        if not self.x or samples < self.next:
            return
        self.next = (samples // EVERY + 1) * EVERY
        said = predict(torch.stack(self.x))
        right: dict[Label, list[bool]] = {}
        for guess, label in zip(said, self.y, strict=True):
            right.setdefault(label, []).append(guess == label)
        self.now = {label: sum(hits) / len(hits) for label, hits in right.items()}
        self.best = {label: max(share, self.best.get(label, 0.0)) for label, share in self.now.items()}

    def figures(self) -> dict[str, float]:
        """Return accuracy over classes and what was forgotten (0..1), nothing before the first look."""
        if not self.now:
            return {}
        lost = [self.best[label] - share for label, share in self.now.items()]
        return {"canary": sum(self.now.values()) / len(self.now), "canary_forgotten": sum(lost) / len(lost)}

    def state(self) -> dict[str, Any]:
        """Return the set and what was seen on it."""
        shares = [[label, self.now[label], self.best[label]] for label in self.now]
        return {"x": stacked(self.x), "y": list(self.y), "shares": shares, "next": self.next}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.x, self.y, self.next = list(state["x"]), list(state["y"]), state["next"]
        self.now = {label: now for label, now, _ in state["shares"]}
        self.best = {label: best for label, _, best in state["shares"]}
