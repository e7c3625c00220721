"""The same baselines in Avalanche, on the experiences, the first weights and the budget that ours get.

Imported only where a study runs: `import avalanche` takes seconds. The `mended` ones are those of `studies.mended`.
"""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.models import Classifier
from lifelong.models.plain import Features, Logits
from lifelong.types import Batch

warnings.simplefilter("ignore")  # deprecations of what avalanche imports, and that nothing is logged

from avalanche.benchmarks import tensors_benchmark  # noqa: E402
from avalanche.models import MultiTaskModule  # noqa: E402
from avalanche.training import plugins as parts  # noqa: E402
from avalanche.training import storage_policy as policies  # noqa: E402
from avalanche.training import supervised as methods  # noqa: E402
from avalanche.training.plugins.lr_scheduling import LRSchedulerPlugin  # noqa: E402

from studies import mended  # noqa: E402

Answer = Callable[[Tensor, int], Tensor]
CANDIDATES = 50  # of maximally interfered retrieval


@dataclass(frozen=True, slots=True)
class Budget:
    """What both sides may spend: passes, samples per step, samples remembered, and the learning rate of plain SGD."""

    epochs: int
    batch: int
    memory: int
    lr: float


Make = Callable[[Any, Budget], Any]  # Logits or Told


class Told(MultiTaskModule):  # type: ignore[misc] # avalanche ships no types
    """The same with task ids: a sample is answered among the classes of its own task; the others stand far below."""

    def __init__(self, model: Classifier, classes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, x: Tensor, task_labels: Tensor | None) -> Any:  # noqa: ANN401
        logits = self.model(x).logits
        if task_labels is None:  # all heads at once
            return dict.fromkeys(self.known_train_tasks_labels, logits)
        own = torch.zeros(len(self.classes), logits.shape[1], dtype=torch.bool)
        for row, columns in zip(own, self.classes, strict=True):
            row[list(columns)] = True
        return logits.masked_fill(~own[task_labels], -1000.0)


def stream(batches: Sequence[Batch], classes: int, by_task: bool = False) -> Any:  # noqa: ANN401
    """Return batches of class indices as a benchmark's training stream, each a task of its own or all of task 0."""
    tensors = [(batch.x.flatten(1), batch.y) for batch in batches]
    tasks = [index if by_task else 0 for index in range(len(batches))]
    found: Any = tensors_benchmark(train_tensors=tensors, test_tensors=tensors, task_labels=tasks)
    found.n_classes_per_exp = [len(batch.y.unique()) for batch in batches]  # iCaRL asks for both
    found.classes_order = list(range(classes))
    return found.train_stream


@contextlib.contextmanager
def quiet(seed: int) -> Iterator[None]:
    """Give Avalanche the global random states that it draws from, put them back, and say nothing."""
    before, plain = torch.random.get_rng_state(), random.getstate()
    torch.manual_seed(seed)
    random.seed(seed)
    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        torch.random.set_rng_state(before)
        random.setstate(plain)


def common(model: nn.Module, budget: Budget) -> dict[str, Any]:
    """Return the arguments that all of Avalanche's strategies share."""
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=budget.lr),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": budget.batch,
        "train_epochs": budget.epochs,
        "eval_mb_size": 256,
        "evaluator": parts.EvaluationPlugin(loggers=[]),
    }


# ---- what is trained


def naive(model: Any, budget: Budget, plugin: Any = None) -> Any:  # noqa: ANN401
    """Return Avalanche's plain training, with one plug-in or none."""
    return methods.Naive(**common(model, budget), plugins=[plugin] if plugin else [])


def replay(model: Any, budget: Budget) -> Any:  # noqa: ANN401
    held = policies.ReservoirSamplingBuffer(budget.memory)
    return naive(model, budget, parts.ReplayPlugin(budget.memory, storage_policy=held))


def rehearsing(kind: Any, **settings: float) -> Make:  # noqa: ANN401
    """Return the maker of a method whose steps see as many remembered samples as new ones."""

    def make(model: Any, budget: Budget) -> Any:  # noqa: ANN401
        return kind(**common(model, budget), mem_size=budget.memory, batch_size_mem=budget.batch, **settings)

    return make


def gdumb(model: Any, budget: Budget) -> Any:  # noqa: ANN401
    made = common(model, budget)
    made["optimizer"] = torch.optim.SGD(model.parameters(), lr=budget.lr, momentum=0.9)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(made["optimizer"], budget.epochs, 0.01 * budget.lr)
    schedule = LRSchedulerPlugin(falling, reset_scheduler=True, reset_lr=True)
    return methods.GDumb(**made, mem_size=budget.memory, plugins=[schedule])


def icarl(model: Any, budget: Budget) -> Any:  # noqa: ANN401
    made = common(model, budget)
    del made["model"], made["criterion"]
    classes = model.model.classes  # its loss is a mean over classes, the paper's a sum
    made["optimizer"] = torch.optim.SGD(model.parameters(), lr=budget.lr * classes)
    parted = {"feature_extractor": model.model.backbone, "classifier": model.model.head}
    return methods.ICaRL(**made, **parted, memory_size=budget.memory, buffer_transform=None, fixed_memory=True)


def slda(model: Any, budget: Budget) -> Any:  # noqa: ANN401
    made = common(model, budget)
    del made["model"], made["optimizer"], made["train_epochs"]
    sizes = {"input_size": model.model.dim, "num_classes": model.model.classes}
    return methods.StreamingLDA(**made, slda_model=Features(model.model), **sizes, shrinkage_param=SHRINKAGE)


def online(fisher: Any) -> Make:  # noqa: ANN401
    """Return the maker of online EWC with a plug-in's Fisher; Avalanche's penalty has no 1/2."""
    return lambda model, budget: naive(model, budget, fisher(PULLS["ewc"] / 2, mode="online", decay_factor=1.0))


PULLS = {"ewc": 100.0, "si": 3.0, "mas": 0.1, "lwf": 0.1}  # in our unit
SHRINKAGE, TEMPERATURE, DAMPING, MARGIN, REFERENCE = 1e-2, 2.0, 0.1, 0.5, 64
PAST = 4  # finished experiences that share a memory when the last one comes
METHODS: dict[str, Make] = {
    "naive": naive,
    "joint": lambda model, budget: methods.JointTraining(**common(model, budget)),
    "cumulative": lambda model, budget: methods.Cumulative(**common(model, budget)),
    "replay": replay,
    "er_ace": rehearsing(methods.ER_ACE),
    "er_ace-mended": rehearsing(mended.WholeLoss),
    "der": rehearsing(methods.DER, alpha=0.5, beta=0.0),
    "derpp": rehearsing(methods.DER, alpha=0.1, beta=0.5),
    "mir": rehearsing(methods.MIR, subsample=CANDIDATES),
    "mir-mended": lambda model, budget: naive(
        model, budget, mended.EveryClass(budget.batch, budget.memory, CANDIDATES)
    ),
    "gdumb": gdumb,
    "icarl": icarl,
    "slda": slda,
    "agem": lambda model, budget: naive(model, budget, parts.AGEMPlugin(budget.memory // PAST, REFERENCE)),
    "gem": lambda model, budget: naive(model, budget, mended.Solved(budget.memory // PAST, MARGIN)),
    "ewc": online(parts.EWCPlugin),
    "ewc-mended": online(mended.SingleSamples),
    "si": lambda model, budget: naive(model, budget, parts.SynapticIntelligencePlugin(2 * PULLS["si"], DAMPING)),
    "si-mended": lambda model, budget: naive(model, budget, mended.CopiedWeights(2 * PULLS["si"], DAMPING)),
    "mas": lambda model, budget: naive(model, budget, parts.MASPlugin(PULLS["mas"])),
    "mas-mended": lambda model, budget: naive(model, budget, mended.SummedSensitivity(PULLS["mas"])),
    "lwf": lambda model, budget: naive(model, budget, parts.LwFPlugin(TEMPERATURE**2 * PULLS["lwf"], TEMPERATURE)),
}


def learned(
    method: str,
    batches: Sequence[Batch],
    model: Classifier,
    budget: Budget,
    seed: int = 0,
    *,
    by_task: bool = False,
    shuffle: bool = True,
) -> Answer:
    """Return what maps inputs and their task to scores `[N, C]` after Avalanche's `method` has trained `model`."""
    heads = [batch.y.unique().tolist() for batch in batches]
    with quiet(seed):
        strategy = METHODS[method](Told(model, heads) if by_task else Logits(model), budget)
        steps = stream(batches, model.classes, by_task)
        for step in [steps] if method == "joint" else steps:
            strategy.train(step, eval_streams=[], shuffle=shuffle)
    strategy.model.eval()
    if by_task:
        return lambda x, task: strategy.model(x, torch.full((len(x),), task))
    if method == "slda":
        return lambda x, _: strategy.predict(strategy.model(x))
    return lambda x, _: strategy.model(x)
