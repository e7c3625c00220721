"""Several databases as one gallery: an id lives in the one that its hash names, and the first one says what counts.

A change locks the first database, then the others, in order: one at a time is made. Each of them commits its own
rows; the first commits last, with the new sequence number, the numbers of rows and the stream's offset in that very
transaction. Nobody looks beyond the number that the first one shows. So what others committed before a crash is not
seen, and the next writer takes it back.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar, final

from lifelong.errors import LifelongError, SpaceError
from lifelong.gallery.postgres import Connection, Database
from lifelong.gallery.rows import ITEM
from lifelong.types import Space

KEPT_SECONDS = 300  # for which ended rows are kept, for views that were taken before
BACK = f"""
DELETE FROM items WHERE seq > %(sequence)s;
INSERT INTO items SELECT {ITEM} FROM history WHERE ended > %(sequence)s AND seq <= %(sequence)s;
DELETE FROM history WHERE ended > %(sequence)s;
UPDATE state SET sequence = %(sequence)s
"""
NEW_SPACE = """
INSERT INTO spaces SELECT coalesce(max(number) + 1, 0), %s, %s, %s, 0, false FROM spaces RETURNING number
"""
PURGE = """
WITH gone AS (
    DELETE FROM history WHERE moment < clock_timestamp() - make_interval(secs => %s) AND ended <= %s RETURNING ended
)
UPDATE state SET purged = last FROM (SELECT max(ended) AS last FROM gone) AS newest WHERE last > purged
"""
Made = TypeVar("Made")


@final
class Change:
    """One change while it is being made: connections in the order of the databases, each in a transaction."""

    def __init__(self, connections: Sequence[Connection], sequence: int) -> None:
        self.connections, self.first = connections, sequence + 1
        self.touched = {0}
        for place, connection in enumerate(connections[1:], 1):
            (reached,) = connection.execute("SELECT sequence FROM state FOR UPDATE").fetchone()  # type: ignore[misc]
            if reached > sequence:
                for step in BACK.split(";"):
                    connection.execute(step.encode(), {"sequence": sequence})
                self.touched.add(place)

    @property
    def lead(self) -> Connection:
        """Return the connection to the first database."""
        return self.connections[0]

    def at(self, place: int) -> Connection:
        """Return the connection to a database that will be changed."""
        self.touched.add(place)
        return self.connections[place]

    def space(self, space: Space) -> int:
        """Return the number of a space, new if need be.

        Raises:
            SpaceError: It is known with another width or family.
        """
        known = self.lead.execute("SELECT number, dim, family FROM spaces WHERE id = %s", (space.id,)).fetchone()
        if known is None:
            known = self.lead.execute(NEW_SPACE, (space.id, space.dim, space.family)).fetchone()
        elif known[1:] != (space.dim, space.family):
            raise SpaceError(
                f"space {space.id!r} is stored with dim={known[1]} and family={known[2]!r}, "
                f"got dim={space.dim} and family={space.family!r}; give another model another space id"
            )
        assert known is not None
        return int(known[0])

    def finish(self, last: int) -> None:
        """Commit; `last` is the number of the newest change."""
        for place, connection in reversed(list(enumerate(self.connections))):
            if place in self.touched:
                connection.execute("UPDATE state SET sequence = %s", (last,))
                connection.execute(PURGE, (KEPT_SECONDS, last))
                connection.execute("COMMIT")
            else:
                connection.execute("ROLLBACK")


@final
class Shards:
    """All databases of a gallery.

    Args:
        databases: In their order.
    """

    def __init__(self, databases: Sequence[Database]) -> None:
        self.databases = databases
        self._threads = ThreadPoolExecutor(len(databases), "gallery-shard") if len(databases) > 1 else None

    @property
    def lead(self) -> Database:
        """Return the first database."""
        return self.databases[0]

    def place(self, name: str) -> int:
        """Return which database an id lives in."""
        return zlib.crc32(name.encode()) % len(self.databases)

    def places(self, names: Sequence[str]) -> dict[int, list[int]]:
        """Return for each database with some of the ids their positions."""
        found: dict[int, list[int]] = {}
        for at, name in enumerate(names):
            found.setdefault(self.place(name), []).append(at)
        return found

    def each(self, work: Callable[[int, Connection], Made], places: Sequence[int] | None = None) -> list[Made]:
        """Return what `work`, which changes nothing, makes of each database (by its number and a connection)."""
        wanted = list(range(len(self.databases))) if places is None else list(places)

        def run(place: int) -> Made:
            return self.databases[place].read(lambda connection: work(place, connection))

        if self._threads is None or len(wanted) < 2:
            return [run(place) for place in wanted]
        try:
            return list(self._threads.map(run, wanted))
        except RuntimeError:  # closed meanwhile: a view goes on, one database after the other
            return [run(place) for place in wanted]

    @contextmanager
    def change(self) -> Iterator[Change]:
        """Lock everything for one change, which is to be finished; otherwise nothing of it remains."""
        with ExitStack() as stack:
            connections = [stack.enter_context(database.open()) for database in self.databases]
            stack.callback(_rolled_back, connections)
            with self._errors(connections):
                for connection in connections:
                    connection.execute("BEGIN")
                (sequence,) = connections[0].execute("SELECT sequence FROM state FOR UPDATE").fetchone()  # type: ignore[misc]
                yield Change(connections, sequence)

    @contextmanager
    def _errors(self, connections: Sequence[Connection]) -> Iterator[None]:
        """Name, if a connection broke, the database that it led to."""
        try:
            yield
        except LifelongError:
            raise
        except Exception:
            broken = [place for place, connection in enumerate(connections) if connection.closed]
            with self.databases[broken[0] if broken else 0].errors():
                raise

    def close(self) -> None:
        """Let go of connections and threads; views go on with new ones."""
        if self._threads is not None:
            self._threads.shutdown()
        for database in self.databases:
            database.close()


def _rolled_back(connections: Sequence[Connection]) -> None:
    """End transactions that were not finished, before their connections are given back."""
    for connection in connections:
        if not connection.closed and connection.info.transaction_status.name != "IDLE":
            try:
                connection.rollback()
            except Exception:  # noqa: BLE001 - whatever it is, a closed connection has no transaction
                connection.close()
