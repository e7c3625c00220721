"""Avalanche meets lifelong: our strategies as its plug-ins, its benchmarks as our scenarios.

This is the only file that imports avalanche, which takes seconds and hundreds of megabytes: nothing else needs it.

```
hook of Strategy      callback of SupervisedPlugin       what happens there
adapt                 before_training, once              the optimizer takes new parameters over before its first step
(labels, growth)      before_train_dataset_adaptation    classes get indices, the head grows, Avalanche finds it
begin                 before_training_exp                with the momenta that Avalanche drops for grown parameters
augment               before_forward                     labels become class indices, `mbatch` the augmented batch
                      after_forward                      `Output` is kept, `mb_output` becomes its logits
penalty               before_backward                    added to `strategy.loss`
project               before_update                      gradients are there, the step is not taken
project_delta         after_update
observe               after_update                       with the new samples only
end                   after_training_exp
(labels)              before/after_eval_forward          class indices; one column for classes never learned, at -inf
```
Checked: naive, replay, power-law rehearsal and nearest mean end at the weights of our own loop, bit for bit
(tests/test_avalanche.py).
Differs from our loop: batches carry no sample ids (they are counted) and no task ids (-1), so task-incremental
streams are refused; non-finite losses are not refused; Avalanche's own random order is global state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from lifelong.batching import stack
from lifelong.errors import ConfigError, Unavailable, UnknownName
from lifelong.labels import Label, LabelMap, plain_label
from lifelong.learning import Strategy
from lifelong.learning.optimizers import load_named_state, named_state, trained
from lifelong.models import Classifier
from lifelong.streams.parts import Samples, Subset
from lifelong.streams.scenario import PROVIDES, Scenario
from lifelong.types import Batch, Experience, Output

try:
    from avalanche.core import SupervisedPlugin
except ImportError as error:
    raise Unavailable(f"avalanche cannot be imported ({error}); pip install 'lifelong[bench]'") from error


def as_plugin(strategy: Strategy, kind: str = "class-il") -> StrategyPlugin:
    """Return `strategy` as a plug-in for `avalanche.training.supervised.Naive`.

    Give `Naive` a `lifelong.models.Classifier`, an optimizer of its parameters, and the plug-in; evaluation sees class
    indices in the order in which the classes came, and `mb_output` of C + 1 columns.

    Args:
        strategy: Not in use elsewhere.
        kind: Of the stream that it will be trained on: class-il, domain-il, data-il or online.

    Raises:
        ConfigError: The strategy is not meant for this kind, or needs what Avalanche does not tell a plug-in.
    """
    return StrategyPlugin(strategy, kind)


@final
class StrategyPlugin(SupervisedPlugin):  # type: ignore[misc] # avalanche ships no types
    """A strategy between Avalanche's callbacks; made by `as_plugin`.

    Args:
        strategy: Whose hooks are called.
        kind: Of the stream.
    """

    def __init__(self, strategy: Strategy, kind: str) -> None:
        super().__init__()
        if kind not in PROVIDES:
            raise UnknownName.among("kind of scenario", kind, PROVIDES)
        if kind == "task-il":
            raise ConfigError("Avalanche's Naive passes no task id to the model; use lifelong's Learner for task-il")
        strategy.needs.refuse_unless(kind, PROVIDES[kind], type(strategy).__name__)
        self.strategy, self.labels = strategy, LabelMap()
        self.adapted, self.seen = False, 0
        self._momenta: dict[str, Any] = {}
        self._before: dict[str, Tensor] = {}

    def before_training(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Let the strategy adapt the model, once."""
        if not isinstance(strategy.model, Classifier):
            raise ConfigError(
                f"the plug-in trains a lifelong.models.Classifier, got a {type(strategy.model).__name__}; see build"
            )
        if not self.adapted:
            self.strategy.adapt(strategy.model)
            strategy.model.to(strategy.device)
            self.adapted = True

    def before_train_dataset_adaptation(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Give the new classes indices and make room for them, before Avalanche looks at the parameters."""
        self._experience = experience_of(strategy.experience)
        self._experience.register(self.labels)
        self._momenta = named_state(strategy.optimizer, trained(strategy.model))
        strategy.model.grow(len(self.labels))

    def before_training_exp(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Give grown parameters their momenta back, then begin."""
        load_named_state(strategy.optimizer, trained(strategy.model), self._momenta)
        self.strategy.begin(strategy.model, self._experience)

    def before_forward(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Replace labels by class indices, and the batch by the augmented batch."""
        x, y, *rest = strategy.mbatch
        ids = torch.arange(self.seen, self.seen + len(y), device=y.device)
        self._new = Batch.of(x, self.labels.encode(y), ids, torch.full_like(y, -1))
        self.seen += len(y)
        self._mixed = self.strategy.augment(self._new)
        extra = len(self._mixed) - len(y)
        tasks = [torch.cat([t, t[-1:].expand(extra)]) for t in rest]  # keeps Avalanche's metrics per task going
        strategy.mbatch = [self._mixed.x, self._mixed.y, *tasks]

    def after_forward(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Keep the output; Avalanche's criterion and metrics take logits."""
        self._out: Output = strategy.mb_output
        strategy.mb_output = self._out.logits

    def before_backward(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Add the penalty; a closed-form strategy leaves nothing to go backward through, Avalanche does it anyway."""
        if not trained(strategy.model):
            strategy.loss = torch.zeros(1, device=strategy.device, requires_grad=True)
            return
        extra = self.strategy.penalty(strategy.model, self._mixed, self._out)
        if extra is not None:
            strategy.loss = strategy.loss + extra

    def before_update(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Let the strategy edit the gradients."""
        self.strategy.project(strategy.model)
        if self.strategy.keeps_delta:
            self._before = {n: p.detach().clone() for n, p in trained(strategy.model).items()}

    def after_update(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Let the strategy edit the step, and learn from it."""
        if self.strategy.keeps_delta:
            self.strategy.project_delta(strategy.model, self._before)
        new = len(self._new)
        out = Output(self._out.features[:new], self._out.logits[:new])
        with torch.set_grad_enabled(bool(trained(strategy.model))):
            self.strategy.observe(strategy.model, self._new, out)

    def after_training_exp(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Let the strategy consolidate."""
        self.strategy.end(strategy.model, self._experience)

    def before_eval_forward(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Replace labels by class indices; all classes that were never learned share the column after the last."""
        known = self.labels.encode(strategy.mbatch[1])
        strategy.mbatch[1] = torch.where(known < 0, len(self.labels), known)

    def after_eval_forward(self, strategy: Any, **_: object) -> None:  # noqa: ANN401
        """Keep the logits of the learned classes, and add the column that is never predicted."""
        logits = strategy.mb_output.logits[:, : len(self.labels)]
        strategy.mb_output = torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)


def from_benchmark(
    benchmark: Any,  # noqa: ANN401 - a CLScenario
    *,
    name: str = "avalanche",
    kind: str = "class-il",
    seed: int = 0,
    in_memory: bool = False,
) -> Scenario:
    """Return an Avalanche benchmark's train and test streams as a scenario.

    Args:
        benchmark: With `train_stream` and `test_stream`; a test stream of one experience tests every experience.
        name: Of the scenario.
        kind: class-il, domain-il, task-il (its task labels are kept then), data-il or online.
        seed: That the benchmark was made with; Avalanche does not remember it.
        in_memory: Read all samples once, and batch by indexing from then on; False reads a sample when it is asked for.
    """
    tests = list(benchmark.test_stream)
    steps: list[Experience] = []
    first = 0
    for i, train in enumerate(benchmark.train_stream):
        test = tests[0] if len(tests) == 1 else tests[i]
        step = experience_of(train, test, first=first, by_task=kind == "task-il", in_memory=in_memory)
        first += len(train.dataset)
        steps.append(step)
    classes = LabelMap(label for step in steps for label in step.classes).tolist()
    held_out = sum(len(test.dataset) for test in tests)
    counts = {"experiences": len(steps), "classes": len(classes), "train": first, "test": held_out}
    return Scenario(name, kind, steps, tuple(classes), seed, counts, options={"source": "avalanche"})


def experience_of(
    train: Any,  # noqa: ANN401 - a DatasetExperience
    test: Any = None,  # noqa: ANN401
    *,
    first: int = 0,
    by_task: bool = False,
    in_memory: bool = False,
) -> Experience:
    """Return Avalanche's experience as ours; its classes come in ascending order.

    Args:
        train: From a training stream.
        test: From a test stream; None holds nothing out.
        first: Id of its first sample.
        by_task: Keep its task label.
        in_memory: Read all samples now.
    """
    read: Callable[[Any, int], Samples] = _read if in_memory else _samples
    samples = read(train.dataset, first)
    classes: list[Label] = [plain_label(label) for label in samples.y.unique()]
    index = int(train.current_experience)
    held_out = None if test is None else read(test.dataset, first)
    task = int(train.task_label) if by_task else -1
    return Experience(index, f"{train.origin_stream.name}-{index}", classes, samples, held_out, task=task)


def _samples(dataset: Any, first: int) -> Subset:  # noqa: ANN401 - an AvalancheDataset
    y = torch.tensor([int(label) for label in dataset.targets])
    rows = torch.arange(len(y))
    return Subset(dataset, y, rows, rows + first)


def _read(dataset: Any, first: int) -> Batch:  # noqa: ANN401
    lazy = _samples(dataset, first)
    return Batch.of(stack([x for x, _ in lazy]), lazy.y, lazy.ids)
