"""`lifelong demo`: the main job, end to end, on real images, with real processes.

One process trains and publishes, one serves, one asks all the time. Rows are written to the gallery by the version
that is live when they arrive, and never touched again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, final

import torch

from lifelong import files
from lifelong.bench import metrics
from lifelong.client import Answer, Client
from lifelong.commands import demo_report, tables
from lifelong.commands.compat import cross
from lifelong.commands.processes import end, free_port, wait
from lifelong.commands.serve import command, environment
from lifelong.commands.train import bar
from lifelong.compose import model_spec, strategy
from lifelong.daemon import Trainer
from lifelong.data import DataSet, load
from lifelong.errors import ConfigError, LifelongError, Unavailable
from lifelong.gallery.embedded import FILE
from lifelong.learning import Learner, Optim
from lifelong.models import build
from lifelong.plan import Plan, Progress
from lifelong.release.registry import Registry
from lifelong.streams.scenarios import class_incremental, validation
from lifelong.types import Batch

EXPERIENCES, EPOCHS, HELD_OUT = 5, 4, 0.2
REHEARSAL = ["replay.capacity=2000", "replay.ratio=3", 'replay.policy="balanced"']
OPTIM = Optim(lr=0.1)
ROWS_PER_CLASS, QUERIES = 100, 2


def run(*, out: Path, port: int, data_root: Path | None, seed: int, as_json: bool) -> None:
    """Run it; exits with 1 if a request failed or an answer mixed versions."""
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; the demo starts anew: name another folder with --out, or delete it")
    torch.set_num_threads(1)
    started = time.monotonic()
    data = load("fashion-mnist-small" if data_root is None else "fashion-mnist", root=data_root)
    tables.console.print(f"data: {data.source}, {data.counts}, sha256 {data.sha256[:12]}")
    show = Demo(out, data, seed, port or free_port())
    result = show.run()
    result["seconds"] = round(time.monotonic() - started, 1)
    drawn = demo_report.picture(out / "demo.png", result)
    files.write_atomic(out / "demo.json", files.canonical_json(result))
    if as_json:
        tables.emit(result)
    else:
        demo_report.tell(result, out, drawn)
    if result["failed"] or result["mixed_version"]:
        sys.exit(1)


@final
class Demo:
    """The whole job in one folder.

    Args:
        out: Folder; becomes `registry/`, `state/`, `run/`, `demo.json` and `demo.png`.
        data: Images with a test split.
        seed: Of everything drawn.
        port: Of the server, on loopback.
    """

    def __init__(self, out: Path, data: DataSet, seed: int, port: int) -> None:
        self.out, self.data, self.seed, self.url = out, data, seed, f"http://127.0.0.1:{port}"
        self.port, self.stream = port, class_incremental(data, EXPERIENCES)
        self.kept = validation(self.stream, HELD_OUT, seed=seed)
        self.rows: list[Batch] = []  # what was written to the gallery, by experience
        self.written: dict[str, str] = {}  # id -> sha256 of space and vector, as first read back

    def run(self) -> dict[str, Any]:
        """Return everything that was seen."""
        registry = Registry(self.out / "registry", create=True)
        with ExitStack() as stack:
            server = self._server()
            stack.callback(end, server)
            client = stack.enter_context(Client(self.url, timeout=30))
            load: list[subprocess.Popen[bytes]] = []
            stack.callback(lambda: end(*load))
            progress = self._train(registry, client, load, server)
            traffic = self._traffic(load[0])
            searched = demo_report.found_over_http(client, self._test(), self.data.classes)
            rejected = client.versions()["rejected"]
        return self._result(registry, progress, traffic, searched, rejected)

    def _train(
        self, registry: Registry, client: Client, load: list[subprocess.Popen[bytes]], server: subprocess.Popen[bytes]
    ) -> Progress:
        with bar() as display:
            task = display.add_task("experiences", total=EXPERIENCES, facts="starting the server")

            def tell(kind: str, facts: Mapping[str, Any]) -> None:
                if kind == "step" and facts["steps"] % 10 == 0:
                    display.update(task, facts=f"step {facts['steps']}, rehearsed {facts['rehearsed']}")
                elif kind == "published":
                    self._went_live(client, facts["version"], server)
                    self._write_rows(client, facts["experience"])
                    if not load:
                        load.append(self._load())
                        wait(lambda: (self.out / "traffic.json.started").exists(), load[0], self.out / "load.log")
                    display.update(task, completed=facts["experience"] + 1)
                    display.console.print(f"version {facts['version']} is live; gate {tables.checks(facts['report'])}")
                elif kind == "refused":
                    display.console.print(f"refused: {tables.checks(facts['report'])}")

            learner = self._learner("replay+simplex")
            plan = Plan(epochs=EPOCHS, held_out=HELD_OUT, seed=self.seed)
            about = {"strategy": "replay+simplex", "settings": REHEARSAL, "seed": self.seed}
            return Trainer(
                learner, self.stream, self.out / "run", registry=registry, plan=plan, notify=tell, about=about
            ).run()

    def _learner(self, name: str) -> Learner:
        spec = model_spec("mlp", self.data.train.x.shape[1:], "simplex")  # the plain model is as wide
        return Learner(
            build(spec, seed=self.seed), strategy(name, REHEARSAL), optim=OPTIM, seed=self.seed, setting=self.stream
        )

    def _server(self) -> subprocess.Popen[bytes]:
        state = self.out / "state"
        state.mkdir(parents=True)
        base = {key: value for key, value in os.environ.items() if key != "LIFELONG_GALLERY"}  # it reads the folder
        told = environment(self.out / "registry", state, base, insecure=True)  # on loopback, for two minutes
        with (self.out / "server.log").open("wb") as log:
            return subprocess.Popen(
                command("127.0.0.1", self.port), env=told, stdout=log, stderr=log, start_new_session=True
            )

    def _load(self) -> subprocess.Popen[bytes]:
        test = self._test()
        torch.save(test.x[torch.linspace(0, len(test) - 1, QUERIES).long()], self.out / "queries.pt")
        line = [sys.executable, "-m", "lifelong.commands.demo_load", self.url, str(self.out / "registry")]
        with (self.out / "load.log").open("wb") as log:
            return subprocess.Popen(
                [*line, str(self.out / "queries.pt"), str(self.out / "traffic.json")], stdout=log, stderr=log
            )

    def _went_live(self, client: Client, version: int, server: subprocess.Popen[bytes]) -> None:
        def live() -> bool:
            try:
                return bool(client.versions()["version"] == version)
            except LifelongError:  # it is still starting
                client.close()
                return False

        wait(live, server, self.out / "server.log")

    def _write_rows(self, client: Client, index: int) -> None:
        kept = self.kept[index].train
        assert isinstance(kept, Batch)
        rows = torch.cat([(kept.y == c).nonzero().flatten()[:ROWS_PER_CLASS] for c in kept.y.unique()])
        batch = kept.take(rows)
        self.rows.append(batch)
        for part in (batch[i : i + 50] for i in range(0, len(batch), 50)):
            payload = [{"label": str(self.data.classes[c])} for c in part.y.tolist()]
            client.add(part.ids.tolist(), part.x, payload)
        self.written.update({k: v for k, v in self._stored().items() if k not in self.written})

    def _stored(self) -> dict[str, str]:
        """Return the sha256 of space and vector of every row of the gallery's database, read from outside."""
        base = self.out / "state" / "gallery" / FILE
        with closing(sqlite3.connect(f"{base.absolute().as_uri()}?mode=ro", uri=True)) as reader:
            rows = reader.execute("SELECT id, space, vector FROM items WHERE vector IS NOT NULL").fetchall()
        return {name: hashlib.sha256(space.encode() + vector).hexdigest() for name, space, vector in rows}

    def _traffic(self, load: subprocess.Popen[bytes]) -> Answer:
        """Let the load run for a moment more, then stop it and read what it saw."""
        time.sleep(2)
        (self.out / "traffic.json.stop").touch()
        try:
            load.wait(120)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"the load does not stop; see {self.out / 'load.log'}") from error
        report = self.out / "traffic.json"
        if load.returncode or not report.exists():
            raise Unavailable(f"the load ended with exit code {load.returncode}; see {self.out / 'load.log'}")
        found: Answer = files.parse_json(files.read_file(report))
        return found

    def _test(self) -> Batch:
        assert self.data.test is not None
        return self.data.test

    def _result(
        self, registry: Registry, progress: Progress, traffic: Answer, searched: dict[str, float], rejected: object
    ) -> dict[str, Any]:
        snapshots = [registry.load(version) for version in registry.versions()]
        now = self._stored()
        changed = sum(now.get(key) != value for key, value in self.written.items())
        test = self._test()
        matrices = {m: cross(snapshots, test, self.data.classes, m) for m in ("map", "recall_at_1")}
        models, plain = [snapshot.build() for snapshot in snapshots], self._plain_models()
        over = {
            name: demo_report.by_version(m, self.rows, test) for name, m in (("compatible", models), ("plain", plain))
        }
        return {
            "requests": traffic["requests"],
            "failed": traffic["failed"],
            "mixed_version": traffic["mixed_version"],
            "reembedded": changed,
            "versions": len(traffic["by_version"]),
            "requests_by_version": traffic["by_version"],
            "p50_ms": traffic["p50_ms"],
            "p99_ms": traffic["p99_ms"],
            "gallery_rows": len(now),
            "refused": [v for v in progress.versions if v["version"] is None],
            "rejected_by_server": rejected,
            "reports": [v["report"] for v in progress.versions],
            "accuracy_matrix": progress.matrix,
            "metrics": metrics.summary(progress.matrix),
            "cross_version": {m: [[v for v in row if v == v] for row in c.tolist()] for m, c in matrices.items()},
            "updates": {m: demo_report.updates(c) for m, c in matrices.items()},
            "search_over_http": searched,
            "search": {
                **demo_report.searched("compatible", models, self.rows, test),
                **demo_report.searched("plain", plain, self.rows, test),
            },
            "search_by_version": over,
            "data": self.data.facts(),
            "seed": self.seed,
        }

    def _plain_models(self) -> list[Any]:
        """Train the same model with the same rehearsal and an ordinary head; return it after each experience."""
        learner, models = self._learner("replay"), []
        for experience in self.kept:
            learner.fit(experience, EPOCHS)
            models.append(build(learner.model.spec()).eval())
            models[-1].load_state_dict({k: v.clone() for k, v in learner.model.state_dict().items()})
        return models
