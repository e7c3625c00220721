"""Connections to one PostgreSQL database: made when needed, kept for the next call, replaced after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, final

import numpy as np
import psycopg
from psycopg import conninfo, sql
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from lifelong.errors import ArtifactError, ConfigError, LifelongError, Unavailable
from lifelong.gallery.inputs import Floats

IDLE = 8  # connections kept for the next call
OLDEST = (0, 8)  # pgvector from which on a scan goes on until it has found enough (`hnsw.iterative_scan`)
SECONDS = "10"  # to wait for a server, unless the connection string says
DURABLE = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
Connection = psycopg.Connection[Any]
Made = TypeVar("Made")


class _VectorDumper(Dumper):
    """float32 `[D]` in pgvector's binary form: D and a zero in 16 bits each, then big-endian numbers."""

    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:  # noqa: ANN401 - an array
        return len(obj).to_bytes(2, "big") + b"\0\0" + np.asarray(obj, ">f4").tobytes()


class _VectorLoader(Loader):
    format = Format.BINARY

    def load(self, data: Any) -> Floats:  # noqa: ANN401 - of psycopg
        return np.frombuffer(bytes(data), ">f4", offset=4).astype(np.float32)


def described(dsn: str) -> str:
    """Return what a connection string leads to, without its password.

    Raises:
        ConfigError: It is none.
    """
    try:
        parts = conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        raise ConfigError(
            "a gallery's connection string cannot be read (it is not repeated here, for it may hold a password); "
            "write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    place = ":".join(str(parts[key]) for key in ("host", "port") if parts.get(key))
    user = f"{parts['user']}@" if parts.get("user") else ""
    return f"postgresql://{user}{place}/{parts.get('dbname', '')}"


@final
class Database:
    """One database, for any number of threads.

    Args:
        dsn: PostgreSQL's connection string; never shown.
        schema: Of all tables.
        effort: Length of the queue of an index scan (`hnsw.ef_search`).
        readonly: Ask the server to refuse writes.
    """

    def __init__(self, dsn: str, schema: str, *, effort: int, readonly: bool) -> None:
        self.name, self.schema = described(dsn), schema
        self._settings: dict[str, Any] = {
            "connect_timeout": SECONDS,
            "application_name": "lifelong",
        } | conninfo.conninfo_to_dict(dsn)
        self._effort, self._readonly = effort, readonly
        self._mutex = threading.Lock()
        self._idle: list[Connection] = []
        self._kept = IDLE

    def read(self, work: Callable[[Connection], Made]) -> Made:
        """Return what `work`, which changes nothing, makes of a connection; tries again if the server was restarted."""
        with self.errors():
            while (connection := self._idle_one()) is not None:
                try:
                    return self._used(connection, work)
                except psycopg.OperationalError:
                    if not connection.closed:
                        raise
            return self._used(self._connected(), work)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """Lend a connection that has just answered; one that was left in a transaction is not lent again."""
        connection = self.read(_answering)
        try:
            yield connection
        finally:
            self._give_back(connection)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Say what PostgreSQL's errors mean for a gallery.

        Raises:
            ArtifactError: Its tables are gone or changed.
            Unavailable: Anything else: unreachable, restarting, no permission.
        """
        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise ArtifactError(f"gallery {self.name} has lost a table: {_line(error)}; restore it") from error
        except psycopg.Error as error:
            raise Unavailable(f"gallery {self.name} cannot be used now: {_line(error)}; check the server") from error

    def close(self) -> None:
        """Close what is idle, and from now on whatever is given back: who still has a view may go on."""
        with self._mutex:
            self._kept, idle, self._idle = 0, self._idle, []
        for connection in idle:
            connection.close()

    def _used(self, connection: Connection, work: Callable[[Connection], Made]) -> Made:
        made = None
        try:
            made = work(connection)
            return made
        finally:
            if made is not connection:
                self._give_back(connection)

    def _idle_one(self) -> Connection | None:
        with self._mutex:
            return self._idle.pop() if self._idle else None

    def _give_back(self, connection: Connection) -> None:
        with self._mutex:
            fine = not connection.closed and connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            if fine and len(self._idle) < self._kept:
                self._idle.append(connection)
                return
        with suppress(psycopg.Error):
            connection.close()

    def _connected(self) -> Connection:
        made = psycopg.connect(**self._settings, autocommit=True, prepare_threshold=None)
        try:
            self._extension(made)
            made.execute(f"SET hnsw.iterative_scan = relaxed_order; SET hnsw.ef_search = {self._effort}")
            # Acknowledged is on the disk: a server may be set to something stronger, but not to less.
            made.execute(DURABLE)
            if self._readonly:
                made.execute("SET default_transaction_read_only = on")
            kind = TypeInfo.fetch(made, "vector")
            assert kind is not None
            kind.register(made)
            made.adapters.register_loader(kind.oid, _VectorLoader)
            made.adapters.register_dumper(np.ndarray, type("_Dumper", (_VectorDumper,), {"oid": kind.oid}))
        except (psycopg.Error, LifelongError):
            made.close()
            raise
        return made

    def _extension(self, made: Connection) -> None:
        """See that pgvector is there, and that its names and ours are found."""
        query = (
            "SELECT n.nspname, e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
            "WHERE e.extname = 'vector'"
        )
        found = made.execute(query).fetchone()
        if found is None and not self._readonly:
            with suppress(psycopg.Error):  # no permission, or not installed: said below
                made.execute("CREATE EXTENSION IF NOT EXISTS vector")
            found = made.execute(query).fetchone()
        if found is None:
            raise ConfigError(
                f"gallery {self.name} needs pgvector: the database has no extension 'vector'; install pgvector on the "
                "server and run CREATE EXTENSION vector in this database"
            )
        if tuple(int(n) for n in found[1].split(".")[:2]) < OLDEST:
            raise ConfigError(f"gallery {self.name} needs pgvector 0.8 or newer, got {found[1]}; update the extension")
        if made.info.parameter_status("server_encoding") != "UTF8":
            raise ConfigError(f"gallery {self.name} needs a database in UTF8; create one with ENCODING 'UTF8'")
        path = sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys((self.schema, found[0], "public"))))
        made.execute(sql.SQL("SET search_path = {}").format(path))


def _answering(connection: Connection) -> Connection:
    connection.execute("SELECT 1")
    return connection


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
