"""What a run in Avalanche costs and keeps, and the global random states that it draws from."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lifelong.bench.meter import Operations


@final
class Counter(SupervisedPlugin):  # type: ignore[misc] # avalanche ships no types
    """Counts operations as `lifelong.bench.meter` does: what is around an experience in full, of its steps a few."""

    def __init__(self, budget: float | None) -> None:
        super().__init__()
        self.budget, self.total, self.around, self.steps, self.presented = budget, 0.0, 0.0, 0, 0
        self.spent, self._step, self._each, self._first = False, 0, 0.0, True
        self._mode: Operations | None = None

    def wrap(self, strategy: Any) -> None:  # noqa: ANN401
        """Count what happens before and after each experience."""
        for hook in ("_before_training_exp", "_after_training_exp"):
            setattr(strategy, hook, self._counted(getattr(strategy, hook)))

    def before_training_iteration(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Count the first step of an experience, and of the first experience the second too."""
        self._step += 1
        if self._step == 1 or (self._step == 2 and self._first):
            self._mode = Operations()
            TorchDispatchMode.__enter__(self._mode)

    def after_training_iteration(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Add a step up, and stop where the budget is used up."""
        samples = len(strategy.mb_x)
        if self._mode is not None:
            TorchDispatchMode.__exit__(self._mode, None, None, None)
            self._each, self._mode = self._mode.total / samples, None
        self.total += self._each * samples
        self.steps, self.presented = self.steps + 1, self.presented + samples
        if self.budget is not None and self.total >= self.budget:
            self.spent = True
            strategy.stop_training()

    def _counted(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def counted(**arguments: Any) -> Any:  # noqa: ANN401
            with Operations() as mode:
                found = hook(**arguments)
            self.total, self.around = self.total + mode.total, self.around + mode.total
            self._first, self._step = self._first and not self._step, 0
            return found

        return counted


def held(strategy: Any, sample: int) -> int:  # noqa: ANN401
    """Return the bytes that its plug-ins keep: tensors and old models, and stored samples of `sample` bytes each."""
    model = {t.data_ptr() for t in strategy.model.state_dict().values()}
    seen: dict[int, Any] = {}  # by identity, and kept: what is gone could hand its identity on

    def bytes_of(value: Any, depth: int = 0) -> int:  # noqa: ANN401
        if id(value) in seen or depth > 14:
            return 0
        seen[id(value)] = value
        if isinstance(value, Tensor):
            return 0 if value.data_ptr() in model else value.nbytes
        if isinstance(value, nn.Module):
            return bytes_of(list(value.state_dict().values()), depth)
        if isinstance(value, Mapping):
            return sum(bytes_of(v, depth + 1) for v in value.values())
        if isinstance(value, list | tuple):
            return sum(bytes_of(v, depth + 1) for v in value)
        if type(value).__name__.endswith("Dataset"):
            return len(value) * (sample + 8)
        return bytes_of(getattr(value, "__dict__", {}), depth + 1)  # a buffer, or what holds one

    kept = [p for p in strategy.plugins if not isinstance(p, Counter | EvaluationPlugin)]
    return bytes_of([*kept, getattr(strategy, "storage_policy", None)])


@contextlib.contextmanager
def apart(seed: int) -> Iterator[None]:
    """Set the global random states that Avalanche draws from, and put them back; its warnings are kept apart too."""
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()
    torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed).get_state())
    try:
        with warnings.catch_warnings(record=True), contextlib.redirect_stdout(None):
            warnings.simplefilter("always")  # recorded, not shown; some of its packages switch filters back on
            yield
    finally:
        torch.random.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
