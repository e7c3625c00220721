"""Pictures of the page at /ui, of a server that answers questions about real images: a shadow, labels, a rollback.

    lifelong demo --out demo-run
    python benchmarks/dashboard.py --demo demo-run

The server works on a copy of what the demo published and stored; the picture shows what it then says of itself.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import figures
import torch

from lifelong.client import Client
from lifelong.commands import processes
from lifelong.data import load

sys.path.insert(0, str(figures.ROOT / "tests" / "support"))
from browser import Browser

IMAGES = figures.ROOT / "docs" / "images"
SHADOWED = 4  # beside version 5, which is live
BATCHES, SIZE = 40, 16


def traffic(client: Client) -> None:
    """Ask for real images, tell most of their labels, go back and forth, and let an older version answer along."""
    data = load("fashion-mnist-small")
    assert data.test is not None
    order = torch.randperm(len(data.test.y), generator=torch.Generator().manual_seed(0))
    client.admin("rollback", why="a look at the version before")
    settled(client, SHADOWED)
    for at in range(BATCHES):
        if at == BATCHES // 4:
            client.admin("promote", version=SHADOWED + 1, why="it is better")
            settled(client, SHADOWED + 1)
            client.admin("shadow", version=SHADOWED, share=1.0, why="how often do they agree?")
        some = order[at * SIZE : (at + 1) * SIZE]
        x, y = data.test.x[some], data.test.y[some].tolist()
        found = client.predict(x, remember=True)["predictions"]
        client.feedback({one["id"]: data.classes[label] for one, label in zip(found, y, strict=True)})
        client.search(x=x[:1], k=5)


def settled(client: Client, version: int) -> None:
    """Wait until a version answers: the picture is taken when each has its share of the labels."""
    while client.versions()["version"] != version:
        time.sleep(0.02)


def pictures(demo: Path, out: Path) -> None:
    """Serve a copy of a demo, use it, and take both pictures."""
    with tempfile.TemporaryDirectory() as folder:
        here, port = Path(folder), processes.free_port()
        for part in ("registry", "state"):
            shutil.copytree(demo / part, here / part)
        line = ["--registry", str(here / "registry"), "--state", str(here / "state"), "--port", str(port), "--insecure"]
        server = subprocess.Popen([sys.executable, "-m", "lifelong", "serve", *line])
        try:
            with Client(f"http://127.0.0.1:{port}", timeout=60, retries=5) as client:
                client.ready(120)
                traffic(client)
            for name, size in (("dashboard.png", (1280, 900)), ("dashboard-phone.png", (390, 844))):
                with Browser(*size, phone=size[0] < 500) as browser:
                    browser.open(f"http://127.0.0.1:{port}/ui")
                    browser.wait(f"document.getElementById('live').textContent === 'version {SHADOWED + 1} is live'")
                    browser.wait(f"document.body.innerText.includes('{BATCHES * SIZE // 4}')")
                    browser.picture(out / name)
                    print(out / name, *browser.complaints)
        finally:
            processes.end(server)


def main() -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="folder of a demo")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures")
    args = parser.parse_args()
    pictures(args.demo, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
