"""Load from another process: `load.py PORT STOPFILE THREADS` sends requests until STOPFILE exists.

Prints one JSON line per request: what was asked, the status (0: no answer), and every version that the answer
gives away: in its body, its head, its probabilities, its vectors.
"""

from __future__ import annotations

import http.client
import json
import math
import sys
import threading
from pathlib import Path

X = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]


def told(path: str, answer: dict) -> list[int]:
    """The versions that the content of an answer gives away (see conftest.py)."""
    if path == "/v1/predict":
        tops = [{g["label"]: g["probability"] for g in p["top"]} for p in answer["predictions"]]
        return [round(100 * math.log(top["ant"] / top["bee"])) for top in tops]
    if path == "/v1/embed":
        return [round(vector[0]) for vector in answer["vectors"]]
    return []


def work(port: int, stop: Path, name: int, out: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    count = 0
    while not stop.exists():
        count += 1
        fresh = f"{name}-{count}"
        path, body = [
            ("/v1/predict", {"x": X, "top_k": 3}),
            ("/v1/embed", {"x": X}),
            ("/v1/predict", {"x": X, "top_k": 3}),
            ("/v1/search", {"x": X, "k": 3}),
            ("/v1/gallery/add", {"ids": [fresh], "x": X[:1]}),
        ][count % 5]
        line = {"path": path, "status": 0, "id": fresh if path.endswith("add") else None}
        try:
            connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            line["status"] = response.status
            if response.status == 200:
                head = int(response.headers["x-model-version"])
                line |= {"versions": [answer["version"], head, *told(path, answer)], "space": answer.get("space")}
            else:
                line["error"] = answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            line["error"] = repr(error)
            connection.close()
        out.append(json.dumps(line))


def main() -> None:
    port, stop, threads = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    out: list[str] = []
    workers = [threading.Thread(target=work, args=(port, stop, name, out)) for name in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("\n".join(out))


main()
