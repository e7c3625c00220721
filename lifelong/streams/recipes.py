"""The permanent ids: which data, cut how, and what a result on it says something about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lifelong.streams.classes import class_incremental, few_shot, recurring, task_incremental
from lifelong.streams.domains import domains, permuted, rotated
from lifelong.streams.overlaps import overlapping
from lifelong.streams.pieces import blurry, data_incremental, online, periods
from lifelong.streams.scenario import Scenario
from lifelong.streams.vectors import (
    digit_shift,
    few_features,
    of_features,
    online_texts,
    online_words,
    texts_by_time,
    words_by_time,
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a permanent id is made: a data set, a maker, and what it is called with.

    Args:
        about: One line for people.
        data: Name of the data set.
        make: The maker; called with the data, `options` and the user's own options.
        options: What the id stands for; options of a caller go over them, and into the signature.
        more: Names of further data sets; the maker then gets a list.
    """

    about: str
    data: str
    make: Callable[..., Scenario]
    options: Mapping[str, Any] = field(default_factory=dict)
    more: tuple[str, ...] = ()


_FMNIST = {
    "split-fmnist": Recipe("5 x 2 classes, no task id", "fashion-mnist", class_incremental, {"experiences": 5}),
    "split-fmnist-seeded": Recipe("5 x 2 classes in an order drawn by the seed", "fashion-mnist", class_incremental,
                                  {"experiences": 5, "order": "seed"}),
    "split-fmnist-easy": Recipe("5 x 2 classes, the easy ones first", "fashion-mnist", class_incremental,
                                {"experiences": 5, "order": "easy"}),
    "split-fmnist-similar": Recipe("5 x 2 classes, each followed by the one most like it", "fashion-mnist",
                                   class_incremental, {"experiences": 5, "order": "similar"}),
    "task-fmnist": Recipe("5 x 2 classes, task id given", "fashion-mnist", task_incremental, {"experiences": 5}),
    "permuted-fmnist": Recipe("5 pixel orders", "fashion-mnist", permuted, {"experiences": 5}),
    "permuted-fmnist-tasks": Recipe("10 pixel orders, task id given", "fashion-mnist", permuted,
                                    {"experiences": 10, "task_ids": True}),
    "overlap-fmnist": Recipe("5 tasks of 4 classes, each class in two tasks, task id given", "fashion-mnist",
                             overlapping),
    "rotated-fmnist": Recipe("5 angles in 0..180 degrees", "fashion-mnist", rotated, {"experiences": 5}),
    "data-fmnist": Recipe("5 i.i.d. parts", "fashion-mnist", data_incremental, {"experiences": 5}),
    "long-fmnist": Recipe("100 experiences of 2 classes, which come back 20 times", "fashion-mnist", recurring,
                          {"experiences": 100, "classes": 2}),
    "fewshot-fmnist": Recipe("6 classes, then 4 x 1 class of 5 samples", "fashion-mnist", few_shot,
                             {"base": 6, "ways": 1, "shots": 5}),
    "blurry-fmnist": Recipe("5 x 2 classes with soft borders, 10 samples at a time, once", "fashion-mnist", blurry,
                            {"experiences": 5, "size": 10, "width": 0.5}),
    "online-fmnist": Recipe("10 samples at a time, once, class after class", "fashion-mnist", online,
                            {"size": 10, "order": "classes"}),
    "lite0-fmnist": Recipe("5 x 2 classes, features of lite0 at 64 pixels", "fashion-mnist", of_features,
                           {"experiences": 5, "encoder": "lite0", "size": 64}),
    "lite2-fmnist": Recipe("5 x 2 classes, features of lite2 at 64 pixels", "fashion-mnist", of_features,
                           {"experiences": 5, "encoder": "lite2", "size": 64}),
    "fewshot-lite0-fmnist": Recipe("6 classes, then 4 x 1 class of 5 samples, features of lite0", "fashion-mnist",
                                   few_features, {"base": 6, "ways": 1, "shots": 5, "encoder": "lite0", "size": 64}),
}  # fmt: skip

_MNIST10K = {
    "split-mnist10k": Recipe("5 x 2 classes of 10,000 digits", "mnist10k", class_incremental, {"experiences": 5}),
    "split-mnist10k-seeded": Recipe("5 x 2 classes in an order drawn by the seed", "mnist10k", class_incremental,
                                    {"experiences": 5, "order": "seed"}),
    "permuted-mnist10k": Recipe("10 pixel orders", "mnist10k", permuted, {"experiences": 10}),
    "permuted-mnist10k-tasks": Recipe("10 pixel orders, task id given", "mnist10k", permuted,
                                      {"experiences": 10, "task_ids": True}),
    "rotated-mnist10k": Recipe("5 angles in 0..180 degrees", "mnist10k", rotated, {"experiences": 5}),
    "fewshot-mnist10k": Recipe("6 classes, then 4 x 1 class of 5 samples", "mnist10k", few_shot,
                               {"base": 6, "ways": 1, "shots": 5}),
    "blurry-mnist10k": Recipe("5 x 2 classes with soft borders, 10 samples at a time, once", "mnist10k", blurry,
                              {"experiences": 5, "size": 10, "width": 0.5}),
    "lite0-mnist10k": Recipe("5 x 2 classes, features of lite0 at 64 pixels", "mnist10k", of_features,
                             {"experiences": 5, "encoder": "lite0", "size": 64}),
    "lite2-mnist10k": Recipe("5 x 2 classes, features of lite2 at 64 pixels", "mnist10k", of_features,
                             {"experiences": 5, "encoder": "lite2", "size": 64}),
    "shift-digits": Recipe("mnist10k, then the 8x8 digits: the same labels, other images", "mnist10k", digit_shift,
                           more=("digits",)),
}  # fmt: skip

_DIGITS = {
    "split-digits": Recipe("5 x 2 classes of 8x8 digits", "digits", class_incremental, {"experiences": 5}),
    "permuted-digits": Recipe("10 pixel orders", "digits", permuted, {"experiences": 10}),
    "rotated-digits": Recipe("5 angles in 0..180 degrees", "digits", rotated, {"experiences": 5}),
    "long-digits": Recipe("100 pixel orders", "digits", permuted, {"experiences": 100}),
}

_OTHER = {
    "split-cifar10": Recipe("5 x 2 classes", "cifar10", class_incremental, {"experiences": 5}),
    "split-cifar100": Recipe("10 x 10 classes", "cifar100", class_incremental, {"experiences": 10}),
    "long-cifar100": Recipe("100 x 1 class", "cifar100", class_incremental, {"experiences": 100}),
    "online-elec": Recipe("10 rows at a time in file order", "elec", online, {"size": 10, "order": "file"}),
    "online-weather": Recipe("10 rows at a time in file order", "weather", online, {"size": 10, "order": "file"}),
    "online-covtype": Recipe("10 rows at a time in file order", "covtype", online, {"size": 10, "order": "file"}),
    "online-elec-scaled": Recipe("the same, scaled by what was seen before", "elec", online,
                                 {"size": 10, "order": "file", "scale": True}),
    "online-weather-scaled": Recipe("the same, scaled by what was seen before", "weather", online,
                                    {"size": 10, "order": "file", "scale": True}),
    "online-covtype-scaled": Recipe("the same, scaled by what was seen before", "covtype", online,
                                    {"size": 10, "order": "file", "scale": True}),
    "online-spam": Recipe("10 mails at a time by date, words hashed", "spamassassin", online_words, {"size": 10}),
    "dated-spam": Recipe("6 parts of equal length by date, words hashed", "spamassassin", words_by_time,
                         {"experiences": 6}),
    "online-minilm-spam": Recipe("10 mails at a time by date, features of MiniLM", "spamassassin", online_texts,
                                 {"size": 10, "length": 64}),
    "dated-minilm-spam": Recipe("6 parts of equal length by date, features of MiniLM", "spamassassin", texts_by_time,
                                {"experiences": 6, "length": 64}),
    "dated-elec": Recipe("6 parts of equal length by time", "elec", periods, {"experiences": 6}),
    "domain-covtype": Recipe("4 wilderness areas", "covtype", domains,
                             {"column": (10, 11, 12, 13), "held_out": 0.2}),
}  # fmt: skip

SCENARIOS: Mapping[str, Recipe] = {
    **_FMNIST,
    **{f"{name}-small": replace(recipe, data="fashion-mnist-small") for name, recipe in _FMNIST.items()},
    **_DIGITS,
    **_MNIST10K,
    **_OTHER,
}
# `KIND:DATA` cuts any other data set: `split:my.npz`, `rotated:torchvision.KMNIST`.
KINDS: Mapping[str, Callable[..., Scenario]] = {
    "split": class_incremental, "task": task_incremental, "fewshot": few_shot, "long": recurring,
    "permuted": permuted, "rotated": rotated, "data": data_incremental, "dated": periods, "online": online,
    "blurry": blurry, "lite": of_features,
}  # fmt: skip
