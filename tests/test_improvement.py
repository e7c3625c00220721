"""A candidate when the accuracy has risen by so much, above its lowest since the last one."""

from __future__ import annotations

import pytest
import streams

from lifelong.checks import digest
from lifelong.following.publisher import Publisher
from lifelong.following.settings import Follow
from lifelong.learning.checkpoint import Checkpoints
from lifelong.plan import Plan
from lifelong.release.registry import Registry


def test_it_is_asked_for_after_a_rise_also_one_that_follows_a_fall():
    one = Publisher(None, Follow(publish_improvement=0.1), Plan(commit_every=5), {}, lambda *_: None)
    asked = []
    for step, accuracy in enumerate([0.05, 0.5, 0.55, 0.58, 0.61, 0.4, 0.45, 0.52], start=1):
        one.look(5 * step - 1, lambda: 1.0)  # not now
        one.look(5 * step, lambda accuracy=accuracy: accuracy)
        asked.append(one.asked)
        if one.asked:  # what a candidate leaves
            one.asked, one.lowest = False, one.accuracy
    assert asked == [False, True, False, False, True, False, False, True]
    never = Publisher(None, Follow(), Plan(commit_every=5), {}, lambda *_: None)
    never.look(5, lambda: 1.0)
    assert not never.asked


@pytest.mark.slow
def test_a_run_publishes_while_it_improves_and_a_crash_changes_no_version(tmp_path):
    stream = streams.log(tmp_path / "log", streams.messy(400))

    def started(name, crash=0):
        registry = Registry(tmp_path / f"registry-{name}", create=True)

        def notify(kind, facts):
            if crash and kind == "step" and facts["steps"] == crash:
                raise KeyboardInterrupt

        return streams.follower(
            stream, tmp_path / name, settings={"publish_improvement": 0.15}, registry=registry, notify=notify,
            commit_every=4,
        ), registry  # fmt: skip

    made, one = started("whole")
    made.run()
    for crash in (5, 11, 30):
        with pytest.raises(KeyboardInterrupt):
            started("parts", crash)[0].run()
    last, two = started("parts")
    last.run()
    judged = made.facts()["published"] + made.facts()["refused"]
    assert one.versions()
    assert 2 <= judged <= 8  # from nothing to about all: not one for each look, of which there are ten
    states = [Checkpoints(tmp_path / run / "checkpoints").latest() for run in ("whole", "parts")]
    assert digest(states[0]) == digest(states[1])
    assert [one.manifest(v)["sha256"] for v in one.versions()] == [two.manifest(v)["sha256"] for v in two.versions()]
