"""A copy of the model as it was, that is only asked: what distillation compares with."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from lifelong.models import Classifier, build
from lifelong.types import Output

State = dict[str, Any]


@final
class Frozen:
    """Nothing until `take`; then the model of that moment, in eval mode, without gradients."""

    def __init__(self) -> None:
        self.spec: dict[str, Any] = {}
        self.model: Classifier | None = None

    def __bool__(self) -> bool:
        return self.model is not None

    def take(self, model: nn.Module) -> None:
        """Copy `model` as it is now."""
        assert isinstance(model, Classifier)
        self._build(model.spec(), {name: t.detach().clone() for name, t in model.state_dict().items()})

    @torch.no_grad()
    def __call__(self, x: Tensor, task: Tensor | None = None) -> Output:
        """Return what the copy says of inputs `[N, ...]`, with the logits that it had then."""
        assert self.model is not None, "nothing taken yet"
        out: Output = self.model(x, task)
        return out

    def state(self) -> State:
        """Return the copy's spec and weights, or nothing."""
        return {} if self.model is None else {"spec": self.spec, "weights": dict(self.model.state_dict())}

    def restore(self, state: State) -> None:
        """Take back what `state()` gave."""
        self.model = None
        if state:
            self._build(state["spec"], state["weights"])

    def _build(self, spec: dict[str, Any], weights: dict[str, Tensor]) -> None:
        device = next(iter(weights.values())).device
        self.spec, self.model = spec, build(spec, device=device)
        self.model.eval().requires_grad_(False)
        self.model.load_state_dict(weights)
