"""Load for a server: `serving_load.py PORT CONNECTIONS SECONDS PATH TYPE BODYFILE STOPFILE`; one JSON line at the end.

One thread per connection with a request that is made once, so that little of the machine is spent here. Of every
answer the status is looked at, and of every fourth whether its parts are of one version.
"""

import json
import math
import socket
import sys
import threading
import time
from pathlib import Path


def told(answer: dict) -> int:
    """The version that the probabilities give away."""
    shares = {guess["label"]: guess["probability"] for guess in answer["predictions"][0]["top"]}
    return round(100 * math.log(shares["l0"] / shares["l1"]))


def read(connection: socket.socket, rest: bytes) -> tuple[int, bytes, bytes]:
    """Status, body, and what came after it."""
    while b"\r\n\r\n" not in rest:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed")
        rest += part
    head, _, rest = rest.partition(b"\r\n\r\n")
    size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(rest) < size:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("closed")
        rest += part
    return int(head.split(b" ", 2)[1]), rest[:size], rest[size:]


def work(port: int, request: bytes, stop: Path, until: float, out: dict) -> None:
    try:
        connection, rest = socket.create_connection(("127.0.0.1", port)), b""
    except OSError:  # nobody is there (yet)
        out["failed"] += 1
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while time.monotonic() < until and not (out["count"] % 16 == 0 and stop.exists()):
        begun = time.perf_counter()
        out["count"] += 1
        try:
            connection.sendall(request)
            status, body, rest = read(connection, rest)
        except (OSError, IndexError, ValueError):
            out["failed"] += 1
            connection, rest = socket.create_connection(("127.0.0.1", port)), b""
            continue
        out["seconds"].append(time.perf_counter() - begun)
        out["failed"] += status != 200
        if status == 200 and out["count"] % 4 == 0:
            answer = json.loads(body)
            out["mixed"] += answer["version"] != told(answer)
            out["seen"].add(answer["version"])


def main() -> None:
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    path, kind, body, stop = sys.argv[4], sys.argv[5], Path(sys.argv[6]).read_bytes(), Path(sys.argv[7])
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    outs = [{"count": 0, "failed": 0, "mixed": 0, "seconds": [], "seen": set()} for _ in range(connections)]
    begun, until = time.monotonic(), time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(port, head.encode() + body, stop, until, out)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = sorted(s for out in outs for s in out["seconds"])
    total = {key: sum(out[key] for out in outs) for key in ("count", "failed", "mixed")}
    total |= {"wall": time.monotonic() - begun, "versions": len(set.union(*(out["seen"] for out in outs)))}
    total |= {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)]} if took else {"p50": None, "p99": None}
    print(json.dumps(total))


main()
