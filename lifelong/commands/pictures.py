"""Pictures of compatibility: the matrix, search quality over versions, and what re-embedding would have cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lifelong.errors import ConfigError

Series = Mapping[str, Sequence[float]]
GREEN, RED, GREY = "#2a7f62", "#c0504d", "#9aa5b1"
LINES = ((GREEN, "-"), ("black", ":"), (GREY, "-"), (RED, "-"))


def matrix(path: Path, values: Sequence[Sequence[float]], title: str) -> None:
    """Draw C as a heat map; a cross-test that does not beat the old self-test is framed.

    Args:
        path: PNG file.
        values: Row t holds C[t, 0..t].
        title: Of the picture.

    Raises:
        ConfigError: matplotlib is not installed.
    """

    def draw(axes: Any) -> None:  # noqa: ANN401 - matplotlib is untyped
        size = len(values)
        grid = [[*row, *[float("nan")] * (size - len(row))] for row in values]
        shown = axes.imshow(grid, cmap="YlGn")
        low, high = shown.get_clim()
        for t, row in enumerate(values):
            for k, value in enumerate(row):
                dark = value > low + 0.6 * (high - low)
                axes.text(k, t, f"{value:.3f}", ha="center", va="center", color="white" if dark else "black")
                if k < t and value <= values[k][k]:
                    axes.add_patch(_frame(k, t))
        axes.set(title=title, xlabel="rows written by version k", ylabel="queries of version t")
        axes.set_xticks(range(size), [f"v{i + 1}" for i in range(size)])
        axes.set_yticks(range(size), [f"v{i + 1}" for i in range(size)])
        for side in axes.spines.values():
            side.set_visible(False)

    _saved(path, draw, (1.9 + 0.85 * len(values), 1.5 + 0.72 * len(values)))


def over_versions(path: Path, series: Series, title: str, ylabel: str) -> None:
    """Draw one line for each way of updating, over the versions; raises like `matrix`."""

    def draw(axes: Any) -> None:  # noqa: ANN401
        for (name, values), (colour, style) in zip(series.items(), LINES, strict=False):
            at = range(1, len(values) + 1)
            axes.plot(at, values, style, marker="o", color=colour, label=name, linewidth=2)
            axes.annotate(f"{values[-1]:.2f}", (at[-1], values[-1]), (8, 0), textcoords="offset points", va="center")
        most = max(map(len, series.values()))
        axes.set(title=title, xlabel="live version", ylabel=ylabel, ylim=(0, 1.02), xlim=(0.8, most + 0.35))
        axes.set_xticks(range(1, most + 1), [f"v{i}" for i in range(1, most + 1)])
        axes.grid(axis="y", color="#e4e7eb")
        axes.legend(loc="lower left", frameon=False)

    _saved(path, draw, (7.2, 4.2))


def backfill(path: Path, sizes: Sequence[int], swap: Sequence[float], encode: float, title: str) -> None:
    """Draw the seconds of a swap beside those of embedding every row again, by rows in the gallery; raises likewise.

    Args:
        path: PNG file.
        sizes: Rows.
        swap: Seconds of a swap, measured at each size.
        encode: Seconds that embedding one row takes.
        title: Of the picture.
    """

    def draw(axes: Any) -> None:  # noqa: ANN401
        at, again = range(len(sizes)), [rows * encode for rows in sizes]
        for shift, seconds, name, colour in (
            (-0.2, again, "embedding every row again", RED),
            (0.2, swap, "swap", GREEN),
        ):
            bars = axes.bar([i + shift for i in at], seconds, 0.4, label=name, color=colour)
            axes.bar_label(bars, [_seconds(s) for s in seconds], padding=2)
        axes.set_yscale("log")
        axes.set_ylim(min(swap) / 3, max(again) * 6)
        axes.set_xticks(at, [f"{rows:,} rows" for rows in sizes])
        axes.set(title=title, ylabel="seconds (logarithmic)")
        axes.legend(loc="upper left", frameon=False)

    _saved(path, draw, (7.2, 4.2))


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{value / 60:.0f} min"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _frame(column: int, row: int) -> Any:  # noqa: ANN401
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=RED, linewidth=2)


def _saved(path: Path, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError("pictures need matplotlib, which is not installed: pip install 'lifelong[plot]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=size, layout="constrained")
    draw(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
