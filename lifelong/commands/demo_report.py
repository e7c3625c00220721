"""What the demo measures after the stream has ended, how it says it, and the picture it draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lifelong.client import Client
from lifelong.commands import tables
from lifelong.models import outputs
from lifelong.release.compat import mean_average_precision, recall_at_1
from lifelong.types import Batch


def search_quality(
    queries: Tensor, query_labels: Tensor, stored: Sequence[Tensor], stored_labels: Sequence[Tensor]
) -> dict[str, float]:
    """Return recall at 1 and mAP of `queries` `[N, D]` over rows that several versions wrote, all at once."""
    rows, labels = torch.cat([normalize(s, dim=1) for s in stored]), torch.cat(list(stored_labels))
    return {
        "recall_at_1": recall_at_1(queries, query_labels, rows, labels),
        "map": mean_average_precision(queries, query_labels, rows, labels),
    }


def searched(name: str, models: Sequence[Any], rows: Sequence[Batch], test: Batch) -> dict[str, dict[str, float]]:
    """Return how the newest model finds rows as they were stored, and as it would store them itself.

    Args:
        name: Of the models, for the answer.
        models: One for each version, oldest first.
        rows: What each version wrote.
        test: The queries.
    """
    queries = outputs(models[-1], test.x).features
    stored = [outputs(m, batch.x).features for m, batch in zip(models, rows, strict=False)]
    again = [outputs(models[-1], batch.x).features for batch in rows[: len(stored)]]
    labels = [batch.y for batch in rows[: len(stored)]]
    return {
        f"{name}_as_stored": search_quality(queries, test.y, stored, labels),
        f"{name}_re-embedded": search_quality(queries, test.y, again, labels),
    }


def by_version(models: Sequence[Any], rows: Sequence[Batch], test: Batch) -> dict[str, list[float]]:
    """Return recall at 1 of each version's queries over all rows of its time, on test images of the classes in them.

    Args:
        models: One for each version, oldest first.
        rows: What each version wrote.
        test: The queries.

    Returns:
        `as_stored`: each row as the version of its time wrote it; `re-embedded`: all rows by the version that asks.
    """
    stored = [outputs(m, batch.x).features for m, batch in zip(models, rows, strict=False)]
    found: dict[str, list[float]] = {"as_stored": [], "re-embedded": []}
    for t, model in enumerate(models[: len(rows)]):
        labels = [batch.y for batch in rows[: t + 1]]
        asked = test[torch.isin(test.y, torch.cat(labels))]
        queries = outputs(model, asked.x).features
        again = [outputs(model, batch.x).features for batch in rows[: t + 1]]
        for name, some in (("as_stored", stored[: t + 1]), ("re-embedded", again)):
            found[name].append(search_quality(queries, asked.y, some, labels)["recall_at_1"])
    return found


def found_over_http(client: Client, test: Batch, classes: Sequence[object]) -> dict[str, float]:
    """Return recall at 1 and at 10 of all `test` images over the live gallery, asked through the server."""
    first = right = 0
    for start in range(0, len(test), 100):
        wanted = [str(classes[c]) for c in test.y[start : start + 100].tolist()]
        for hits, label in zip(client.search(test.x[start : start + 100], k=10)["hits"], wanted, strict=True):
            found = [hit["payload"]["label"] for hit in hits]
            first, right = first + (found[:1] == [label]), right + (label in found)
    return {"recall_at_1": first / len(test), "recall_at_10": right / len(test)}


def updates(matrix: Tensor) -> list[dict[str, Any]]:
    """Return, for each update t -> t + 1, the old self-test, the cross-test, and whether the new one is above it."""
    return [
        {
            "from": t,
            "to": t + 1,
            "old_old": float(matrix[t - 1, t - 1]),
            "new_old": float(matrix[t, t - 1]),
            "above": bool(matrix[t, t - 1] > matrix[t - 1, t - 1]),
        }
        for t in range(1, len(matrix))
    ]


def picture(path: Path, result: Mapping[str, Any]) -> bool:
    """Draw accuracy, compatibility and search quality side by side; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    _accuracy(left, result["accuracy_matrix"])
    _compatibility(middle, result["updates"]["map"])
    _search(right, result["search"])
    counts = f"{result['requests']:,} requests, {result['failed']} failed, {result['mixed_version']} mixed"
    figure.suptitle(
        f"{result['versions']} versions swapped under load: {counts}; {result['reembedded']} rows re-embedded"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _accuracy(axes: Any, matrix: Sequence[Sequence[float]]) -> None:  # noqa: ANN401 - matplotlib is untyped
    size = len(matrix)
    axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    axes.set(title="Accuracy on experience j after learning i", xlabel="experience j", ylabel="after experience i")
    axes.set_xticks(range(size), range(1, size + 1))
    axes.set_yticks(range(size), range(1, size + 1))


def _compatibility(axes: Any, steps: Sequence[Mapping[str, Any]]) -> None:  # noqa: ANN401
    at = range(len(steps))
    axes.bar([i - 0.2 for i in at], [s["old_old"] for s in steps], 0.4, label="old queries, old rows", color="#9aa5b1")
    axes.bar([i + 0.2 for i in at], [s["new_old"] for s in steps], 0.4, label="new queries, old rows", color="#2a7f62")
    for i, step in enumerate(steps):
        axes.text(i + 0.2, step["new_old"], f"{step['new_old'] - step['old_old']:+.3f}", ha="center", va="bottom")
    axes.set_xticks(at, [f"v{s['from']} → v{s['to']}" for s in steps])
    axes.set(title="Search across each update (mAP, test images)", ylim=(0, 1.15))
    axes.legend(loc="lower left")


def _search(axes: Any, found: Mapping[str, Mapping[str, float]]) -> None:  # noqa: ANN401
    names = list(found)
    at = range(len(names))
    colours = ["#2a7f62", "#6fb59a", "#c0504d", "#d99694"]
    bars = axes.bar(at, [found[name]["recall_at_1"] for name in names], color=colours[: len(names)])
    axes.bar_label(bars, fmt="%.3f")
    axes.set_xticks(at, [name.replace("_", " ").replace(" as", "\nas").replace(" re", "\nre") for name in names])
    axes.set(title="Newest queries over rows of all versions (recall at 1)", ylim=(0, 1.1))


def tell(result: Mapping[str, Any], out: Path, drawn: bool) -> None:
    """Print what the demo saw, as tables."""
    tables.matrix(
        "Accuracy on experience j after learning i (test split)", result["accuracy_matrix"], "after", "", "exp "
    )
    shown = ("acc_final", "acc_avg_incremental", "bwt_gem", "forgetting_chaudhry")
    tables.show("Metrics", ["metric", "value"], [[name, result["metrics"][name]] for name in shown])
    rows = [[i + 1, tables.checks(report)] for i, report in enumerate(result["reports"])]
    tables.show("Versions and their gate reports", ["candidate", "gate"], rows)
    names = ("map", "recall_at_1")
    steps = [
        [f"v{a['from']} -> v{a['to']}", a["old_old"], a["new_old"], _mark(a), b["old_old"], b["new_old"], _mark(b)]
        for a, b in zip(*(result["updates"][name] for name in names), strict=True)
    ]
    head = ["update", "mAP old/old", "mAP new/old", "above", "R@1 old/old", "R@1 new/old", "above "]
    tables.show("Search across each update (test images, classes the old version knows)", head, steps)
    found = [[k.replace("_", ", "), v["recall_at_1"], v["map"]] for k, v in result["search"].items()]
    tables.show("Newest queries over the rows of all versions", ["rows", "recall at 1", "mAP"], found)
    facts = [
        ["requests sent while training and swapping", result["requests"]],
        ["requests failed", result["failed"]],
        ["answers that mixed versions", result["mixed_version"]],
        ["versions that answered", result["versions"]],
        ["gallery rows", result["gallery_rows"]],
        ["gallery rows re-embedded", result["reembedded"]],
        ["latency p50 / p99 (ms)", f"{result['p50_ms']:.1f} / {result['p99_ms']:.1f}"],
        [
            "recall at 1 / at 10 through the server",
            "{recall_at_1:.3f} / {recall_at_10:.3f}".format(**result["search_over_http"]),
        ],
        ["seconds", result["seconds"]],
    ]
    tables.show("The main job", ["what", "value"], facts)
    picture = f", {out / 'demo.png'}" if drawn else "; install lifelong[plot] for the picture"
    tables.console.print(f"wrote {out / 'demo.json'}{picture}")


def _mark(step: Mapping[str, Any]) -> str:
    return "yes" if step["above"] else "NO"
