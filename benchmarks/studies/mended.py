"""Avalanche's own methods with one named defect each taken out, and nothing else changed.

Imported only where a study runs: `import avalanche` takes seconds.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.utils.data import DataLoader

warnings.simplefilter("ignore")  # deprecations of what avalanche imports, and that nothing is logged

from avalanche.training import plugins as parts  # noqa: E402
from avalanche.training import supervised as methods  # noqa: E402
from avalanche.training.plugins.mir import cycle  # noqa: E402


class EveryClass(parts.MIRPlugin):
    """Rehearses all that it holds: the original leaves out the classes of the experience that has just ended.

    It also takes the mean over new and remembered samples, as the paper does, instead of adding two means.
    """

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().before_backward(strategy, **kwargs)
        if self.replay_loader is not None:
            strategy.loss = strategy.loss / 2

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ANN401
        self.storage_policy.update(strategy, **kwargs)
        held = self.storage_policy.buffer
        self.replay_loader = cycle(DataLoader(held, batch_size=self.subsample, shuffle=True))


class Solved(parts.GEMPlugin):
    """The programme of GEM solved by SciPy: the original asks for quadprog, which Avalanche does not install."""

    def solve_quadprog(self, g: Tensor) -> Tensor:
        past = self.G.double().numpy()
        root = np.linalg.cholesky(past @ past.T + 1e-3 * np.eye(len(past)))  # the original's ridge
        least = np.full(len(past), float(self.memory_strength))
        slope = past @ g.double().numpy() + root @ (root.T @ least)
        extra, _ = nnls(root.T, -np.linalg.solve(root, slope))
        return (g.double() + torch.from_numpy((extra + least) @ past)).float()


class SingleSamples(parts.EWCPlugin):
    """Squares gradients of single samples: the original squares the mean gradient of a batch."""

    def compute_importances(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        model, criterion, optimizer, dataset, device, _ = args
        return super().compute_importances(model, criterion, optimizer, dataset, device, 1, **kwargs)


class SummedSensitivity(parts.MASPlugin):
    """Takes |gradient| of single samples and adds experiences up: the original averages both ways first."""

    def _get_importance(self, strategy: Any) -> Any:  # noqa: ANN401
        size, strategy.train_mb_size = strategy.train_mb_size, 1
        found = super()._get_importance(strategy)
        strategy.train_mb_size = size
        return found

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ANN401
        first = not self.importance
        super().after_training_exp(strategy, **kwargs)
        for value in () if first else self.importance.values():
            value.data *= 2  # it is (old + new) / 2 by then, for alpha = 0.5


class CopiedWeights(parts.SynapticIntelligencePlugin):
    """Keeps copies of weights where the original's alias the live ones, which makes it do nothing on a CPU.

    Nor does it clip the importance at 0.001; a negative one counts as 0.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().before_training_exp(strategy, **kwargs)
        copy_all(self.ewc_data[0])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().before_training_iteration(strategy, **kwargs)
        copy_all(self.syn_data["old_theta"])

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ANN401
        for name, weight in strategy.model.named_parameters():
            now, held, path = weight.detach().flatten(), self.ewc_data[0][name], self.syn_data["trajectory"][name].data
            self.ewc_data[1][name].data += (-path).clamp(min=0) / ((now - held.data).square() + self.eps)
            held.data = now.clone()


def copy_all(table: dict[str, Any]) -> None:
    """Replace what may be a view of live weights by copies."""
    for value in table.values():
        value.data = value.data.clone()


class WholeLoss(methods.ER_ACE):
    """Adds the two cross-entropies, as the paper does: the original takes half of their sum, so half a step."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs)
        halved = self.ace_criterion
        self.ace_criterion = lambda *rows: 2 * halved(*rows)
