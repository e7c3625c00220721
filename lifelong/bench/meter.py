"""Operations of a whole run, counted on a few steps and multiplied: counting all would take eight times as long.

Counted in full: what a strategy does around an experience (`begin`, `prepare`, `end`: Fisher information, bases,
means). Of the steps some are counted, and multiplied by samples, rehearsed ones included: the first of an experience,
if it is one of the first few, or if so far at most one step in two hundred has been counted (in a hundred, if it brings
new classes); of the first experience the second too (memories are empty before). That is exact for plain training,
close where a step's cost changes within an experience, and adds about 2 % to a run of a thousand steps
(benchmarks/speed/meter.py), unless a strategy trains a network anew around an experience.

Source: torch's formulas for matrix products and convolutions (`torch.utils.flop_counter`), which has none for
decompositions, distances and sorting: those are added here, by the usual leading terms.
Differs: nothing is known of NumPy, SciPy and FAISS, nor of samples that are computed while batches are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lifelong.learning import Learner, Strategy
from lifelong.types import Experience

aten = torch.ops.aten
FIRST = 3  # experiences of which a step is always counted: later ones do no other kind of work
EVERY = 200  # steps for each that is counted
HOOKS = ("begin", "prepare", "end")


def svd_flops(rows: int, columns: int) -> int:
    """Return the operations of a thin SVD of `[rows, columns]`: 4 m n^2 + 8 n^3 with n <= m (Golub & Van Loan, 8.6).

    >>> svd_flops(100, 10)
    48000
    """
    n, m = sorted((rows, columns))
    return 4 * m * n * n + 8 * n**3


def eigh_flops(size: int) -> int:
    """Return the operations of all eigenvalues and vectors of a symmetric `[n, n]`: 9 n^3 (Golub & Van Loan, 8.3)."""
    return 9 * size**3


def distance_flops(queries: int, keys: int, width: int) -> int:
    """Return the operations of all distances of `[queries, width]` to `[keys, width]`: 3 for each pair of numbers."""
    return 3 * queries * keys * width


def _batch(x: Tensor) -> int:
    return int(torch.Size(x.shape[:-2]).numel())


EXTRA: Mapping[Any, Callable[..., int]] = {
    aten._linalg_svd: lambda x, *_, **__: _batch(x) * svd_flops(x.shape[-2], x.shape[-1]),
    aten._linalg_eigh: lambda x, *_, **__: _batch(x) * eigh_flops(x.shape[-1]),
    aten.linalg_cholesky_ex: lambda x, *_, **__: _batch(x) * x.shape[-1] ** 3 // 3,
    aten.linalg_qr: lambda x, *_, **__: _batch(x) * 4 * x.shape[-2] * min(x.shape[-2:]) ** 2,
    aten._linalg_solve_ex: lambda x, *_, **__: _batch(x) * 2 * x.shape[-1] ** 3 // 3,
    aten.cholesky_solve: lambda b, x, *_, **__: _batch(x) * 2 * x.shape[-1] ** 2 * b.shape[-1],
    aten._cdist_forward: lambda a, b, *_, **__: _batch(a) * distance_flops(a.shape[-2], b.shape[-2], a.shape[-1]),
    aten.topk: lambda x, *_, **__: x.numel(),
    # torch knows the product itself, not the one that is added in place
    aten.addmm_: lambda _, a, b, **__: 2 * a.shape[-2] * a.shape[-1] * b.shape[-1],
    aten.mv: lambda a, *_, **__: 2 * a.numel(),
    aten.dot: lambda a, *_, **__: 2 * a.numel(),
}


@cache
def _formula(operation: Any) -> Callable[..., int] | None:  # noqa: ANN401
    """Return what tells the operations of a call of `operation`, None if it has none that count."""
    packet = operation._overloadpacket
    if packet in EXTRA:
        extra = EXTRA[packet]
        return lambda args, _, __: extra(*args)
    if packet not in flop_registry:
        return None
    known = flop_registry[packet]
    return lambda args, kwargs, out: int(known(*args, **kwargs, out_val=out))


@final
class Operations(TorchDispatchMode):
    """While entered, adds up the floating-point operations of what torch computes."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        formula = _formula(func)
        if formula is not None:
            self.total += formula(args, kwargs or {}, out)
        return out


@final
class Meter:
    """What learning costs, in floating-point operations, measured beside it and without changing a bit of it.

    Args:
        learner: Its strategy's `begin`, `prepare` and `end` are wrapped; give a learner one meter.

    Attributes:
        total: Operations so far.
        around: The part of them that came from `begin`, `prepare` and `end`.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.total = self.around = 0.0
        self._mode: Operations | None = None
        self._each = 0.0  # operations per sample, new or rehearsed
        self._step = self._seen = self._steps = self._measured = 0
        self._wanted = False  # whether the first step of the experience that has begun is to be counted
        for hook in HOOKS:
            found = getattr(learner.strategy, hook)
            if getattr(type(learner.strategy), hook) is not getattr(Strategy, hook):
                found = self._counted(found)
            setattr(learner.strategy, hook, self._last(found) if hook == "prepare" else found)

    def fit(self, experience: Experience, epochs: int, on_step: Callable[[], None] | None = None) -> None:
        """Let the learner learn `experience`, and count."""
        self._step, self._seen = 0, self._presented()

        def stepped() -> None:
            self._stepped()
            if on_step:
                on_step()

        self._wanted = self._due(experience)
        try:
            self._learner.fit(experience, epochs, on_step=stepped)
        finally:
            self._leave()

    def _due(self, experience: Experience) -> bool:
        """Whether the first step of `experience` is to be counted."""
        if experience.index < FIRST or self._measured * EVERY <= self._steps:
            return True
        known = self._learner.labels.tolist()
        return self._measured * EVERY <= 2 * self._steps and any(c not in known for c in experience.classes)

    def _presented(self) -> int:
        counters = self._learner.counters
        return counters["samples"] + counters["rehearsed"]

    def _stepped(self) -> None:
        samples = self._presented() - self._seen
        self._seen += samples
        spent = self._leave()
        if not samples:  # the end of the experience
            return
        if spent is not None:
            self._each, self._measured = spent / samples, self._measured + 1
        self.total += self._each * samples
        self._step, self._steps = self._step + 1, self._steps + 1
        if self._step == 1 and self._learner.position["experience"] == 0:
            self._enter()

    def _enter(self) -> None:
        self._mode = Operations()
        TorchDispatchMode.__enter__(self._mode)

    def _leave(self) -> int | None:
        mode, self._mode = self._mode, None
        if mode is None:
            return None
        TorchDispatchMode.__exit__(mode, None, None, None)
        return mode.total

    def _last(self, prepare: Callable[..., Experience]) -> Callable[..., Experience]:
        """Return `prepare`, which is called right before the first step, and begins to count that."""

        def run(*args: Any) -> Experience:  # noqa: ANN401 - the hook's
            experience = prepare(*args)
            if self._wanted:
                self._enter()
            return experience

        return run

    def _counted(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:  # noqa: ANN401 - a hook's
            with Operations() as mode:
                out = hook(*args)
            self.total += mode.total
            self.around += mode.total
            if self._mode is not None:
                self._mode.total -= mode.total  # an outer mode sees it too
            return out

        return run
