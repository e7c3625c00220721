"""The client for programs with an event loop.

```
async with AsyncClient("http://127.0.0.1:3000", connections=8) as client:
    answers = await asyncio.gather(*(client.predict([sample]) for sample in samples))
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, final

from lifelong.client import Client, Written
from lifelong.errors import ConfigError

Given = ParamSpec("Given")
Result = TypeVar("Result")


def _awaited(
    method: Callable[Concatenate[Client, Given], Result],
) -> Callable[Concatenate[AsyncClient, Given], Awaitable[Result]]:
    async def later(self: AsyncClient, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        return await self.run(lambda client: method(client, *args, **kwargs))

    later.__doc__ = method.__doc__
    return later


@final
class AsyncClient:
    """`Client` for programs with an event loop: the same methods, awaited, over a pool of connections.

    Args:
        url: As of `Client`.
        connections: Requests under way at the same time, each in a thread of its own; further ones wait.
        options: The other arguments of `Client`.
    """

    def __init__(self, url: str, *, connections: int = 8, **options: Any) -> None:  # noqa: ANN401 - of Client
        if connections < 1:
            raise ConfigError(f"need connections >= 1, got {connections}")
        self._connections = connections
        written = Written()  # each connection sees what the others wrote
        self._threads = ThreadPoolExecutor(connections, "lifelong-client")
        self._free: asyncio.LifoQueue[Client] = asyncio.LifoQueue()
        for _ in range(connections):
            self._free.put_nowait(Client(url, written=written, **options))

    async def run(self, act: Callable[[Client], Result]) -> Result:
        """Let a free `Client` do something, in a thread."""
        client = await self._free.get()
        try:
            asked = copy_context().run
            return await asyncio.get_running_loop().run_in_executor(self._threads, asked, act, client)
        finally:
            self._free.put_nowait(client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for what is under way, then close the connections and end the threads; closing twice is fine."""
        count, self._connections = self._connections, 0
        for _ in range(count):
            (await self._free.get()).close()
        self._threads.shutdown()

    predict, embed, search = _awaited(Client.predict), _awaited(Client.embed), _awaited(Client.search)
    add, get, remove = _awaited(Client.add), _awaited(Client.get), _awaited(Client.remove)
    labels = _awaited(Client.labels)
    feedback, versions, rollout = _awaited(Client.feedback), _awaited(Client.versions), _awaited(Client.rollout)
    admin, ready = _awaited(Client.admin), _awaited(Client.ready)
