"""The pictures of a grid's report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

STYLES = ["-", "--", "-.", ":"]


def draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return PNG bytes by kind for the finished rows of one scenario: `stream` and `cost`."""
    if not rows:
        return {}
    return {"stream": _picture(_stream, rows), "cost": _picture(_cost, rows)}


def _picture(plot: Any, rows: Sequence[Mapping[str, Any]]) -> bytes:  # noqa: ANN401 - a function of axes and rows
    figure, axes = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
    try:
        plot(axes, rows)
        figure.suptitle(f"{rows[0]['scenario']}, protocol: {rows[0]['protocol']}", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=180, metadata={"Software": None})
    finally:
        plt.close(figure)
    return buffer.getvalue()


def _stream(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    colours = plt.get_cmap("tab20")
    for number, row in enumerate(rows):
        if row["matrix"] is not None:
            values: Sequence[float] = [sum(line[: i + 1]) / (i + 1) for i, line in enumerate(row["matrix"])]
            x: Sequence[float] = range(1, len(values) + 1)
        else:
            x, values = zip(*row["curve"], strict=True)
        style = {"color": colours(number % 20), "linestyle": STYLES[number % 4], "label": row["strategy"]}
        axes.plot(x, values, marker="o" if len(values) < 20 else None, markersize=3, **style)
    by_samples = rows[0]["matrix"] is None
    axes.set_xlabel("samples" if by_samples else "experiences learned")
    axes.set_ylabel("accuracy, predicted then learned" if by_samples else "mean accuracy on those seen so far")
    axes.set_ylim(0, 1)
    if not by_samples:
        axes.set_xticks(range(1, len(rows[0]["matrix"]) + 1))
    columns = min(4, len(rows))
    axes.figure.legend(loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _cost(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    counted = [row["flops"].mean for row in rows if row["flops"].mean > 0]
    least = min(counted, default=1.0) / 4  # where those stand of whose work nothing is counted
    points = [(row["flops"].mean or least, 1 - row["metrics"][row["leading"]].mean, row) for row in rows]
    points.sort(key=lambda point: (point[0], point[1]))
    best, front = float("inf"), []
    for flops, error, row in points:
        spread = row["metrics"][row["leading"]]
        bar = None if spread.sd != spread.sd else spread.sd
        axes.errorbar(flops, error, yerr=bar, fmt="o", markersize=5, capsize=2, color="#2b6cb0")
        name = row["strategy"] if row["flops"].mean else f"{row['strategy']} (nothing counted)"
        axes.annotate(name, (flops, error), xytext=(5, 4), textcoords="offset points", fontsize=8)
        if error < best:
            best = error
            front.append((flops, error))
    axes.step(
        *zip(*front, strict=True), where="post", color="#c05621", linewidth=1, label="no other is better and cheaper"
    )
    axes.set_xscale("log")
    near = max((p[0] for p in points), default=1.0) < 30 * points[0][0]
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if near else (1.0,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.16, y=0.08)
    axes.set_xlabel("floating-point operations of learning")
    axes.set_ylabel("error at the end (± sd over seeds)")
    axes.figure.legend(loc="outside lower center", fontsize=8, frameon=False)
