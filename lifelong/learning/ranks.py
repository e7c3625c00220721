"""One learner in several processes: each takes its share of a batch through the model, and all take the same step.

Every process holds everything (model, optimizer, buffers, generators) and sees every batch. What costs most, the
model's forward and backward pass, is shared out:

    forward of the own rows -> outputs of all rows, gathered -> loss and penalty of the whole batch, by everybody
    -> slopes at the outputs -> backward through the own rows -> gradients summed -> the same step everywhere

So every hook of a strategy sees the whole batch, all its outputs and the gradient of the whole loss, as in one process;
a loss that compares samples with each other is no special case. A part of the loss that looks at the weights and not
at the outputs is counted once, by the first process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, final

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lifelong import files
from lifelong.errors import ConfigError, Unavailable
from lifelong.learning.budgets import Budget
from lifelong.learning.checkpoint import pack, unpack
from lifelong.learning.strategy import Strategy
from lifelong.types import Batch, Output

PATIENCE = timedelta(days=3650)  # a stream may be silent for long; a process that dies is noticed by its connection
PLAIN = "plain"


class Ranks:
    """One process alone: nothing is shared, nothing is said."""

    first = True  # whether this process reads sources, commits and publishes
    count = 1  # processes

    @property
    def about(self) -> dict[str, Any]:
        """What a run notes of its processes: with another number of them it would end with other bits."""
        return {"processes": self.count} if self.count > 1 else {}

    def taking(self, strategy: Strategy, model: nn.Module, budget: Budget) -> Ranks:
        """Return these processes, ready to train a model; raise `ConfigError` if together they cannot."""
        return self

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        """Return what `model` says of all samples of `batch`."""
        out: Output = model(batch.x, batch.task)
        return out

    def reduce(self, parameters: Iterable[nn.Parameter], noted: Callable[[], Sequence[Tensor]]) -> None:
        """Finish the gradients after the loss's backward pass; `noted` gives what else that pass left, to be summed."""

    def alike(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""

    def told(self, value: Any) -> Any:  # noqa: ANN401 - tensors and plain values
        """Return the first process's `value`: nested dicts and lists of tensors and plain values, or one of these."""
        return value

    def tell(self, value: Any) -> None:  # noqa: ANN401 - as above
        """Hand `value` to the processes that ask by `told`, if this is the first; the others say nothing."""

    def agreed(self, flag: bool) -> bool:
        """Return the first process's `flag`."""
        return flag


ALONE = Ranks()


@final
class Together(Ranks):
    """The processes of the default group of `torch.distributed`, which is there already.

    Every one of them makes the same calls, with the same samples, in the same order.
    """

    def __init__(self) -> None:
        self.count, self.number = dist.get_world_size(), dist.get_rank()
        self.first = self.number == 0
        self._open: list[tuple[Tensor, Tensor, slice]] = []  # own outputs, those of all rows, which rows are ours

    def taking(self, strategy: Strategy, model: nn.Module, budget: Budget) -> Ranks:
        """Give every process the first one's model.

        Raises:
            ConfigError: The strategy does not declare that it may be trained so, the model looks at whole batches, or
                the budget is one of time.
        """
        if not budget.deterministic:
            raise ConfigError("by a budget of seconds each process would leave out something else; use flops or bytes")
        for part in strategy.parts:
            who = type(part).__name__
            if type(part) is not Strategy and not part.needs.distributed:
                raise ConfigError(f"{who} does not train in {self.count} processes; start one process for it")
            if part is not strategy and type(part).noted is not Strategy.noted:
                raise ConfigError(f"{who} trains in {self.count} processes only alone; start one process for a chain")
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            raise ConfigError(
                f"a model with batch normalisation sees only its share of a batch in each of {self.count} processes; "
                "choose another backbone, or start one process"
            )
        self.alike(model)
        return self

    def forward(self, model: nn.Module, batch: Batch) -> Output:
        """Return the outputs of all samples; this process computes those of its own share."""
        size = len(batch)
        rows = slice(size * self.number // self.count, size * (self.number + 1) // self.count)
        own = batch[rows] if rows.start < rows.stop else batch[:1]  # of no rows some layers cannot say anything
        out = model(own.x, own.task)
        mine = [t for t in (out.features, out.logits, out.tokens) if t is not None]
        whole = [t.new_zeros((size, *t.shape[1:])) for t in mine]
        for all_, t in zip(whole, mine, strict=True):
            all_[rows] = t.detach()[: rows.stop - rows.start]
        whole = self._summed(whole)
        self._open = [(t, w.requires_grad_(), rows) for t, w in zip(mine, whole, strict=True) if t.requires_grad]
        return Output(*whole)

    def reduce(self, parameters: Iterable[nn.Parameter], noted: Callable[[], Sequence[Tensor]]) -> None:
        """Go back through the own share, then sum over all processes; a parameter nobody needed keeps no gradient."""
        weights = list(parameters)
        for p in weights if not self.first else ():
            p.grad = None
        felt = [(mine, whole.grad[rows]) for mine, whole, rows in self._open if whole.grad is not None]
        if felt:
            slopes = [slope if len(slope) else torch.zeros_like(mine) for mine, slope in felt]
            torch.autograd.backward([mine for mine, _ in felt], slopes)
        self._open, others = [], list(noted())
        there = weights[0].new_tensor([float(p.grad is not None) for p in weights])
        mine = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        there, *summed = self._summed([there, *mine, *others])
        for p, used, g in zip(weights, there.tolist(), summed, strict=False):
            p.grad = g if used else None
        for t, total in zip(others, summed[len(weights) :], strict=True):
            t.copy_(total)

    def alike(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        model.load_state_dict(self.told(model.state_dict()))

    def told(self, value: Any) -> Any:  # noqa: ANN401 - tensors and plain values
        """Return the first process's value; the others' does not count.

        Raises:
            Unavailable: The first process is gone.
        """
        if self.first:
            self.tell(value)
            return value
        size = torch.zeros(1, dtype=torch.int64)
        try:
            dist.broadcast(size, 0)
            data = torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(data, 0)
        except RuntimeError as error:
            raise Unavailable("the first process is gone; what it said before tells why") from error
        tensors = {name: t.clone() for name, t in safetensors.torch.load(data.numpy().tobytes()).items()}
        return unpack(tensors, files.parse_json(tensors.pop(PLAIN).numpy().tobytes()))["value"]

    def tell(self, value: Any) -> None:  # noqa: ANN401 - as above
        """Hand `value` to the other processes, if this is the first."""
        if not self.first:
            return
        tensors, plain = pack({"value": value}, copy=False)
        tensors[PLAIN] = torch.frombuffer(bytearray(files.canonical_json(plain)), dtype=torch.uint8)
        data = torch.frombuffer(bytearray(safetensors.torch.save(tensors)), dtype=torch.uint8)
        dist.broadcast(torch.tensor([len(data)]), 0)
        dist.broadcast(data, 0)

    def agreed(self, flag: bool) -> bool:
        """Return the first process's `flag`."""
        said = torch.tensor([flag], dtype=torch.uint8)
        dist.broadcast(said, 0)
        return bool(said)

    def _summed(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all processes of tensors that have the same shapes everywhere, in one exchange."""
        flat = torch.cat([t.detach().flatten() for t in tensors])
        dist.all_reduce(flat)
        parts = flat.split([t.numel() for t in tensors])
        return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the other processes if this one was started by torchrun; a process without others is alone.

    Tensors on the CPU go through gloo, those on GPUs through nccl, where each process of a machine has its own GPU.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield ALONE
        return
    if device.type == "cuda" and device.index is None:
        torch.cuda.set_device(dist.get_node_local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Together() if dist.get_world_size() > 1 else ALONE
    finally:
        dist.destroy_process_group()
