"""Averages of weights, made for a candidate and never trained on: training goes on from where it was.

`ema`: W times the version that was published last, 1 - W times the weights of now. `soup`: the greedy soup of the
weights of now and of the candidates before: best first by accuracy on held-out rows, each is added if the average's
accuracy rises.

Source: `ema`: Roth et al. 2024, "A Practitioner's Guide to Continual Multimodal Pretraining" (merging after each
    update); `soup`: Wortsman et al. 2022, "Model soups", algorithm 1.
Differs: only weights that are trained are averaged, buffers are those of now; of weights that have grown the old part
    is averaged, in a soup only candidates of the same shapes take part. A soup is chosen on every other held-out row,
    and the gate judges it on the others: it never sees rows that something was chosen on.
Checked: closed forms, greedy choice against a loop over all orders, exact resume (tests/test_merge.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.following.settings import Follow
from lifelong.models import Classifier, outputs
from lifelong.types import Batch

Weights = dict[str, Tensor]


@final
class Merger:
    """Averages the weights of candidates.

    Args:
        settings: `merge`, `merge_weight` and `merge_keep`.
    """

    def __init__(self, settings: Follow) -> None:
        self.how, self.weight, self.keep = settings.merge, settings.merge_weight, settings.merge_keep
        self.kept: list[Weights] = []  # `ema`: what was published last; `soup`: the candidates before, oldest first
        self._made: Weights = {}

    def refuse_unless_fit(self, model: nn.Module) -> None:
        """Raise `ConfigError` if averages of this model's weights mean nothing."""
        if self.how == "none":
            return
        if not trained(model):
            raise ConfigError(f"merge={self.how} averages what is trained, and this strategy trains nothing; use none")
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if any(p.requires_grad for norm in norms for p in norm.parameters()):
            raise ConfigError(f"merge={self.how} does not fit the running statistics of batch norm; use merge=none")

    @contextmanager
    def merged(self, model: Classifier, held_out: Batch) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Have `model` hold the average for a while; give the rows that are left for the gate, and what was done.

        Args:
            model: As trained; it is so again at the end.
            held_out: Rows that were not trained on.
        """
        now = trained(model)
        if self.how == "none":
            yield held_out, {}
            return
        if self.how == "ema":
            self._made = between(self.kept[-1], now, self.weight) if self.kept else now
            found, rows, taken = self._made, held_out, len(self.kept) + 1
        else:
            chosen, rows = (held_out[::2], held_out[1::2]) if len(held_out) > 1 else (held_out, held_out)
            fitting = [w for w in self.kept if shapes(w) == shapes(now)]
            found, taken = greedy(model, [*fitting, now], chosen)
            self._made = now
        try:
            load(model, found)
            yield rows, {"merge": self.how, "merged": taken}
        finally:
            load(model, now)

    def accept(self, published: bool) -> None:
        """Take note of the last candidate; of an average, only if it was published."""
        if self.how == "soup" or (self.how == "ema" and published):
            self.kept = [*self.kept, self._made][-(1 if self.how == "ema" else self.keep - 1) :]

    def state(self) -> dict[str, Any]:
        """Return the weights that are kept."""
        return {"kept": [dict(weights) for weights in self.kept]}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state()` gave."""
        self.kept = [dict(weights) for weights in state["kept"]]


def trained(model: nn.Module) -> Weights:
    """Return copies of the weights that train."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def load(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model by name."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in weights:
                p.copy_(weights[name])


def shapes(weights: Weights) -> dict[str, torch.Size]:
    """Return the shape of each."""
    return {name: w.shape for name, w in weights.items()}


def between(old: Weights, now: Weights, share: float) -> Weights:
    """Return share * old + (1 - share) * now; what is new, or has shrunk, as it is now. Equal weights stay equal."""
    found = {name: w.clone() for name, w in now.items()}
    for name, before in old.items():
        w = found.get(name)
        if (
            w is not None
            and before.dim() == w.dim()
            and all(a <= b for a, b in zip(before.shape, w.shape, strict=True))
        ):
            part = w[tuple(slice(0, n) for n in before.shape)]
            part.copy_(torch.lerp(part.clone(), before.to(part), share))
    return found


def mean(weights: Sequence[Weights]) -> Weights:
    """Return the average, in double precision in between; of equal weights it is these."""
    stacked = {name: torch.stack([w[name].double() for w in weights]) for name in weights[0]}
    return {name: every.mean(0).to(weights[0][name].dtype) for name, every in stacked.items()}


def greedy(model: Classifier, candidates: Sequence[Weights], rows: Batch) -> tuple[Weights, int]:
    """Return the greedy soup and how many went into it; `model` is left with other weights.

    Args:
        model: To put weights into.
        candidates: At least one; of equally good ones, the last comes first.
        rows: To measure accuracy on.
    """

    def right(weights: Weights) -> int:
        load(model, weights)
        return int((outputs(model, rows.x).logits.argmax(1) == rows.y).sum())

    scored = sorted(enumerate(candidates), key=lambda one: (right(one[1]), one[0]), reverse=True)
    chosen = [scored[0][1]]
    best = right(chosen[0])
    for _, weights in scored[1:]:
        if (score := right(mean([*chosen, weights]))) > best:
            chosen, best = [*chosen, weights], score
    return (mean(chosen) if len(chosen) > 1 else chosen[0]), len(chosen)
