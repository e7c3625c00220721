"""How often each task is met again: weights by age, their odds, and whole numbers of samples that add up."""

from __future__ import annotations

import torch
from torch import Tensor

from lifelong.errors import ConfigError

KERNELS = ("power", "exponential", "uniform", "last", "anti")


def log_weights(ages: Tensor, kernel: str, alpha: float) -> Tensor:
    """Return the logarithm `[T]` float64 of the weight of each age: no weight under- or overflows this way.

    Args:
        ages: Time `[T]` since each task was last met, >= 1, of T >= 1 tasks; in experiences or steps.
        kernel: `power` (d ** -alpha), `exponential` (exp(-alpha d)), `uniform` (1), `last` (1 for the youngest, else 0)
            or `anti` (d ** alpha).
        alpha: Exponent, or rate of `exponential`; >= 0.
    """
    age = ages.double()
    if kernel == "last":
        return (age == age.min()).double().log()
    return {
        "power": -alpha * age.log(),
        "exponential": -alpha * age,
        "uniform": torch.zeros_like(age),
        "anti": alpha * age.log(),
    }[kernel]


def odds(ages: Tensor, kernel: str, alpha: float) -> Tensor:
    """Return the probability `[T]` float64 of each task of age `[T]` >= 1 to be met: its share of all weights.

    >>> odds(torch.tensor([1, 2, 4]), "power", 1.0).tolist()
    [0.5714285714285714, 0.2857142857142857, 0.14285714285714285]
    """
    return log_weights(ages, kernel, alpha).softmax(0)


def allocate(budget: int, odds: Tensor, room: Tensor | None = None) -> Tensor:
    """Return how many of `budget` samples each task gets `[T]` i64: budget * odds, rounded by largest remainders.

    The numbers add up to `budget` exactly. What a task has no room for is shared out among the others by their odds;
    tasks with odds 0 get some, in equal parts, only when all others are full. Of equal remainders the first is served.

    Args:
        budget: Samples to share out.
        odds: Of each task `[T]`, adding up to 1.
        room: The most that each task can take `[T]` i64; None is no limit.

    Raises:
        ConfigError: There is not enough room for all.

    >>> allocate(10, torch.tensor([0.5, 0.3, 0.2]), torch.tensor([2, 9, 9])).tolist()
    [2, 5, 3]
    """
    limit = torch.full((len(odds),), budget) if room is None else room
    if budget < 0 or budget > int(limit.sum()):
        raise ConfigError(f"the budget lies in 0..{int(limit.sum())}, the room of {len(odds)} tasks; got {budget}")
    given = torch.zeros(len(odds), dtype=torch.int64)
    while left := budget - int(given.sum()):  # each round fills a task up or places all that is left
        free = given < limit
        weight = odds.double() * free
        weight = weight if weight.any() else free.double()
        given = torch.minimum(given + _rounded(left, weight / weight.sum()), limit)
    return given


def _rounded(total: int, shares: Tensor) -> Tensor:
    quotas = total * shares
    whole = quotas.floor().long()
    first = (quotas - whole).argsort(descending=True, stable=True)[: total - int(whole.sum())]
    whole[first] += 1
    return whole
