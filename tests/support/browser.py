"""A headless Chromium, driven over its debugging protocol: open a page, evaluate, press keys, take a picture."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
)


class Browser:
    """One tab.

    Args:
        width: Of the window, in CSS pixels.
        height: Likewise.
        phone: Behave as a phone does (scale 2, touch).
    """

    def __init__(self, width: int = 1280, height: int = 900, *, phone: bool = False) -> None:
        self.size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._loop, self._count = asyncio.new_event_loop(), 0
        self.complaints: list[str] = []  # what the console, and the browser itself, complained about
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    def __enter__(self) -> Self:
        assert PROGRAM
        line = [PROGRAM, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={self._folder.name}", "about:blank"]
        self._process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = Path(self._folder.name) / "DevToolsActivePort"
        until = time.monotonic() + 120
        while not (told.exists() and "\n" in told.read_text()):
            assert time.monotonic() < until and self._process.poll() is None, "chromium does not start"
            time.sleep(0.05)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            (page,) = [tab for tab in json.loads(answer.read()) if tab["type"] == "page"]
        self._run(self._connect(page["webSocketDebuggerUrl"]))
        self.call("Emulation.setDeviceMetricsOverride", **self.size)
        self.call("Runtime.enable")
        self.call("Log.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._run(self._session.close())
        self._loop.close()
        self._process.terminate()
        self._process.wait(30)
        self._folder.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for something of the protocol."""
        answer = self._run(self._call(method, params))
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def value(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script: str, timeout: float = 60.0) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + timeout
        tried = f"(() => {{ try {{ return Boolean({script}) }} catch {{ return false }} }})()"  # not there yet is false
        while not self.value(tried):
            assert time.monotonic() < until, f"{script}\n{self.value('document.body.innerText')}"
            time.sleep(0.1)

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key, as a person with a keyboard does."""
        about = {"key": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Save the page, or what is visible of it, as a PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    async def _connect(self, url: str) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(url, max_msg_size=0)

    async def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": params})
        while True:
            told: dict[str, Any] = await self._socket.receive_json(timeout=60)
            if told.get("id") == self._count:
                return told
            if said := _complaint(told):
                self.complaints.append(said)

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)


def _complaint(event: dict[str, Any]) -> str:
    """Return the error or warning that an event of the page tells of, or nothing."""
    about = event.get("params", {})
    entry = about.get("entry", {})
    bad = about.get("type") in ("error", "warning", "assert") or entry.get("level") in ("error", "warning")
    return json.dumps(about) if bad or event.get("method") == "Runtime.exceptionThrown" else ""
