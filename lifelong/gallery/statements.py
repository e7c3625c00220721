"""What a gallery in PostgreSQL is asked, other than searches: rows written, removed and read by id or age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lifelong.gallery.base import Row
from lifelong.gallery.inputs import Floats
from lifelong.gallery.postgres import Connection
from lifelong.gallery.remote import Known, RemoteView
from lifelong.gallery.rows import ITEM, filters, row, scaled
from lifelong.gallery.shards import Change, Shards
from lifelong.types import Space

PAGE = 4096  # rows in one statement
END = f"""
WITH these AS (SELECT * FROM unnest(%s::text[], %s::bigint[]) AS t (name, ended)),
old AS (DELETE FROM items USING these WHERE id = name RETURNING items.*, these.ended),
kept AS (INSERT INTO history ({ITEM}, ended) SELECT {ITEM}, ended FROM old)
SELECT space FROM old
"""
PUT = f"""
INSERT INTO items ({ITEM})
SELECT name, seq, %s, payload, filters, scale, vec
FROM unnest(%s::text[], %s::bigint[], %s::json[], %s::jsonb[], %s::smallint[], %b)
    AS t (name, seq, payload, filters, scale, vec)
"""
COUNT = """
UPDATE spaces SET rows = rows + more FROM unnest(%s::int[], %s::bigint[]) AS t (which, more) WHERE number = which
"""
ROW = "id, seq, space, payload::text, scale, vec"
SEEN = "seq <= %(sequence)s"
STILL = f"{SEEN} AND ended > %(sequence)s"
GET = f"""
SELECT {ROW} FROM items WHERE id = ANY(%(ids)s) AND {SEEN}
UNION ALL SELECT {ROW} FROM history WHERE id = ANY(%(ids)s) AND {STILL}
"""
ROWS = f"""
SELECT * FROM ((SELECT {ROW} FROM items WHERE seq > %(after)s AND {SEEN} ORDER BY seq LIMIT %(limit)s)
UNION ALL (SELECT {ROW} FROM history WHERE seq > %(after)s AND {STILL} ORDER BY seq LIMIT %(limit)s)) AS r
ORDER BY seq LIMIT %(limit)s
"""
NEWEST = """
SELECT sequence, s.id, s.number, s.dim, s.family, s.rows, s.indexed FROM state LEFT JOIN spaces AS s ON true
"""


def written(
    change: Change, shards: Shards, names: list[str], vectors: Floats, space: Space, texts: Sequence[str]
) -> int:
    """Store rows, in place of earlier ones of their ids; return the number of the last one.

    Raises:
        DataError: A vector cannot be stored.
        SpaceError: The space is known with another width or family.
    """
    number = change.space(space)
    array, powers = scaled(vectors)
    more = Counter({number: len(names)})
    for place, where in shards.places(names).items():
        connection = change.at(place)
        for start in range(0, len(where), PAGE):
            some = where[start : start + PAGE]
            these, seqs = [names[i] for i in some], [change.first + i for i in some]
            more.subtract(old for (old,) in connection.execute(END, (these, seqs)))
            several = [texts[i] for i in some], [filters(texts[i]) for i in some], powers[some].tolist()
            connection.execute(PUT, (number, these, seqs, *several, list(array[some])))
    change.lead.execute(COUNT, (list(more.keys()), list(more.values())))
    return change.first + len(names) - 1


def removed(change: Change, shards: Shards, names: list[str]) -> int:
    """Remove rows and return how many were there; each has a number of its own, from the first of the change on."""
    there = numbers(change, shards, names)
    gone = [name for name in names if name in there]
    more: Counter[int] = Counter()
    for place, where in shards.places(gone).items():
        for start in range(0, len(where), PAGE):
            some = where[start : start + PAGE]
            values = [gone[i] for i in some], [change.first + i for i in some]
            more.subtract(old for (old,) in change.at(place).execute(END, values))
    if gone:
        change.lead.execute(COUNT, (list(more.keys()), list(more.values())))
    return len(gone)


def numbers(change: Change, shards: Shards, names: list[str]) -> dict[str, int]:
    """Return the number of the row of each id that is there."""
    query = "SELECT id, seq FROM items WHERE id = ANY(%s)"
    found: dict[str, int] = {}
    for place, where in shards.places(names).items():
        found |= dict(change.connections[place].execute(query, ([names[i] for i in where],)).fetchall())
    return found


def moved(change: Change, source: str, position: int) -> None:
    """Note how far a stream is in the gallery."""
    query = "INSERT INTO offsets VALUES (%s, %s) ON CONFLICT (source) DO UPDATE SET position = excluded.position"
    change.lead.execute(query, (source, position))


def newest(shards: Shards) -> RemoteView:
    """Return the gallery as it is now."""
    found = shards.lead.read(lambda connection: connection.execute(NEWEST).fetchall())
    known = {name: Known(*rest) for _, name, *rest in found if name is not None}
    return RemoteView(shards, found[0][0], known)


def got(view: RemoteView, names: list[str]) -> list[Row]:
    """Return the rows of those ids that are there."""
    places = view.shards.places(names)

    def run(place: int, connection: Connection) -> list[Row]:
        return _rows(view, connection, GET, {"ids": [names[i] for i in places[place]]})

    found = [one for rows in view.shards.each(run, list(places)) for one in rows]
    view.still()
    return found


def paged(view: RemoteView, after: int, limit: int) -> list[Row]:
    """Return up to `limit` rows above a number, oldest first."""
    values = {"after": after, "limit": limit}
    found = [one for rows in view.shards.each(lambda _, c: _rows(view, c, ROWS, values)) for one in rows]
    view.still()
    return sorted(found, key=lambda one: one.seq)[:limit]


def _rows(view: RemoteView, connection: Connection, query: str, values: Mapping[str, object]) -> list[Row]:
    names = {space.number: name for name, space in view.known.items()}
    with connection.cursor(binary=True) as cursor:
        found = cursor.execute(query.encode(), {**values, "sequence": view.sequence}).fetchall()
    return [row((name, seq, names[number], *rest)) for name, seq, number, *rest in found]
