"""What a gallery's tables in PostgreSQL look like, and how they are made, checked or refused."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from psycopg import sql

from lifelong.errors import ArtifactError, ConfigError, NotFound
from lifelong.gallery.postgres import Connection, Database

VERSION = 1
TABLES = """
CREATE TABLE about (key text PRIMARY KEY, value text NOT NULL);
CREATE TABLE state (
    sequence bigint NOT NULL,   -- the newest change; what counts is that of the first database
    purged bigint NOT NULL      -- ended rows up to this change are forgotten
);
INSERT INTO state VALUES (0, 0);
CREATE TABLE spaces (           -- of the whole gallery, in the first database
    number integer PRIMARY KEY,
    id text NOT NULL UNIQUE,
    dim integer NOT NULL,
    family text NOT NULL,
    rows bigint NOT NULL,       -- that live
    indexed boolean NOT NULL    -- every database has its HNSW index
);
CREATE TABLE offsets (source text PRIMARY KEY, position bigint NOT NULL);
CREATE TABLE items (            -- the rows that live
    id text PRIMARY KEY,
    seq bigint NOT NULL UNIQUE, -- when it was written: ever rising, and never used again
    space integer NOT NULL,
    payload json NOT NULL,      -- as it was given
    filters jsonb NOT NULL,     -- of its keys those with plain values, for conditions
    scale smallint NOT NULL,    -- the vector as it was given is vec * 2 ** scale
    vec vector NOT NULL
);
CREATE INDEX items_space ON items (space);
CREATE INDEX items_filters ON items USING gin (filters jsonb_path_ops);
CREATE TABLE history (          -- rows that were overwritten or removed, for views that were taken before
    LIKE items,
    ended bigint NOT NULL,      -- the change that did it
    moment timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX history_ended ON history (ended);
CREATE INDEX history_moment ON history (moment);
"""


def prepare(databases: Sequence[Database], *, readonly: bool) -> None:
    """Check the tables of every database; make them where there are none, unless `readonly`.

    Raises:
        NotFound: There is nothing, and `readonly`.
        ArtifactError: The schema is not a gallery, or of a newer release.
        ConfigError: Databases of several galleries, or not all of one in their order.
    """
    gallery = str(uuid.uuid4())
    for place, database in enumerate(databases):
        facts = {"version": str(VERSION), "gallery": gallery, "place": str(place), "databases": str(len(databases))}
        with database.errors(), database.open() as connection, connection.transaction():
            if not readonly:
                connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"lifelong {database.schema}",))
            about = _about(connection, database, facts, readonly=readonly)
            _check(database, about, facts, first=place == 0)
        gallery = about["gallery"]


def _about(connection: Connection, database: Database, facts: dict[str, str], *, readonly: bool) -> dict[str, str]:
    """Return what the schema says of itself, made if it was not there."""
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
    tables = {name for (name,) in connection.execute(query, (database.schema,))}
    if not tables:
        if readonly:
            raise NotFound(f"there is no gallery at {database.name}; let a writer create it first")
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(database.schema)))
        connection.execute(TABLES.encode())
        connection.cursor().executemany("INSERT INTO about VALUES (%s, %s)", list(facts.items()))
        return facts
    if "about" not in tables:
        raise ArtifactError(
            f"schema {database.schema!r} of {database.name} is not a gallery but holds other tables; "
            "choose another database"
        )
    return dict(connection.execute("SELECT key, value FROM about").fetchall())


def _check(database: Database, about: dict[str, str], facts: dict[str, str], *, first: bool) -> None:
    version = about.get("version", "")
    if not version.isdigit():
        raise ArtifactError(f"the tables of {database.name} are not those of a gallery; choose another database")
    if int(version) != VERSION:
        raise ArtifactError(
            f"gallery {database.name} has layout {version}, this release reads {VERSION}; update lifelong"
        )
    if (about["place"], about["databases"]) != (facts["place"], facts["databases"]):
        raise ConfigError(
            f"gallery {database.name} is number {int(about['place']) + 1} of {about['databases']} databases, got it "
            f"as number {int(facts['place']) + 1} of {facts['databases']}; give all, in the order of the first time"
        )
    if not first and about["gallery"] != facts["gallery"]:
        raise ConfigError(f"{database.name} belongs to another gallery than the databases before it")
