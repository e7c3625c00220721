"""What learns from portions, and everything it remembers: one state, taken and given back as a whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, final

import torch

from lifelong.batching import stack
from lifelong.errors import ConfigError, DataError
from lifelong.following.along import taken, taking
from lifelong.following.canary import Canary
from lifelong.following.guard import Guard, finite
from lifelong.following.portion import Portion, Row
from lifelong.following.publisher import Publisher
from lifelong.following.settings import Follow
from lifelong.following.windows import Windows
from lifelong.labels import Label
from lifelong.learning import Learner, Strategy
from lifelong.learning.prequential import Prequential
from lifelong.types import Batch, Experience

log = logging.getLogger("lifelong.following")


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
        self.ranks = self.learner.ranks
        refuse_unless_streaming(self.learner.strategy)
        publisher.merger.refuse_unless_fit(self.learner.model)
        self.windows, self.prequential, self.guard = Windows(settings), Prequential(), Guard(settings.spike)
        self.canary = Canary(settings.canary)
        refuse_idle_actions(settings, self.learner, publisher)
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
        if self.ranks.count > 1:  # stacking them costs
            self.ranks.tell(taking(rows, careful))
        first = rows[0].record.time, rows[0].sample.task
        if self.windows.take(len(rows), first) and self.windows.cuts:
            self.learner.begin(self._experience())
        labels = [row.sample.y for row in rows]
        x, ids = stack([row.sample.x for row in rows]), torch.tensor([row.id for row in rows])
        wrong = self._test(x, labels)
        self.learner.labels.register(labels)
        batch = Batch(x, self.learner.labels.encode(labels), ids, torch.full((len(rows),), self._task()))
        batch = self._withhold(batch, rows)
        why = self._step(batch, careful)
        if not why:
            self.canary.look(self.learner.counters["samples"], self._predict)
            self.publisher.look(self.learner.counters["steps"], lambda: self.accuracy)
        return why, wrong

    def ends(self, portion: Portion, wrong: Sequence[bool]) -> tuple[bool, bool]:
        """Return whether a window ends after a portion that was learned, and whether the stream has changed."""
        windows = self.windows
        drifted = windows.drifted(wrong, [row.sample.x for row in portion.rows], self.learner.embed)
        if drifted:
            self._act()
        return portion.boundary or windows.full or (drifted and windows.consolidates), drifted

    def close(self) -> int:
        """Let the strategy consolidate the open window, if there is one; return how many samples it had."""
        samples = self.windows.samples
        if not samples or not self.windows.cuts:
            return 0
        self.ranks.tell({"do": "close"})
        self.learner.end(self._experience())
        self.windows.close()
        return samples

    def rewarm(self) -> None:
        """Start the learning rate's course anew."""
        self.ranks.tell({"do": "rewarm"})
        self.learner.position["warmed"] = self.learner.counters["samples"]

    def along(self) -> None:
        """Do what the first process's trainee does, until that process says that it has ended."""
        while (said := self.ranks.told(None))["do"] != "end":
            if said["do"] == "take":
                self.take(taken(said), said["careful"])
            elif said["do"] == "close":
                self.close()
            elif said["do"] == "rewarm":
                self.rewarm()
            else:
                self.restore(said["state"])

    @property
    def accuracy(self) -> float:
        """Share (0..1) that is right of what is never learned, or else of what was tested before it was learned."""
        return self.canary.figures().get("canary", self.prequential.figures()["recent"])

    def state(self) -> dict[str, Any]:
        """Return everything that a bit-exact continuation needs."""
        return {"learner": self.learner.state(), **{name: part.state() for name, part in self._parts().items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave, into a fresh learner: the one before may have grown since."""
        self.ranks.tell({"do": "restore", "state": state})
        self.learner, self._used = self._make() if self._used else self.learner, True
        self.learner.restore(state["learner"])
        for name, part in self._parts().items():
            part.restore(state[name])

    def _withhold(self, batch: Batch, rows: Sequence[Row]) -> Batch:
        """Give the gate and the canary what is theirs; return the rest."""
        held = torch.tensor([self.publisher.holds(row.id) for row in rows])
        if held.any():
            self.publisher.take(batch.take(held.nonzero().flatten()))
        if self.canary.capacity:
            ours = [not h and self.canary.take(r.id, r.sample.x, r.sample.y) for h, r in zip(held, rows, strict=True)]
            held |= torch.tensor([bool(one) for one in ours])
        return batch.take((~held).nonzero().flatten()) if held.any() else batch

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
        if not self.ranks.first:
            return []
        said = self._predict(x) if len(self.learner.labels) else [None] * len(labels)
        return self.prequential.add(said, labels)

    def _predict(self, x: torch.Tensor) -> list[Label]:
        return self.learner.predict(x, self._task() if self.learner.model.scaling is not None else -1)

    def _act(self) -> None:
        """Do what is to be done on a drift, besides ending the window."""
        actions = self.settings.actions
        if "rewarm" in actions:
            self.rewarm()
        if "publish" in actions:
            self.publisher.asked = True
        if "alert" in actions:
            log.warning("the stream has changed, after %d samples", self.learner.counters["samples"])

    def _task(self) -> int:
        return self.windows.index if self.settings.named_kind == "domain-il" else self.windows.task

    def _experience(self) -> Experience:
        """Return the open window; its samples are not in it, they come by steps."""
        index = self.windows.index
        return Experience(index, f"window-{index}", (), iter(()), None, task=self._task())

    def _parts(self) -> dict[str, Windows | Prequential | Guard | Publisher | Canary]:
        return {
            "windows": self.windows, "prequential": self.prequential, "guard": self.guard,
            "publisher": self.publisher, "canary": self.canary,
        }  # fmt: skip


def refuse_unless_streaming(strategy: Strategy) -> None:
    """Raise `ConfigError` if a strategy passes over data that a stream does not keep."""
    for part in strategy.parts:
        if type(part).prepare is not Strategy.prepare:
            raise ConfigError(
                f"{type(part).__name__} passes over all data of an experience, and a stream keeps none; "
                "choose a strategy with a bounded memory"
            )


def refuse_idle_actions(settings: Follow, learner: Learner, publisher: Publisher) -> None:
    """Raise `ConfigError` if something is to be done on a drift that would do nothing."""
    if "rewarm" in settings.actions and not learner.optim.rate.moves:
        raise ConfigError("on_drift=rewarm does nothing at a constant learning rate; give --rate policy=power")
    if "publish" in settings.actions and publisher.registry is None:
        raise ConfigError("on_drift=publish needs a registry; name one with --registry")
