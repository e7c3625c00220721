"""The demo's second process: asks the server all the time, and checks that no answer mixes two versions.

Run as `python -m lifelong.commands.demo_load URL REGISTRY QUERIES OUT`; ends when `OUT.stop` appears.
Each answer names its version; what that version has to say is computed here from its snapshot, on its own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, final

import torch

from lifelong import files
from lifelong.client import Client
from lifelong.errors import LifelongError
from lifelong.models import outputs
from lifelong.release.registry import Registry

LEAST = 1200  # requests, however short the training was
PAUSE = 0.005  # seconds between two requests: a steady load that leaves the trainer its core
TOLERANCE = 1e-3


@final
class Witness:
    """Knows what each version must answer to a fixed set of queries.

    Args:
        registry: Where the versions are.
        queries: Inputs `[N, ...]`.
    """

    def __init__(self, registry: Registry, queries: torch.Tensor) -> None:
        self.registry, self.queries = registry, queries
        self._known: dict[int, tuple[list[str], torch.Tensor, str, frozenset[str]]] = {}

    def agrees(self, answer: dict[str, Any]) -> bool:
        """Return whether all of an answer to `predict` or `search` is of the version that it names."""
        labels, chances, space, reads = self._expected(answer["version"])
        if "predictions" not in answer:
            return answer["space"] == space and all(hit["space"] in reads for hits in answer["hits"] for hit in hits)
        said = answer["predictions"]
        close = all(abs(p["probability"] - float(c)) < TOLERANCE for p, c in zip(said, chances, strict=True))
        return close and [str(p["label"]) for p in said] == labels

    def _expected(self, version: int) -> tuple[list[str], torch.Tensor, str, frozenset[str]]:
        if version not in self._known:
            snapshot = self.registry.load(version)
            logits = outputs(snapshot.build(), self.queries).logits[:, : len(snapshot.labels)]
            best = logits.softmax(1).max(1)
            labels = [str(snapshot.labels[i]) for i in best.indices.tolist()]
            self._known[version] = (labels, best.values, snapshot.space.id, snapshot.space.reads)
        return self._known[version]


def run(url: str, registry: str, queries: str, out: str) -> None:
    """Send predict and search in turn until told to stop; write what came of it."""
    torch.set_num_threads(1)
    x = torch.load(queries, weights_only=True)
    witness, stop = Witness(Registry(registry), x), Path(f"{out}.stop")
    counts: dict[str, Any] = {"requests": 0, "failed": 0, "mixed_version": 0, "by_version": {}, "errors": []}
    took: list[float] = []
    with Client(url) as client:
        while not (stop.exists() and counts["requests"] >= LEAST):
            ask = client.search if counts["requests"] % 2 else client.predict
            begun = time.perf_counter()
            counts["requests"] += 1
            try:
                answer = ask(x)
            except LifelongError as error:
                counts["failed"] += 1
                counts["errors"] = [*counts["errors"], str(error)][:5]
            else:
                took.append(time.perf_counter() - begun)
                counts["mixed_version"] += not witness.agrees(answer)
                version = str(answer["version"])
                counts["by_version"][version] = counts["by_version"].get(version, 0) + 1
                if counts["requests"] == 2:
                    Path(f"{out}.started").touch()
            time.sleep(PAUSE)
    milliseconds = torch.tensor(took, dtype=torch.float64) * 1000
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        counts[name] = float(milliseconds.quantile(share)) if took else None
    files.write_atomic(Path(out), files.canonical_json(counts))


if __name__ == "__main__":
    run(*sys.argv[1:])
