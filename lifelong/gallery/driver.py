"""What a gallery in PostgreSQL needs beside its own: psycopg, which is installed only where somebody asked for it."""

from __future__ import annotations

from types import ModuleType

from lifelong.errors import ConfigError


def parts() -> dict[str, ModuleType]:
    """Return, by name, the modules that import psycopg.

    Raises:
        ConfigError: It is not installed, or its library is missing.
    """
    try:
        from lifelong.gallery import hnsw, postgres, shards, statements, tables
    except ImportError as error:
        raise ConfigError(
            f"a gallery in PostgreSQL needs psycopg ({error}); install it: pip install 'lifelong[pgvector]'"
        ) from error
    return {"hnsw": hnsw, "postgres": postgres, "shards": shards, "statements": statements, "tables": tables}
