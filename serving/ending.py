"""How a worker ends: drained, when it is asked to by SIGTERM; at once, when the server around it was killed.

```
SIGTERM -> /readyz answers 503, everything else as before, each answer closes its connection
        -> after LIFELONG_DRAIN_SECONDS no new connections; what is under way is finished; the process ends
```
A second SIGTERM cuts the pause short.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, final

log = logging.getLogger("lifelong.serving")


@final
class Ending:
    """Of one process.

    Args:
        seconds: Between SIGTERM and the end of new connections.
        parent: Process without which this one has no use; 0 for none.
    """

    def __init__(self, seconds: float, parent: int = 0) -> None:
        self.seconds, self.parent, self.draining = seconds, parent, False
        self._before: Any = None

    def start(self) -> None:
        """Take SIGTERM from who handles it now; only the main thread can, elsewhere nothing is drained."""
        self.draining = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._asked)

    def stop(self) -> None:
        """Give it back."""
        if self._before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def check(self) -> None:
        """End if the parent was killed: an orphan would keep the port and the gallery's lock for ever."""
        if self.parent and os.getppid() != self.parent:
            log.error("the master process %d is gone; worker %d ends", self.parent, os.getpid())
            self.parent, self.seconds = 0, 0
            os.kill(os.getpid(), signal.SIGTERM)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if not self.draining and self.seconds:
            self.draining = True
            threading.Thread(target=self._later, name="lifelong-drain", daemon=True).start()
            return
        self.draining = True
        if callable(self._before):
            self._before(number, frame)

    def _later(self) -> None:
        log.info("draining for %g s: /readyz answers 503, requests are still answered", self.seconds)
        time.sleep(self.seconds)
        log.info("drained: no new connections, what is under way is finished")
        os.kill(os.getpid(), signal.SIGTERM)
