"""A label that a server accepted is in a live version a moment later: with a server and a trainer as they are run."""

from __future__ import annotations

import follow_lag
import pytest

from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_labels_come_back_as_live_versions(tmp_path):
    """Each round's 24 labels are one candidate; what it knows of the stream is all of them and all before."""
    found = follow_lag.lags(tmp_path, rounds=2)

    assert len(found) == 2
    registry = Registry(tmp_path / "registry")
    learned = [registry.manifest(v)["training"]["data"]["records"] for v in registry.versions()]
    assert learned[-2:] == [64 + 24, 64 + 48]
    print(f"label accepted -> live: {', '.join(f'{seconds:.2f} s' for seconds in found)}")
