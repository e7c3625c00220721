"""What is made of a finished grid: tables for machines, a page for people, pictures; and how it looks on a terminal."""

from __future__ import annotations

import base64
import csv
import importlib.metadata
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from lifelong import files
from lifelong.adapters import sinks as outside
from lifelong.bench import tables as rows
from lifelong.bench.compare import differences
from lifelong.bench.job import safe
from lifelong.bench.metrics import METRICS
from lifelong.bench.spread import Spread
from lifelong.bench.store import Store
from lifelong.commands import tables
from lifelong.errors import ConfigError

SHOWN = ("acc_final", "acc_avg_incremental", "bwt_gem", "prequential", "majority", "no_change")


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
        mine = [row for row in standings if row["scenario"] == scenario]
        shown = [name for name in SHOWN if any(name in row["metrics"] for row in mine)]
        head = ["strategy", "seeds", *shown, "p", "TFLOP", "CPU s"]
        done = [r for r in mine if r["seeds"]]
        body = [[r["strategy"], r["seeds"], *(said(r["metrics"].get(n)) for n in shown), *_cost(r)] for r in done]
        tables.show(f"{scenario}, protocol: {mine[0]['protocol']}; mean ± sd over seeds", head, body)
        for row in mine:
            if row["note"]:
                tables.console.print(f"{row['strategy']}: {row['note']}")
            for kind in ("failed", "excluded"):
                if row[kind]:
                    tables.console.print(f"{kind}: {row['strategy']}, {row[kind]} seeds: {row['reason']}")


def compare(one: Path, other: Path, *, as_json: bool) -> bool:
    """Print which cells differ; return whether none does."""
    found = differences(Store(one), Store(other))
    if as_json:
        tables.emit({"identical": not found, "differences": found})
    elif found:
        body = [[row["cell"], row["what"], row["metric"], row["difference"]] for row in found]
        tables.show(f"{len(found)} cells differ", ["cell", "what", "metric", "difference"], body)
    else:
        tables.console.print("all cells are the same, bit for bit")
    return not found


def said(value: Spread | Sequence[float] | None) -> str:
    """Return `0.812 ± 0.010`, or nothing."""
    if value is None:
        return ""
    mean, sd = value[0], value[1]
    return f"{mean:.3f}" if math.isnan(sd) else f"{mean:.3f} ± {sd:.3f}"


def _cost(row: Mapping[str, Any]) -> list[object]:
    p = "" if math.isnan(row["p"]) else f"{row['p']:.3f}"
    return [p, f"{row['flops'].mean / 1e12:.3f}", f"{row['seconds'].mean:.1f}"]


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
        import jinja2

        from lifelong.commands import bench_figures
    except ImportError as error:
        raise ConfigError("a report needs Jinja2 and Matplotlib: pip install 'lifelong[bench]'") from error
    jobs = store.jobs()
    found = [result for job in jobs if (result := store.result(job))]
    pictures = {}
    for scenario in dict.fromkeys(row["scenario"] for row in standings):
        mine = [row for row in standings if row["scenario"] == scenario and row["seeds"]]
        for kind, png in bench_figures.draw(mine).items():
            files.write_atomic(store.folder / f"{safe(scenario)}-{kind}.png", png)
            pictures[scenario, kind] = base64.b64encode(png).decode()
    source = resources.files("lifelong").joinpath("assets/report.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    text = page.render(
        standings=standings,
        scenarios={name: _about(name, found, standings) for name in dict.fromkeys(r["scenario"] for r in standings)},
        pictures=pictures,
        shown=SHOWN,
        said=said,
        isnan=math.isnan,
        metrics=METRICS,
        versions={name: importlib.metadata.version(name) for name in ("lifelong", "torch", "numpy")},
        grid=store.grid()["about"],
        seeds=sorted({job.seed for job in jobs}),
    )
    files.write_atomic(store.folder / "report.html", text.encode())


def _about(scenario: str, found: Sequence[Mapping[str, Any]], standings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    signatures = [r["signature"] for r in found if r["job"]["scenario"] == scenario]
    jobs = [r["job"] for r in found if r["job"]["scenario"] == scenario]
    protocol = next(row["protocol"] for row in standings if row["scenario"] == scenario)
    return {"signature": signatures[0] if signatures else {}, "job": jobs[0] if jobs else {}, "protocol": protocol}


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON has no NaN
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if k not in ("seconds",)}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
