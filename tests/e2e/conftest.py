"""What the end-to-end tests share."""

from __future__ import annotations

import pytest
from servers import Server


@pytest.fixture
def server(tmp_path):
    """A server that is killed at the end, whatever happens."""
    found = Server(tmp_path)
    yield found
    found.kill()
