"""How results look on a terminal, and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

console = Console(highlight=False)


def emit(value: object) -> None:
    """Print `value` as one line of JSON."""
    click.echo(json.dumps(value, sort_keys=True, default=str))


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are right-aligned, floats get three digits."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    listed = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in listed)
        table.add_column(name, justify="right" if listed and numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(_text(cell) for cell in row))
    console.print(table)


def matrix(title: str, values: Sequence[Sequence[float]], corner: str, rows: str, columns: str) -> None:
    """Print a matrix of shares; what was not measured stays empty."""
    width = max(len(row) for row in values)
    head = [corner, *(f"{columns}{j + 1}" for j in range(width))]
    show(title, head, [[f"{rows}{i + 1}", *row, *[math.nan] * (width - len(row))] for i, row in enumerate(values)])


def heat(title: str, values: Sequence[Sequence[float]], corner: str, rows: str, columns: str) -> None:
    """Print C, a triangular matrix, on a scale of greens; `!` marks C[t, k] that is not above C[k, k]."""
    every = [value for row in values for value in row]
    low, high = min(every), max(every)
    table = Table(title=Text(title, "bold"), title_justify="left", header_style="bold")
    for name in (corner, *(f"{columns}{k + 1}" for k in range(len(values)))):
        table.add_column(name, justify="right")
    for t, row in enumerate(values):
        cells = [Text(f"{rows}{t + 1}")]
        for k, value in enumerate(row):
            share = (value - low) / (high - low) if high > low else 1.0
            mark = "!" if k < t and value <= values[k][k] else " "
            green = f"rgb({int(230 - 180 * share)},{int(245 - 110 * share)},{int(230 - 150 * share)})"
            cells.append(Text(f"{value:.3f}{mark}", f"{'white' if share > 0.6 else 'black'} on {green}"))
        table.add_row(*cells)
    console.print(table)


def checks(report: Mapping[str, Any]) -> str:
    """Return a gate's report in a few words: which checks passed, and the failed ones in full."""
    found = report["checks"]
    passed = [c["name"] for c in found if c["passed"]]
    names = ", ".join(
        f"{name} x{passed.count(name)}" if passed.count(name) > 1 else name for name in dict.fromkeys(passed)
    )
    failed = "; ".join(c["detail"] for c in found if not c["passed"])
    level = "MAJOR, gives up old rows; " if report.get("level") == "major" else ""
    return f"{level}passed: {names}" + (f" | FAILED: {failed}" if failed else "")


def _text(cell: object) -> str:
    if isinstance(cell, float):
        return "" if math.isnan(cell) else f"{cell:.3f}"
    return str(cell)
