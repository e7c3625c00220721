"""Which strategies go together: a pair is refused when it is put together, with a reason, or it works."""

from __future__ import annotations

import os
from itertools import combinations

import pytest

from lifelong import plugins
from lifelong.errors import ConfigError, LifelongError
from lifelong.learning import Chain
from lifelong.learning.strategy import PARTS
from lifelong.trial import Toy, digest, learner

NAMES = [name for name in plugins.names("strategy") if name != "naive"]
PAIRS = [(a, b) if (i + j) % 2 else (b, a) for (i, a), (j, b) in combinations(enumerate(NAMES), 2)]
EVERY = 1 if os.environ.get("LIFELONG_SOAK") else 4


def find(name):
    return plugins.find("strategy", name)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(3))
def test_a_pair_is_refused_at_once_or_learns_and_resumes(start: int) -> None:
    """A fourth of all pairs, in either order; all of them with LIFELONG_SOAK."""
    for first, second in PAIRS[start :: 3 * EVERY]:
        try:
            chain = Chain(find(first)(), find(second)())
        except ConfigError as error:
            assert "chain one of them" in str(error)
            continue
        kinds = chain.needs.scenarios
        if not kinds:
            continue
        kind = "class-il" if "class-il" in kinds else min(kinds)
        made, other = learner(chain, kind, lr=0.02), learner(Chain(find(first)(), find(second)()), kind, lr=0.02)
        stream = list(Toy(kind).experiences(3, 8))
        try:
            for experience in stream:
                made.fit(experience, 1)
            other.restore(made.state())
            assert digest(other.state()) == digest(made.state())
            made.predict(stream[0].test.x[:3], 0)
        except LifelongError as error:
            raise AssertionError(f"{first}+{second}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{first}+{second}") from error


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("slda", "nmc", "the head and the weights"),
        ("ewc", "bt2", "the weights"),
        ("trgp", "mas", "the weights"),
        ("simplex", "align", "the space"),
        ("er_ace", "icarl", "the loss"),
    ],
)
def test_who_would_undo_the_other_is_named(first: str, second: str, what: str) -> None:
    """Also inside a chain of chains."""
    for chain in (lambda: Chain(find(first)(), find(second)()), lambda: Chain(find(second)(), Chain(find(first)()))):
        with pytest.raises(ConfigError, match=f"both .* {what}; chain one of them"):
            chain()


def test_a_chain_in_a_chain_is_its_parts() -> None:
    """Who looks at each part, for its budget say, sees the strategies and no chain."""
    one, two, three = find("replay")(), find("ewc")(), find("lwf")()

    assert Chain(one, Chain(two, Chain(three))).parts == (one, two, three)


def test_what_is_owned_is_known() -> None:
    for name in NAMES:
        assert find(name).owns | find(name).uses <= PARTS
