"""Tuning without the test set: hold part of the training samples out instead."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from lifelong.errors import ConfigError, DataError
from lifelong.streams.parts import Samples, Subset
from lifelong.streams.scenario import TESTS, Cut, Scenario, Steps, newest
from lifelong.types import Batch


def validation(scenario: Scenario, share: float = 0.1, *, seed: int = 0) -> Scenario:
    """Return `scenario` with part of each experience's training samples held out as its test samples.

    The test samples of `scenario` are not reachable from the result. Each class gives the same share; a class keeps
    at least one sample to train on, unless each class of its experience has only one. Where all experiences show the
    same samples in another way (permuted, rotated), the same ones are held out of all.

    Args:
        scenario: What will be tuned for; its samples come from batches or map-style data.
        share: Of each class to hold out (0..1, both excluded); at least one sample per experience.
        seed: Of the draw.

    Raises:
        DataError: (When its samples are asked for.) An experience has fewer than 2 samples.
    """
    if not 0 < share < 1:
        raise ConfigError(f"the share to hold out lies between 0 and 1, got {share}")
    random = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (len(scenario),), generator=random).tolist()
    if scenario.options.get("change") in ("permuted", "rotated"):  # what is held out once is never trained on
        seeds = seeds[:1] * len(seeds)

    def cut(held_out: bool, index: int) -> Samples:
        experience = scenario[index]
        samples = experience.train
        if not isinstance(samples, Batch | Subset):
            raise DataError(
                f"experience {experience.name!r} is no batch or map-style data; cut it with from_data first"
            )
        kept, held = _split(samples.y, share, seeds[index])
        return samples.take(held if held_out else kept)

    train, test = newest(partial(cut, False)), newest(partial(cut, True), TESTS)

    def make(index: int) -> Cut:
        whole = scenario[index]
        own = partial(train, index), partial(test, index)
        return Cut(index, whole.name, whole.classes, *own, task=whole.task, names=whole.names)

    options = {**scenario.options, "validation": share, "validation_seed": seed}
    steps = Steps(len(scenario), make)
    counts = {key: count for key, count in scenario.counts.items() if key != "test"}
    return replace(scenario, name=f"{scenario.name}-validation", experiences=steps, options=options, counts=counts)


def refuse_small(scenario: Scenario) -> None:
    """Raise `DataError` where an experience has too few samples to hold one out, before anything was trained."""
    if "boundaries" not in scenario.provides:
        return
    for experience in scenario:
        samples = experience.train
        if isinstance(samples, Batch | Subset) and len(samples.y) < 2:
            raise DataError(
                f"experience {experience.name!r} of {list(experience.classes)} has {len(samples.y)} samples; one of "
                "each is held out; cut the stream into fewer experiences, or leave those classes out"
            )


def _split(y: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows `[N - M]` to keep and `[M]` to hold out of samples with class indices `y` `[N]`, ascending."""
    if len(y) < 2:
        raise DataError(f"an experience of {len(y)} samples cannot be split; hold out of larger experiences")
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    groups = [order[y[order] == label] for label in y.unique()]
    held = [rows[: min(round(share * len(rows)), len(rows) - 1)] for rows in groups]
    chosen = torch.zeros(len(y), dtype=torch.bool)
    chosen[torch.cat(held)] = True
    if not chosen.any():
        chosen[max(groups, key=len)[0]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()
