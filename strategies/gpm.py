"""GPM: gradient projection memory. No step moves a layer's answer to the inputs that older tasks gave it.

Source: Saha, Garg, Roy 2021, "Gradient Projection Memory for Continual Learning".
Differs: the parameters are put back along the memory after the optimizer's step, instead of projecting the gradient
    before it, so momentum, Adam and weight decay cannot lead out of the free space and no rounding errors add up. A
    bias belongs to its layer's matrix, as the weight of an input that is always 1, and is protected with it instead of
    being frozen. A head is protected on the columns that it had when a task ended; columns of newer classes are free
    (with task ids that is the paper's free head per task, without new classes it is the protected shared head). Bases
    come from Gram matrices of the inputs summed in float64. The smallest rank that reaches the threshold is taken; the
    public code stops one short of it.
Checked: bases against a singular value decomposition, projector algebra by property (tests/test_projection.py);
    outputs on old inputs, optimizers, planted errors, forgetting on permuted digits (tests/test_gpm.py); laws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

from torch import Tensor, nn

from lifelong.errors import ConfigError
from lifelong.learning import Needs, Reservoir, Strategy
from lifelong.learning.passes import FirstPass
from lifelong.learning.projection import grown
from lifelong.learning.protection import Energy, freeze, grams, others
from lifelong.learning.strategy import State
from lifelong.models.layers import Layer, layers, width
from lifelong.models.products import follow, hold, take_out
from lifelong.types import Batch, Experience, Output


@final
class GPM(Strategy):
    """Keep every step out of the span of what each layer has seen of older tasks.

    Args:
        threshold: Share (0..1) of a layer's input energy to protect; one for all, or one per layer in model order. 0
            protects nothing.
        growth: Added to the threshold for each finished task.
        samples: Samples of a task that its spans are taken from.
        seed: Of this strategy's own generator.
    """

    needs = Needs(distributed=True, boundaries=True, scenarios=frozenset({"domain-il", "task-il"}))
    uses = frozenset({"weights"})
    keeps_delta = True
    by_gradient = True
    strength = "threshold"

    def __init__(
        self, threshold: float | Sequence[float] = 0.97, growth: float = 0.003, samples: int = 300, seed: int = 0
    ) -> None:
        if samples < 1:
            raise ConfigError(f"samples must be at least 1, got {samples}")
        self.energy, self.samples, self.seed = Energy(threshold, growth), samples, seed
        self.finished = 0
        self.memory: dict[str, Tensor] = {}  # orthonormal columns [I, K] by layer
        self.outputs: dict[str, int] = {}  # outputs that a layer had when the last task ended
        self.held: dict[str, Tensor] = {}  # [W | b] M `[O, K]` by layer, where it stays
        self.sample, self.first = Reservoir(samples, seed), FirstPass()
        self.layers: dict[str, Layer] = {}  # of the model, looked for once per task
        self.others: dict[str, nn.Parameter] | None = None  # its other parameters, likewise

    def begin(self, model: nn.Module, experience: Experience) -> None:
        """Start a sample of the new task."""
        self.sample = Reservoir(self.samples, self.seed + self.finished)
        self.first.begin(experience)
        self.layers, self.others = {}, None

    def project(self, model: nn.Module) -> None:
        """Take out of the gradients what old inputs would feel, if the step is a multiple of them."""
        if not self.memory or self.step_rate is None:
            return
        for name, layer in self._protected(model):
            moved = take_out(layer, self.memory[name], self.outputs[name])
            if moved is not None:
                self.held[name] = follow(layer, self.memory[name], self.held[name]).add_(moved, alpha=-self.step_rate)
        self.others = others(model) if self.others is None else self.others
        for p in self.others.values():
            p.grad = None

    def project_delta(self, model: nn.Module, before: Mapping[str, Tensor]) -> None:
        """Take out of the step what old inputs would feel."""
        if self.memory:
            self._hold(model)
            self.others = others(model) if self.others is None else self.others
            freeze(self.others, before)

    def observe(self, model: nn.Module, batch: Batch, out: Output) -> None:
        """Offer the new samples to the task's sample, once each."""
        new = self.first.new(batch)
        if len(new):
            self.sample.add(new)

    def end(self, model: nn.Module, experience: Experience) -> None:
        """Add to each layer's memory what it saw of this task and does not hold yet."""
        self.first.end()
        self._hold(model)  # what rounding errors have added up to
        seen = grams(model, self.sample.store.all) if len(self.sample) else {}
        for place, (name, layer) in enumerate(layers(model).items()):
            share = self.energy.at(place, self.finished)
            if name in seen and share:
                empty = layer.weight.detach().new_zeros(width(layer), 0)
                self.memory[name] = grown(self.memory.get(name, empty).to(empty), seen[name], share)
                self.held[name] = follow(layer, self.memory[name], self.held.get(name, empty[:0]))
                self.outputs[name] = len(layer.weight)
        self.finished += 1
        self.sample = Reservoir(self.samples)

    def state(self) -> State:
        """Return bases, the running task's sample and counters."""
        return {
            "finished": self.finished,
            "memory": {name: basis.clone() for name, basis in self.memory.items()},
            "held": {name: where.clone() for name, where in self.held.items()},
            "outputs": dict(self.outputs),
            "sample": self.sample.state(),
            "first": self.first.state(),
        }

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.finished, self.outputs = state["finished"], dict(state["outputs"])
        self.memory, self.held = ({n: t.clone() for n, t in state[key].items()} for key in ("memory", "held"))
        self.sample = Reservoir(self.samples)
        self.sample.restore(state["sample"])
        self.first.restore(state["first"])

    def summary(self) -> dict[str, float]:
        """Return how much of the layers' input space is protected: 1 leaves nothing to learn with."""
        held, wide = (sum(basis.shape[axis] for basis in self.memory.values()) for axis in (1, 0))
        return {"protected": held / wide if wide else 0.0, "memory": float(len(self.sample))}

    def _protected(self, model: nn.Module) -> Iterator[tuple[str, Layer]]:
        self.layers = self.layers or layers(model)
        for name, layer in self.layers.items():
            if name in self.memory:
                self.memory[name] = self.memory[name].to(layer.weight)
                self.held[name] = self.held[name].to(layer.weight)
                yield name, layer

    def _hold(self, model: nn.Module) -> None:
        for name, layer in self._protected(model):
            self.held[name] = follow(layer, self.memory[name], self.held[name])
            hold(layer, self.memory[name], self.held[name], self.outputs[name])
