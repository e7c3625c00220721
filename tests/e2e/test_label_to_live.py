"""A label that a server accepted is in a live version a moment later: with a server and a trainer as they are run."""

from __future__ import annotations

import follow_lag
import pytest

from lifelong.release.locate import locate
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


def test_the_same_by_way_of_a_store_which_is_all_that_they_share(tmp_path, s3, monkeypatch):
    """The trainer publishes into an S3, and the server, which has a copy of its own, answers with that version."""
    monkeypatch.setenv("LIFELONG_REMOTE_SECONDS", "0.2")
    (found,) = follow_lag.lags(tmp_path, 1, f"{s3}/live")

    registry = locate(f"{s3}/live", copy=tmp_path / "look")
    newest = registry.versions()[-1]
    told = registry.manifest(newest)
    assert (registry.current(), told["training"]["data"]["records"]) == (newest, 64 + 24)
    for program in ("run", "state"):
        copy = Registry(tmp_path / program / "registry")
        copy.verify(newest)
        assert copy.manifest(newest) == told
    print(f"label accepted -> live by way of a store: {found:.2f} s")
