"""Laws about cost: on a stream ten times longer, memory is no larger and a step takes no more work."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, final

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lifelong.learning.checkpoint import pack
from lifelong.learning.learner import Learner
from lifelong.trial import Make, Toy, kind, learner, small

FILL, LONG = 20, 100  # experiences: until the memory is full, and after that
GROWTH = 1.2  # of the work in the last tenth over that in the first


def bounded_memory(make: Make) -> str | None:
    """Its state is no larger after ten times as many samples, nor after twice as many experiences."""
    if not make().needs.bounded:
        return "it declares that its memory grows with the stream"

    def size(made: Learner) -> int:
        tensors, _ = pack(made.strategy.state())
        return sum(t.nbytes for t in tensors.values())

    sizes = []
    for per_class in (60, 600):
        made = learner(small(make), kind(make))
        for experience in Toy(kind(make)).experiences(2, per_class):
            made.fit(experience)
        sizes.append(size(made))
    few, many = sizes
    assert many <= few * 1.05 + 4096, f"its state grew from {few} to {many} bytes on a stream ten times longer"
    made = learner(small(make, 10), kind(make), lr=0.01)
    sizes = []
    for experience in Toy(kind(make)).recurring(2 * FILL, 32):
        made.fit(experience)
        sizes.append(size(made))
    few, many = sizes[FILL - 1], sizes[-1]
    assert many <= few * 1.05 + 256, f"its state grew from {few} to {many} bytes over {FILL} experiences"
    return None


@final
class Work(TorchDispatchMode):
    """Counts what torch does while it is entered: operations, and elements of the tensors that they read and write."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # which has no types, and mypy looks only at names that say `torch`
        self.operations = self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        self.operations += 1
        self.elements += sum(t.numel() for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        return out


def flat_cost(make: Make) -> str | None:
    """Ten times as many experiences later, learning one takes as many operations, on as many numbers."""
    made = learner(small(make, 10), kind(make), lr=0.01)  # small: hundreds of steps must not diverge
    first, last = Work(), Work()
    for experience in Toy(kind(make)).recurring(FILL + LONG):
        at = experience.index - FILL
        with first if 0 <= at < LONG // 10 else last if at >= LONG - LONG // 10 else nullcontext():
            made.fit(experience)
    for what, early, late in (
        ("operations", first.operations, last.operations),
        ("elements", first.elements, last.elements),
    ):
        assert late <= early * GROWTH, f"{LONG} experiences later the same work takes {late} {what} instead of {early}"
    return None
