"""Weights of their own for each task, over shared ones: W + W B (Q - I) B', summed over the bases B that it uses.

A basis is a set of columns of one memory per layer, kept as their numbers; Q is as small as the basis. What is kept is
D = Q - I: it starts at 0, and weight decay pulls Q towards doing nothing. While a task is trained, W B is not computed:
it is known (`Record.held`), because training holds the weights still along the memory, except where they are free.

Source: Lin et al. 2022, "TRGP: Trust Region Gradient Projection for Continual Learning" (scaled weight projection).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from lifelong.models.layers import Layer, layers, matrix, parts, width
from lifelong.models.products import follow
from lifelong.models.rails import Along, Felt, Rail, answer_now, cheaper, scaled_now
from lifelong.models.records import Record
from lifelong.types import Output

State = dict[str, Any]
PARTS = ("weight", "bias")


def scaled(weight_OI: Tensor, basis_IK: Tensor, offset_KK: Tensor) -> Tensor:
    """Return W B (Q - I) B' `[O, I]`: what scaling by Q along B adds to W. `offset_KK` is Q - I."""
    return ((weight_OI @ basis_IK) @ offset_KK) @ basis_IK.T


@final
class Scaling(nn.Module):
    """The tasks of a model: bases, and weights scaled along them.

    It is no part of the model's state dict, so that the shared weights stay a plain model: who trains it keeps
    `state()`, and `Classifier.baked(task)` is the plain model of one task.

    Args:
        model: Whose trained layers may be scaled.
        most: Older tasks that a task's weights are scaled along at most, per layer.
    """

    def __init__(self, model: nn.Module, most: int = 2) -> None:
        super().__init__()
        self.most = most
        self.records = {n: Record(m.weight.detach().new_zeros(width(m), 0)) for n, m in layers(model).items()}
        self.along: dict[str, Along] = {}  # what the running task scales, by layer; made when it is needed
        self.named: dict[str, Layer] = {}  # the layers, while a task runs; likewise
        self.hooks: list[RemovableHandle] = []  # on the linear ones of them
        self.running: dict[str, tuple[Rail, Tensor]] = {}  # while a batch of the running task is in the model

    @property
    def live(self) -> dict[str, nn.Parameter]:
        """Q - I of the running task, by layer and task: `[most, K, K]`, room for whatever is chosen."""
        return {key: p for key, p in self._parameters.items() if p is not None}

    def open(self, model: nn.Module, task: int) -> None:
        """Start `task` with no relation, and with room in each layer for whatever it may be scaled along."""
        self._clear()
        for name, layer in layers(model).items():
            record = self.records[name]
            record.related[task] = []
            room = max((ids.numel() for ids in record.own.values()), default=0)
            if room:
                zeros = layer.weight.detach().new_zeros(self.most, room, room)
                self.register_parameter(_key(name, task), nn.Parameter(zeros))

    def relate(self, task: int, name: str, older: Sequence[int]) -> None:
        """Scale the running task's weights of a layer along the bases of `older` tasks, starting at Q = I."""
        assert len(older) <= self.most, "more relations than there is room for"
        record = self.records[name]
        record.related[task] = list(older)
        places = [record.own[t].to(record.held.device).long() for t in older]
        sizes = [torch.linalg.matrix_norm(record.held[:, ids], 2) for ids in places]
        record.units = [1 / max(1.0, float(size)) for size in sizes]
        self.along = {}

    def close(self, task: int) -> None:
        """Keep what the running task's scales have become."""
        for name, record in self.records.items():
            record.offsets[task] = [t.detach().clone() for t in self._offsets(name, task)]
        self._clear()

    def weights(self, model: nn.Module, task: int) -> dict[str, Tensor]:
        """Return the parameters that are others under `task`, by their names in `model`; none for an unknown task."""
        made: dict[str, Tensor] = {}
        for name, layer in layers(model).items():
            record = self.records.get(name)
            if record is not None and record.related.get(task):
                shared = matrix(layer)
                record.memory = record.memory.to(shared)
                for older, offset in zip(record.related[task], self._offsets(name, task), strict=True):
                    shared = shared + scaled(matrix(layer), record.basis(older), offset.to(shared))
                made |= {f"{name}.{part}": t for part, t in parts(layer, shared).items()}
        return made

    def forward(self, model: nn.Module, x: Tensor, task: Tensor) -> Output:
        """Return what `model` says of inputs `[N, ...]`, each under its own task `[N]`."""
        first = int(task[0])
        if bool((task == first).all()):
            return self._under(model, x, first, alone=True)
        tasks = task.unique().tolist()
        rows = [(task == t).nonzero().flatten() for t in tasks]
        said = [self._under(model, x[own], t) for own, t in zip(rows, tasks, strict=True)]
        back = torch.cat(rows).argsort()
        return Output(torch.cat([o.features for o in said])[back], torch.cat([o.logits for o in said])[back])

    def state(self) -> State:
        """Return everything: copies of tensors, and plain values."""
        return {
            "live": {key: t.detach().clone() for key, t in self.live.items()},
            "layers": {
                name: {
                    "memory": r.memory.clone(),
                    "own": {str(t): ids.clone() for t, ids in r.own.items()},
                    "related": {str(t): list(older) for t, older in r.related.items()},
                    "offsets": {str(t): [o.clone() for o in kept] for t, kept in r.offsets.items()},
                    "held": r.held.clone(),
                    "outputs": r.outputs,
                    "units": list(r.units),
                }
                for name, r in self.records.items()
            },
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        place = next((r.memory for r in self.records.values()), torch.empty(0))
        self._clear()
        for key, offset in state["live"].items():
            self.register_parameter(key, nn.Parameter(offset.to(place).clone()))
        self.records = {
            name: Record(
                saved["memory"].to(place).clone(),
                {int(t): ids.clone() for t, ids in saved["own"].items()},
                {int(t): list(older) for t, older in saved["related"].items()},
                {int(t): [o.to(place).clone() for o in kept] for t, kept in saved["offsets"].items()},
                saved["held"].to(place).clone(),
                saved["outputs"],
                units=list(saved["units"]),
            )
            for name, saved in state["layers"].items()
        }

    def layers(self, model: nn.Module) -> dict[str, Layer]:
        """Return the layers of `model` by name; looked for once per task, which in each step would be slow."""
        if not self.named:
            self.named = layers(model)
        return self.named

    def _under(self, model: nn.Module, x: Tensor, task: int, *, alone: bool = False) -> Output:
        if self.training and self.live:
            return self._trained(model, x, task, alone)
        own = self.weights(model, task)
        said: Output = functional_call(model, own, (x,)) if own else model(x)
        return said

    def _trained(self, model: nn.Module, x: Tensor, task: int, alone: bool) -> Output:
        """Answer for the task that is trained now; held coordinates count as constants.

        Whichever is cheaper, a layer scales its weights or its answers to this batch.
        """
        swapped: list[tuple[dict[str, Any], str, Any]] = []
        try:
            for name, layer in self.layers(model).items():
                felt = self.records[name].felt = Felt()
                offsets = self._parameters.get(_key(name, task))
                if offsets is None or not self.records[name].related.get(task):
                    continue
                rail = self._rail(name, layer, task, offsets)
                if alone and cheaper(layer, len(x)):
                    self.running[name] = (rail, offsets)
                    continue
                for part, t in zip(PARTS, scaled_now(layer, offsets, rail, felt if alone else None), strict=True):
                    swapped.append((layer._parameters, part, layer._parameters[part]))  # as functional_call, but fast
                    layer._parameters[part] = t  # type: ignore[assignment]
            self._listen()
            said: Output = model(x)
        finally:
            self.running = {}
            for place, part, t in swapped:
                place[part] = t
        return said

    def _listen(self) -> None:
        """Hook into the linear layers if any of them is to scale its answers: a hook costs time in every call."""
        if bool(self.running) != bool(self.hooks):
            self._deaf()
            linear = {name: m for name, m in self.named.items() if self.running and not isinstance(m, nn.Conv2d)}
            self.hooks = [m.register_forward_hook(partial(self._answer, name)) for name, m in linear.items()]

    def _deaf(self) -> None:
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def _rail(self, name: str, layer: Layer, task: int, offsets: Tensor) -> Rail:
        record = self.records[name]
        record.held = follow(layer, record.memory, record.held)
        if name not in self.along:
            bases = [record.own[t] for t in record.related[task]]
            self.along[name] = Along.of(record.memory, bases, record.units, offsets.detach())
        return Rail(record.memory, record.held, self.along[name], record.outputs, record.free, record.loose)

    def _answer(self, name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if name not in self.running:
            return None
        rail, offsets = self.running[name]
        return answer_now(output, inputs[0], offsets, rail, self.records[name].felt)

    def _offsets(self, name: str, task: int) -> list[Tensor]:
        record = self.records[name]
        if task in record.offsets:
            return record.offsets[task]
        live = [self.live[_key(name, task)]] if record.related.get(task) else []
        return [
            block[slot, : len(record.own[older]), : len(record.own[older])] * record.units[slot]
            for block in live
            for slot, older in enumerate(record.related[task])
        ]

    def _clear(self) -> None:
        self._deaf()
        self.along, self.named = {}, {}
        for key in self.live:
            delattr(self, key)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:  # noqa: ANN401
        """Keep out of the model's state dict."""

    def _load_from_state_dict(self, *args: Any) -> None:  # noqa: ANN401
        """Expect nothing of the model's state dict."""


def _key(name: str, task: int) -> str:
    """Return a parameter name of its own for each task: an optimizer's momenta follow names."""
    return f"{name.replace('.', '-')}@{task}"
