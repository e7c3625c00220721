"""Everything that can be wrong with what a registry names: the live version answers on, also after a restart."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from serving.shelf import Shelf
from serving.slot import Slot

pytestmark = pytest.mark.slow  # by its many cases
WEIGHTS, X = "weights.safetensors", np.ones((1, 4), np.float32)


class Outcomes(list[str]):
    """An observer that remembers."""

    def swapped(self, outcome: str, seconds: float) -> None:
        self.append(outcome)

    def polled(self) -> None:
        """Not of interest here."""


def changed(how: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path, Any], None]:
    """Other weights under right checksums: whoever wrote them meant them."""

    def damage(folder: Path, kit: Any) -> None:
        def alter(fields: dict[str, Any], parts: dict[str, bytes]) -> None:
            weights = safetensors.torch.load(parts[WEIGHTS])
            how(weights)
            parts[WEIGHTS] = safetensors.torch.save(weights)

        kit.forge(folder, alter)

    return damage


def written(how: Callable[[bytes], bytes]) -> Callable[[Path, Any], None]:
    """Other bytes in the file of the weights, as a disk or a copy makes them."""
    return lambda folder, kit: (folder / WEIGHTS).write_bytes(how((folder / WEIGHTS).read_bytes())) and None


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


BAD = {  # how version 2 is bad, and what the reason must say
    "a flipped byte": (written(flipped), WEIGHTS),
    "cut short": (written(lambda data: data[:-7]), WEIGHTS),
    "empty": (written(lambda data: b""), WEIGHTS),
    "random bytes": (written(lambda data: os.urandom(len(data))), WEIGHTS),
    "no manifest": (lambda folder, kit: (folder / "manifest.json").unlink(), "manifest.json"),
    "no weights": (lambda folder, kit: (folder / WEIGHTS).unlink(), WEIGHTS),
    "a NaN weight": (lambda folder, kit: kit.forge_nan(folder), "finite"),
    "an infinite bias": (changed(lambda w: w["backbone.layers.0.bias"].fill_(torch.inf)), "finite"),
    "a wrong width": (changed(lambda w: w.update({"head.bias": torch.zeros(9)})), "head.bias"),
    "a missing tensor": (changed(lambda w: w.pop("head.weight") is None), "head.weight"),
    "an extra tensor": (changed(lambda w: w.update({"backdoor": torch.zeros(2)})), "backdoor"),
    "half precision": (changed(lambda w: w.update({k: v.half() for k, v in w.items()})), "float16"),
    "no folder": (lambda folder, kit: shutil.rmtree(folder), "2"),
}
POINTERS = {  # what CURRENT says
    "garbage": "\x00\xffgarbage",
    "empty": "",
    "of a wrong type": '{"version": "2", "seq": 9}',
    "gone": None,
}


def opened(registry: Any, shelf: Shelf, state: Path) -> Slot:
    """A server's slot, started anew; its watcher does not run."""
    slot = Slot(registry.root, shelf, state, Outcomes(), poll_seconds=3600)
    slot.start()
    slot.stop()
    return slot


def answers(slot: Slot) -> tuple[int, str]:
    """The version that answers, and what it finds for what it stored."""
    live = slot.live
    assert round(float(live.embed(np.zeros((1, 4), np.float32))[0, 0])) == live.version
    return live.version, live.search(live.embed(X), 1, None)[0][0].id


def point(root: Path, text: str) -> None:
    (root / "next").write_text(text, encoding="latin-1")
    (root / "next").replace(root / "CURRENT")


def test_these_are_all_of_them():
    assert (len(BAD), len(POINTERS)) == (13, 4)


@pytest.fixture
def served(registry, tmp_path, kit):
    """Version 1 is live and has stored a row; 2 and 3 are published, and good."""
    kit.publish(registry, 3)
    registry.promote(1)
    with_shelf = Shelf(tmp_path / "state" / "gallery")
    slot = opened(registry, with_shelf, tmp_path / "state")
    slot.add(["mine"], X, None)
    yield registry, with_shelf, tmp_path / "state", slot
    with_shelf.close()


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_version_is_refused_with_its_reason(served, kit, kind):
    """Once, with a reason that names what is wrong; a restart comes back with what was live; a good one follows."""
    registry, shelf, state, slot = served
    damage, hint = BAD[kind]
    damage(registry.root / "versions" / "000002", kit)
    point(registry.root, json.dumps({"version": 2, "seq": 99}))
    for _ in range(3):
        slot.refresh()

    assert answers(slot) == (1, "mine")
    assert slot.observer == ["live", "rejected"]
    assert hint in slot.rejected[0].reason
    again = opened(registry, shelf, state)
    assert answers(again) == (1, "mine")
    assert hint in again.rejected[0].reason
    registry.promote(3)
    assert again.refresh()
    assert answers(again) == (3, "mine")


@pytest.mark.parametrize("kind", POINTERS)
def test_a_bad_pointer_changes_nothing(served, kind):
    """What was live answers, also after a restart; a good pointer is followed again."""
    registry, shelf, state, slot = served
    text = POINTERS[kind]
    point(registry.root, text) if text is not None else (registry.root / "CURRENT").unlink()
    for _ in range(3):
        slot.refresh()

    assert answers(slot) == (1, "mine")
    assert slot.observer == (["live", "rejected"] if text is not None else ["live"])
    again = opened(registry, shelf, state)
    assert answers(again) == (1, "mine")
    registry.promote(3)
    assert again.refresh()
    assert answers(again) == (3, "mine")
