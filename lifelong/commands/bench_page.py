"""The page of a grid's report: one file that fetches nothing, every table names its protocol."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from lifelong import files
from lifelong.bench.job import safe
from lifelong.bench.metrics import METRICS
from lifelong.bench.spread import chance, said
from lifelong.bench.store import Store
from lifelong.bench.tables import SHOWN, ran_on
from lifelong.commands import bench_figures

COMMON = ("model", "model_settings", "epochs", "batch_size", "optimizer", "momentum", "flops", "rehearsals", "memory")
ONLINE = {
    "prequential": "share of samples predicted right before they were learned",
    "majority": "the same for who always says the most frequent label so far",
    "no_change": "the same for who always says the label before",
}
OTHERS = {
    "p": "chance of so large a difference from the best strategy if there were none; paired over seeds, corrected for "
    "all pairs of strategies, since the best is known from the same runs; nothing where the difference is the same at "
    "every seed, for then nothing was drawn and the seeds are one run",
    "TFLOP": "counted operations of learning, in 10^12",
    "rehearsed": "remembered samples that were learned again",
    "state, MB": "weights, and what the strategy keeps",
    "CPU s": "processor time of a cell, with its evaluations",
}


def write(store: Store, standings: Sequence[Mapping[str, Any]]) -> None:
    """Write `report.html` and its pictures into the folder of `store`."""
    source = resources.files("lifelong").joinpath("assets/report.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    jobs = store.jobs()
    scenarios = [_scenario(store, name, standings) for name in dict.fromkeys(row["scenario"] for row in standings)]
    shown = [name for name in SHOWN if any(name in one["metrics"] for one in scenarios)]
    text = page.render(
        scenarios=scenarios,
        ended=_ended(standings, len(jobs)),
        seeds=sorted({job.seed for job in jobs}),
        asked=store.grid()["about"].get("trials"),
        names={name: _meaning(name) for name in shown} | OTHERS,
        versions=ran_on(store),
        said=said,
        chance=chance,
        shade=shade,
        isnan=math.isnan,
    )
    files.write_atomic(store.folder / "report.html", text.encode())


def shade(share: float) -> str:
    """Return the colours of a cell: white for 0, dark blue for 1, told apart by lightness alone."""
    return f"background: hsl(212 70% {97 - 57 * share:.0f}%); color: {'#fff' if share > 0.6 else '#1a202c'}"


def _scenario(store: Store, name: str, standings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mine = [row for row in standings if row["scenario"] == name]
    done = [row for row in mine if row["seeds"]]
    results = [result for job in store.jobs() if job.scenario == name and (result := store.result(job))]
    pictures = {}
    for kind, png in bench_figures.draw(done).items():
        files.write_atomic(store.folder / f"{safe(name)}-{kind}.png", png)
        pictures[kind] = base64.b64encode(png).decode()
    searched = {data["sha256"]: data for row in done if (data := row["tuned"].get("data"))}
    return {
        "name": name,
        "protocol": mine[0]["protocol"],
        "done": done,
        "without": [one for row in mine for one in _without(row)],
        "metrics": [metric for metric in SHOWN if any(metric in row["metrics"] for row in done)],
        "pictures": pictures,
        "common": {key: value for key in COMMON if (value := results[0]["job"].get(key))} if results else {},
        "searched": list(searched.values()),
        "signature": _signature(results) if results else {},
        "leaks": (store.grid()["about"].get("leaks") or {}).get(name, {}),
    }


def _signature(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the signature that all `results` share; what the seed draws, such as an order of classes, is only said."""
    first, *others = [result["signature"] for result in results]
    same = {key: all(other["options"].get(key) == value for other in others) for key, value in first["options"].items()}
    told = {key: value if same[key] else "another for each seed" for key, value in first["options"].items()}
    return {**first, "options": told}


def _without(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what of a strategy gave no result: how, how many seeds, and why."""
    ways = [{"strategy": row["strategy"], "how": how, "count": row[how], "reason": row["reason"]}
            for how in ("failed", "excluded") if row[how]]  # fmt: skip
    if row["missing"]:
        ways.append({"strategy": row["strategy"], "how": "not run yet", "count": row["missing"], "reason": ""})
    return ways


def _ended(standings: Sequence[Mapping[str, Any]], total: int) -> list[str]:
    ways = {"finished": "seeds", "failed": "failed", "excluded": "excluded", "not run yet": "missing"}
    counts = {said: sum(row[key] for row in standings) for said, key in ways.items()}
    return [f"{total} cells", *(f"{count} {said}" for said, count in counts.items() if count)]


def _meaning(name: str) -> str:
    return ONLINE[name] if name in ONLINE else f"{METRICS[name].definition} ({METRICS[name].citation})"
