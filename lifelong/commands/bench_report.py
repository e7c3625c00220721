"""What is made of a finished grid: tables for machines, a page for people, pictures; and how it looks on a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lifelong import files
from lifelong.adapters import sinks as outside
from lifelong.bench import tables as rows
from lifelong.bench.compare import differences, finished, versions
from lifelong.bench.spread import chance, said
from lifelong.bench.store import Store
from lifelong.commands import tables
from lifelong.errors import ConfigError


def write(store: Store, sinks: Sequence[str] = ()) -> None:
    """Write `results.json`, `results.csv`, `results.parquet` (where pyarrow is there), `report.html` and pictures.

    Args:
        store: Of the grid.
        sinks: Where else to write its cells, see `lifelong.adapters.sinks.send`.
    """
    cells, standings = rows.cells(store), rows.standings(store)
    body = _plain({"cells": cells, "standings": standings})
    files.write_atomic(store.folder / "results.json", files.canonical_json(body))
    files.write_atomic(store.folder / "results.csv", _csv(cells))
    _parquet(store.folder / "results.parquet", cells)
    _page(store, standings)
    for where in sinks:
        outside.send(store, where)


def refuse(sinks: Sequence[str]) -> None:
    """Refuse what is no sink before anything is run."""
    for where in sinks:
        outside.parted(where)


def report(folder: Path, sinks: Sequence[str] = ()) -> None:
    """Write the report of the grid in `folder` anew."""
    refuse(sinks)
    write(Store(folder), sinks)
    tables.console.print(f"written: {folder / 'report.html'}")


def show(folder: Path, *, as_json: bool) -> None:
    """Print how strategies compare, scenario by scenario."""
    standings = rows.standings(Store(folder))
    if as_json:
        for row in standings:
            tables.emit(_plain({**row, "metrics": {n: v._asdict() for n, v in row["metrics"].items()}}))
        return
    for scenario in dict.fromkeys(row["scenario"] for row in standings):
        _show(scenario, [row for row in standings if row["scenario"] == scenario])
    if left := sum(row["missing"] for row in standings):
        tables.console.print(f"{left} cells have not been run yet; the same lifelong bench run goes on with them")


def _show(scenario: str, mine: Sequence[Mapping[str, Any]]) -> None:
    done = [row for row in mine if row["seeds"]]
    shown = [name for name in rows.SHOWN if any(name in row["metrics"] for row in done)]
    if done:
        most = max(row["seeds"] for row in done)
        title = f"{scenario}, protocol: {mine[0]['protocol']}; mean ± sd of {most} seeds"
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("strategy")
        for name in shown:
            table.add_column(name.replace("_inc", "\n_inc"), justify="right")
        for name in ("p", "TFLOP", "CPU s"):
            table.add_column(name, justify="right")
        for row in done:
            name = row["strategy"] if row["seeds"] == most else f"{row['strategy']}*"
            spreads = [said(row["metrics"].get(metric)).replace(" ± 0.", " ±.") for metric in shown]
            table.add_row(name, *spreads, *_cost(row))
        tables.console.print(table)
    for row in mine:
        if done and 0 < row["seeds"] < most:
            tables.console.print(f"* {row['strategy']}: {row['seeds']} seeds")
        if row["note"]:
            tables.console.print(f"{scenario}: {row['strategy']}: {row['note']}")
        for kind in ("failed", "excluded"):
            if row[kind]:
                tables.console.print(f"{scenario}: {row['strategy']} {kind}, {row[kind]} seeds: {row['reason']}")


def compare(one: Path, other: Path, *, as_json: bool) -> bool:
    """Print which cells differ; return whether none does and at least one could."""
    ours, theirs = Store(one), Store(other)
    found, count = differences(ours, theirs), finished(ours, theirs)
    same = not found and count > 0
    if as_json:
        tables.emit({"identical": same, "compared": count, "differences": found})
    elif found:
        tables.console.print(
            f"{len(found)} cells differ, {count} are finished in both; differences are {other} - {one}"
        )
        for row in found:
            most = f"; most in {row['metric']}: {row['difference']:+.3g}" if row["metric"] else ""
            tables.console.print(f"{row['cell']}: {row['what']}{most}", soft_wrap=True)
        for name, (before, after) in versions(ours, theirs).items():
            tables.console.print(f"{name}: {before} in {one}, {after} in {other}", soft_wrap=True)
    elif same:
        tables.console.print(f"{count} cells, all the same, bit for bit")
    else:
        tables.console.print(f"no cell is finished in both {one} and {other}: nothing was compared", soft_wrap=True)
    return same


def _cost(row: Mapping[str, Any]) -> list[str]:
    return [chance(row["p"]), f"{row['flops'].mean / 1e12:.3f}", f"{row['seconds'].mean:.1f}"]


def _csv(cells: Sequence[Mapping[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in cells for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue().encode()


def _parquet(path: Path, cells: Sequence[Mapping[str, Any]]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return
    names = list(dict.fromkeys(name for row in cells for name in row))
    table = pyarrow.table({name: [row.get(name) for row in cells] for name in names})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    files.write_atomic(path, buffer.getvalue())


def _page(store: Store, standings: Sequence[Mapping[str, Any]]) -> None:
    try:
        from lifelong.commands import bench_page
    except ModuleNotFoundError as error:
        raise ConfigError("a report needs Jinja2 and Matplotlib: pip install 'lifelong[bench]'") from error
    bench_page.write(store, standings)


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON has no NaN
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if k not in ("seconds",)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
