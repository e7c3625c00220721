"""What learns from portions, and everything it remembers: one state, taken and given back as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch

from lifelong.batching import stack
from lifelong.errors import ConfigError, DataError
from lifelong.following.guard import Guard, finite
from lifelong.following.portion import Row
from lifelong.following.publisher import Publisher
from lifelong.following.settings import Follow
from lifelong.following.windows import Windows
from lifelong.learning import Learner, Strategy
from lifelong.learning.prequential import Prequential
from lifelong.types import Batch, Experience


@final
class Trainee:
    """A learner, its open window, its test-then-train figures and its candidates.

    Args:
        make: Returns a fresh learner, always with the same arguments.
        settings: Of the stream.
        publisher: Keeps the gate's samples.

    Raises:
        ConfigError: The strategy passes over data that a stream does not keep.
    """

    def __init__(self, make: Callable[[], Learner], settings: Follow, publisher: Publisher) -> None:
        self._make, self.settings, self.publisher = make, settings, publisher
        self.learner, self._used = make(), False
        refuse_unless_streaming(self.learner.strategy)
        self.windows, self.prequential, self.guard = Windows(settings), Prequential(), Guard(settings.spike)
        self.loss = 0.0

    def take(self, rows: Sequence[Row], careful: bool = False) -> tuple[str, list[bool]]:
        """Test and then learn samples; return why that must be taken back (empty if not), and which were wrong.

        Args:
            rows: In order, of one window.
            careful: Look at every weight after the step.
        """
        self._used = True
        if not rows:
            return "", []
        first = rows[0].record.time, rows[0].sample.task
        if self.windows.take(len(rows), first) and self.windows.by != "none":
            self.learner.begin(self._experience())
        labels = [row.sample.y for row in rows]
        x, ids = stack([row.sample.x for row in rows]), torch.tensor([row.id for row in rows])
        wrong = self._test(x, labels)
        self.learner.labels.register(labels)
        batch = Batch(x, self.learner.labels.encode(labels), ids, torch.full((len(rows),), self._task()))
        held = torch.tensor([self.publisher.holds(row.id) for row in rows])
        if held.any():
            self.publisher.take(batch.take(held.nonzero().flatten()))
            batch = batch.take((~held).nonzero().flatten())
        return self._step(batch, careful), wrong

    def close(self) -> int:
        """Let the strategy consolidate the open window, if there is one; return how many samples it had."""
        samples = self.windows.samples
        if not samples or self.windows.by == "none":
            return 0
        self.learner.end(self._experience())
        self.windows.close()
        return samples

    def state(self) -> dict[str, Any]:
        """Return everything that a bit-exact continuation needs."""
        return {"learner": self.learner.state(), **{name: part.state() for name, part in self._parts().items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave, into a fresh learner: the one before may have grown since."""
        self.learner, self._used = self._make() if self._used else self.learner, True
        self.learner.restore(state["learner"])
        for name, part in self._parts().items():
            part.restore(state[name])

    def _step(self, batch: Batch, careful: bool) -> str:
        if not len(batch):
            return ""
        try:
            if not self.learner.model.training:  # a walk over all modules
                self.learner.model.train()
            self.loss = self.learner.step(batch)
        except (DataError, ConfigError) as error:  # a loss that is not finite, a class for which there is no room
            return str(error)
        why = self.guard.refuses(self.loss, len(self.learner.labels))
        if not why and careful and not finite(self.learner.model):
            why = "a weight is not a number"
        if not why:
            self.guard.accept(self.loss)
            self.publisher.samples += len(batch)
        return why

    def _test(self, x: torch.Tensor, labels: Sequence[str | int]) -> list[bool]:
        task = self._task() if self.learner.strategy.needs.task_id else -1
        said = self.learner.predict(x, task) if len(self.learner.labels) else [None] * len(labels)
        return self.prequential.add(said, labels)

    def _task(self) -> int:
        return self.windows.index if self.settings.named_kind == "domain-il" else self.windows.task

    def _experience(self) -> Experience:
        """Return the open window; its samples are not in it, they come by steps."""
        index = self.windows.index
        return Experience(index, f"window-{index}", (), iter(()), None, task=self._task())

    def _parts(self) -> dict[str, Windows | Prequential | Guard | Publisher]:
        return {
            "windows": self.windows, "prequential": self.prequential, "guard": self.guard, "publisher": self.publisher
        }  # fmt: skip


def refuse_unless_streaming(strategy: Strategy) -> None:
    """Raise `ConfigError` if a strategy passes over data that a stream does not keep."""
    for part in getattr(strategy, "strategies", (strategy,)):
        if type(part).prepare is not Strategy.prepare:
            raise ConfigError(
                f"{type(part).__name__} passes over all data of an experience, and a stream keeps none; "
                "choose a strategy with a bounded memory"
            )
