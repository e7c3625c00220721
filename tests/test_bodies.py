"""The body of a request: all of it, in time, or a refusal; and an end that somebody else wants stays theirs."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from lifelong.errors import TooLarge

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from serving import bodies
    from serving.exchange import Exchange
    from serving.problems import Problem


def sending(*parts: bytes, pause: float = 0.0) -> Any:
    """Return a `receive` of ASGI that gives `parts`, each after a pause."""
    left = [{"type": "http.request", "body": p, "more_body": i + 1 < len(parts)} for i, p in enumerate(parts)]

    async def receive() -> Any:
        await asyncio.sleep(pause)
        return left.pop(0)

    return receive


def test_the_whole_body_is_read_and_a_larger_one_refused() -> None:
    assert asyncio.run(bodies.body(Exchange(), sending(b"ab", b"", b"c"), 3, 1)) == b"abc"
    with pytest.raises(TooLarge, match="may have 2 bytes"):
        asyncio.run(bodies.body(Exchange(), sending(b"ab", b"", b"c"), 2, 1))


def test_a_slow_one_is_refused_and_whoever_asked_goes_on() -> None:
    async def asked() -> tuple[int, str]:
        try:
            await bodies.body(Exchange(), sending(b"a", b"b", pause=60), 3, 0.05)
        except Problem as problem:
            return problem.status, await asyncio.sleep(0.01, "goes on")
        raise AssertionError

    assert asyncio.run(asked()) == (408, "goes on")


@pytest.mark.parametrize("seconds", [0.05, 60])
def test_who_is_cancelled_by_somebody_else_ends(seconds: float) -> None:
    """Also if it is late at the same moment."""

    async def asked() -> None:
        work = asyncio.ensure_future(bodies.body(Exchange(), sending(b"a", pause=60), 3, seconds))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, work.cancel)
        await work

    with pytest.raises((asyncio.CancelledError, Problem)) as found:
        asyncio.run(asked())
    assert seconds < 1 or isinstance(found.value, asyncio.CancelledError)
