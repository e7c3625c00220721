"""Discrete key-value bottleneck: what a sample teaches is written behind the few keys that it is nearest to.

Source: Träuble et al. 2023, "Discrete Key-Value Bottleneck" (ICML): frozen encoder, random projections, keys placed
    without labels and then frozen, values trained alone.
Differs: `lr` is per touched pair (the paper's step is divided by batch size, books and tokens); no clipping (with
    voting the gradient's norm is below sqrt(2 * top_k / books)); no learned projection; keys are placed by the first
    samples of the stream where no others are given. See also lifelong/models/{codebooks,bottleneck}.py.
Checked: pairs that were not touched stay bit for bit, a toy like the paper's figure 2 is solved where a linear probe
    fails, and what is learned hardly depends on the order of classes (tests/test_dkvb.py); laws.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError, UnknownName
from lifelong.learning import Needs, Reservoir, Strategy
from lifelong.learning.strategy import State
from lifelong.models import Classifier
from lifelong.models.bottleneck import BottleneckHead
from lifelong.models.codebooks import STARTS
from lifelong.types import Batch, Experience, Output

ROWS = 256  # samples per step where keys are placed


@final
class DiscreteKeyValueBottleneck(Strategy):
    """Freeze the backbone, place keys without labels, then train values alone, in closed form.

    No gradient is taken, so the loop makes one pass over an experience however many it is asked for; `passes` repeats
    it at the end of the experience over remembered pair numbers, without the backbone and the search.

    Args:
        books: Books of key-value pairs, each behind a random projection.
        pairs: Per book.
        dim_key: Width of a key.
        lr: Step of a touched pair, > 0: a sample moves its own logits by less than `lr * top_k`.
        smoothing: Share (0..1) of the target that is spread over all classes.
        even: Divide a pair's step by how many samples of the batch fetched it; False divides by the batch size.
        passes: Over the samples of an experience, >= 1; a stream without boundaries is passed over once.
        capacity: Samples whose pair numbers are remembered for further passes; of more, a uniform sample.
        decoder: `vote`, `linear` or `mlp`.
        width: Of a value, for decoders other than `vote`.
        top_k: Pairs fetched per book.
        reserve: Classes expected in all: those to come are wrong answers in the softmax. More may come.
        mask: When predicting, find only keys that were met in training.
        tokens: Look up one feature per position of a sample (of `lite`, or of `identity` inputs), not their mean.
        projection: `random`, or `chunk`: books share out the values of a feature, books * dim_key in all.
        init: Unlabelled inputs `[N, ...]` that place the keys before the stream starts; None takes the stream's first.
        init_samples: How many of the stream's first samples place the keys (fewer if the first experience is smaller);
            they are held back until then, and learned right after it.
        init_epochs: Passes over them.
        start: Where keys start: `normal` draws them, `kmeans` takes centres of the first step's samples.
        decay: Of the keys' moving averages, 0..1 (1 excluded).
        threshold: A key is replaced below this share of an even share of a step's samples.
        seed: Of this strategy's own generator.
    """

    needs = Needs(distributed=True)
    owns = frozenset({"head", "weights"})

    def __init__(
        self,
        books: int = 64,
        pairs: int = 256,
        dim_key: int = 8,
        *,
        lr: float = 0.1,
        smoothing: float = 0.1,
        even: bool = True,
        passes: int = 1,
        capacity: int = 20_000,
        decoder: str = "vote",
        width: int = 10,
        top_k: int = 1,
        reserve: int = 64,
        mask: bool = True,
        tokens: bool = False,
        projection: str = "random",
        init: Tensor | None = None,
        init_samples: int = 1000,
        init_epochs: int = 10,
        start: str = "normal",
        decay: float = 0.95,
        threshold: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not lr > 0 or not 0 <= smoothing < 1 or min(passes, capacity, init_samples, init_epochs) < 1:
            raise ConfigError(
                "need lr > 0, 0 <= smoothing < 1 and passes, capacity, init_samples, init_epochs >= 1, got "
                f"{lr=}, {smoothing=}, {passes=}, {capacity=}, {init_samples=}, {init_epochs=}"
            )
        if not 0 <= decay < 1 or threshold < 0:
            raise ConfigError(f"need 0 <= decay < 1 and threshold >= 0, got {decay=}, {threshold=}")
        if init is not None and (not isinstance(init, Tensor) or not len(init)):
            raise ConfigError(f"init must be a tensor [N, ...] of at least one input, got {type(init).__name__}")
        if start not in STARTS:
            raise UnknownName.among("start of keys", start, STARTS)
        sizes = {"books": books, "pairs": pairs, "dim_key": dim_key}
        self.head: dict[str, Any] = {**sizes, "decoder": decoder, "width": width, "top_k": top_k}
        self.head |= {"reserve": reserve, "mask": mask, "tokens": tokens, "projection": projection}
        self.how: dict[str, Any] = {"epochs": init_epochs, "size": ROWS, "decay": decay, "threshold": threshold}
        self.how["start"] = start
        self.lr, self.smoothing, self.even, self.passes, self.capacity = lr, smoothing, even, passes, capacity
        self.init, self.init_samples, self.seed = init, init_samples, seed
        self.random = torch.Generator().manual_seed(seed)
        self.ready, self.inside, self.size = False, False, 1
        self.waiting: Batch | None = None  # features instead of inputs, until the keys are placed
        self.memory = Reservoir(capacity, seed)  # pair numbers instead of inputs

    def adapt(self, model: nn.Module) -> None:
        """Freeze everything, put the bottleneck on top and, with `init`, place its keys."""
        assert isinstance(model, Classifier)
        read = getattr(model.backbone, "tokens", None) if self.head["tokens"] else model.backbone
        if read is None:
            raise ConfigError(f"tokens needs a backbone that has them (lite, identity), got {model.spec()['backbone']}")
        model.with_head("bottleneck", **self.head)
        model.requires_grad_(False)
        if self.init is not None:
            device = _head(model).values.device
            with torch.no_grad():
                features = torch.cat([read(rows.to(device)) for rows in self.init.split(ROWS)])
            self._place(_head(model), features)

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Remember from here on what further passes need."""
        self.inside = True

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Learn the new samples, or hold their features back until the keys can be placed."""
        head, self.size = _head(model), max(self.size, len(batch))
        seen = out.features if out.tokens is None else out.tokens
        fresh = Batch(seen, batch.y, batch.ids, batch.task)
        if self.ready:
            self._learn(head, fresh)
            return
        fresh = fresh.to("cpu")  # as they come back after a resume
        self.waiting = fresh if self.waiting is None else Batch.cat([self.waiting, fresh])
        if len(self.waiting) >= self.init_samples:
            self._open(head)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Learn what is still held back, make the further passes, and forget the pair numbers."""
        head = _head(model)
        if self.waiting is not None:
            self._open(head)
        for _ in range(self.passes - 1 if len(self.memory) else 0):
            order = torch.randperm(len(self.memory), generator=self.random)
            for rows in order.split(self.size):
                again = self.memory.store.all.take(rows).to(head.values.device)
                head.learn(again.x.long(), again.y, self.lr, smoothing=self.smoothing, even=self.even)
        self.memory, self.inside = Reservoir(self.capacity, self.seed), False

    def state(self) -> State:
        """Return what is held back and remembered, and the generator; keys and values are the model's."""
        return {
            "waiting": {} if self.waiting is None else self.waiting.state(),
            "memory": self.memory.state(),
            "random": self.random.get_state(),
            "at": {"ready": self.ready, "inside": self.inside, "size": self.size},
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.waiting = Batch(**state["waiting"]) if state["waiting"] else None
        self.memory.restore(state["memory"])
        self.random.set_state(state["random"])
        self.ready, self.inside, self.size = (state["at"][name] for name in ("ready", "inside", "size"))

    def summary(self) -> dict[str, float]:
        """Return how many samples wait for the keys, and how many are remembered for further passes."""
        return {"waiting": float(len(self.waiting or ())), "memory": float(len(self.memory))}

    def _open(self, head: BottleneckHead) -> None:
        assert self.waiting is not None
        held, self.waiting = self.waiting.to(head.values.device), None
        self._place(head, held.x)
        for start in range(0, len(held), self.size):
            self._learn(head, held[start : start + self.size])

    def _place(self, head: BottleneckHead, features: Tensor) -> None:
        head.place(features, **self.how, generator=self.random)
        self.ready = True

    def _learn(self, head: BottleneckHead, batch: Batch) -> None:
        """Take one step on a batch of features; its pair numbers are kept if further passes will want them."""
        found = head.found(batch.x)
        head.learn(found, batch.y, self.lr, smoothing=self.smoothing, even=self.even)
        if self.inside and self.passes > 1:
            small = torch.int16 if self.head["pairs"] <= 1 << 15 else torch.int32
            self.memory.add(Batch(found.to(small), batch.y, batch.ids, batch.task).to("cpu"))


def _head(model: nn.Module) -> BottleneckHead:
    assert isinstance(model, Classifier) and isinstance(model.head, BottleneckHead)
    return model.head
