"""What operators meet: each gives one clear message, loses nothing, and is over without hands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import streams
import torch
from safetensors import SafetensorError
from streams import follower, log, messy, samples

from lifelong import files
from lifelong.checks import digest
from lifelong.errors import ConfigError, DataError
from lifelong.learning.checkpoint import Checkpoints
from lifelong.release.locate import locate
from lifelong.release.registry import Registry
from lifelong.sources.folder import Folder
from lifelong.sources.log import Log
from lifelong.sources.record import decode, encode

ROOT = Path(__file__).resolve().parents[1]


def outcome(made):
    return digest(Checkpoints(made.run_folder / "checkpoints").latest())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["state.safetensors", "manifest.json"])
def test_a_disk_that_is_full_for_a_while_holds_training_up_and_loses_nothing(part, tmp_path, caplog, monkeypatch):
    """Whichever file does not fit, at commits that are waited for and at those that are not."""
    stream, calls = log(tmp_path / "log", messy(160)), []
    write, save = files.write_new, safetensors.torch.save_file
    whole, made = follower(stream, tmp_path / "whole"), follower(stream, tmp_path / "run")
    whole.run()

    def fits(path):
        calls.append(path.name)
        return path.name != part or calls.count(part) not in (2, 3)

    def full(path, data):
        if not fits(path):
            raise OSError(28, "No space left on device")
        write(path, data)

    def full_for_tensors(tensors, path):
        save(tensors, path)  # a part of it is there
        if not fits(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(files, "write_new", full)
    monkeypatch.setattr(safetensors.torch, "save_file", full_for_tensors)
    monkeypatch.setattr(made.stop, "wait", lambda seconds: False)
    made.run()

    assert outcome(made) == outcome(whole)
    said = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    assert len(said) == 2
    assert all(line.endswith("training waits until there is room") for line in said)
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))


@pytest.mark.slow
def test_a_registry_that_is_read_only_for_a_while_gets_a_later_version(tmp_path, caplog, monkeypatch):
    registry, access, asked = Registry(tmp_path / "registry", create=True), os.access, []
    made = follower(
        log(tmp_path / "log", samples(240)), tmp_path / "run", settings={"publish_samples": 60}, registry=registry
    )

    def readonly(path, mode):
        if Path(path) == registry.root / "versions":
            asked.append(path)
            return len(asked) > 1
        return access(path, mode)

    monkeypatch.setattr(os, "access", readonly)
    monkeypatch.setattr("lifelong.following.publisher.RETRY_SECONDS", 0.0)
    made.run()

    (said,) = [r.getMessage() for r in caplog.records if "could be published" in r.getMessage()]
    assert "cannot be written from here; do it where it is not read-only; training goes on" in said
    assert registry.versions()
    assert made.facts()["samples"] > 150


def test_a_registry_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="no registry can be made in"):
        locate(tmp_path / "file" / "registry", create=True)


@pytest.mark.slow
def test_a_clock_that_jumps_a_day_forward_and_back_changes_no_bit(tmp_path, monkeypatch):
    """Of the records, whose order is that of their offsets, or of a trainer, whose pauses do not go by that clock."""
    records, jumps, now = samples(120), [0.0, 86400.0, -86400.0, 3600.0], time.time
    with Log(tmp_path / "steady", create=True) as steady, Log(tmp_path / "jumping", create=True) as jumping:
        steady.append(records)
        for i in range(0, 120, 10):
            with monkeypatch.context() as patch:
                patch.setattr(time, "time", lambda jump=jumps[i // 10 % 4]: now() + jump)
                jumping.append(records[i : i + 10])
    one = follower(tmp_path / "steady", tmp_path / "one", settings={"window": "count:30"})
    one.run()
    two = follower(tmp_path / "jumping", tmp_path / "two", settings={"window": "count:30", "commit_seconds": 1e-9})
    turns = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: now() + jumps[next(turns) % 4])
    two.run()

    a, b = (Checkpoints(made.run_folder / "checkpoints").latest() for made in (one, two))
    assert digest(a["learner"]) == digest(b["learner"])
    assert a["prequential"] == b["prequential"]


def test_labels_that_are_no_labels_become_dead_letters_and_the_rest_is_learned(tmp_path):
    """NaN as JSON writes it, a float, null, and a list; in a record, and in a file of floats."""
    clean, good = samples(40), encode(torch.zeros(streams.WIDTH), 7)
    bad = [
        (f"bad-{i}", good.replace(b'"y":7', b'"y":' + text)) for i, text in enumerate((b"NaN", b"1.5", b"null", b"[1]"))
    ]
    bad = [(sid, p[:4] + len(p[8:-24]).to_bytes(4, "little") + p[8:]) for sid, p in bad]
    made = follower(log(tmp_path / "log", [*clean[:20], *bad, *clean[20:]]), tmp_path / "run")
    made.run()

    assert made.facts()["samples"] == 40
    errors = [letter.error for letter in made.intake.dead.letters]
    assert ["NaN is not a number" in errors[0], *("a label must be" in error for error in errors[1:])] == [True] * 4
    (tmp_path / "files").mkdir()
    np.savez(tmp_path / "files" / "a.npz", x=np.zeros((2, 3), np.float32), y=np.array([1.0, np.nan]))
    with Folder(tmp_path / "files") as folder:
        for record in folder.poll(9):
            with pytest.raises(DataError):
                decode(record.payload)


def test_a_header_that_announces_a_gigabyte_is_refused_before_anything_is_made():
    """The values it announces are not there; nothing of that size is allocated to find out."""
    header = b'{"dtype":"float32","shape":[268435456],"y":1}'
    with pytest.raises(DataError, match="8 bytes of values are not float32 of shape"):
        decode(b"LLR1" + len(header).to_bytes(4, "little") + header + bytes(8))


HUGE = """
import resource, sys
from pathlib import Path
import streams
from lifelong.following.follower import Follower
from lifelong.following.settings import Follow
from lifelong.plan import Plan
from lifelong.sources.locate import locate
stream, limit = Path(sys.argv[1]), int(sys.argv[2])
try:
    import pyarrow.parquet
except ImportError:
    pass
follow = Follow(until="end", record_bytes=limit)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = locate(str(stream), limit=limit)
made = Follower(streams.learner, source, stream / "run", plan=Plan(held_out=0.0, compatible=False), settings=follow)
made.run()
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
(letter,) = made.intake.dead.letters
print(made.facts()["samples"], letter.record.sid, letter.whole, int(grown), letter.error)
"""


@pytest.mark.slow
def test_a_huge_record_is_a_dead_letter_and_is_never_in_memory(tmp_path):
    """64 MiB in a log whose limit is 4,000 bytes; the process grows by a part of that. In a process of its own."""
    stream = log(tmp_path / "log", samples(40))
    with Log(stream) as found:
        found._db.execute("INSERT INTO records(sid, time, payload) VALUES ('huge', 0, zeroblob(67108864))")
        found._db.execute(
            "INSERT INTO records(sid, time, payload) SELECT 'after', 0, payload FROM records WHERE sid = 's0-3'"
        )
    samples_, sid, whole, grown, error = followed(stream, 4000)
    assert (samples_, sid, whole) == ("41", "huge", "False")
    assert "over the limit of 4000 bytes" in error
    assert int(grown) < 40


def followed(stream: Path, limit: int) -> list[str]:
    """Learn all that is there in a process of its own; return its samples, the letter, and the MiB that it grew by."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}
    line = [sys.executable, "-c", HUGE, str(stream), str(limit)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split(maxsplit=4)


def good_files(folder: Path) -> None:
    """Samples in a file before and in a file after the one that a test is about."""
    folder.mkdir()
    for name in ("a", "c"):
        np.savez(folder / f"{name}.npz", x=np.eye(5, streams.WIDTH, dtype=np.float32), y=np.arange(5) % 3)


HUGE_BYTES = 300_000_000


@pytest.mark.slow
def test_a_huge_row_of_an_npz_is_a_dead_letter_and_is_never_in_memory(tmp_path):
    """300 MB of zeros, compressed, where the limit is 1 MB."""
    good_files(tmp_path / "files")
    with zipfile.ZipFile(tmp_path / "files" / "b.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        with made.open("x.npy", "w", force_zip64=True) as member:
            about = {"descr": "<f4", "fortran_order": False, "shape": (1, HUGE_BYTES // 4)}
            np.lib.format.write_array_header_1_0(member, about)
            for _ in range(HUGE_BYTES // 10**7):
                member.write(bytes(10**7))
        with made.open("y.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros(1, np.int64))

    samples_, sid, whole, grown, error = followed(tmp_path / "files", 10**6)
    assert (samples_, sid, whole) == ("10", "b.npz:0", "False")
    assert "over the limit of 1000000 bytes" in error
    assert int(grown) < 60


@pytest.mark.slow
def test_a_huge_cell_of_a_parquet_is_a_dead_letter_and_is_never_in_memory(tmp_path):
    """The same as a list, in a file of a few kilobytes."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    good_files(tmp_path / "files")
    values = pa.array(np.zeros(HUGE_BYTES // 4, np.float32))
    x = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    parquet.write_table(pa.table({"x": x, "y": pa.array([0])}), tmp_path / "files" / "b.parquet")

    samples_, sid, whole, grown, error = followed(tmp_path / "files", 10**6)
    assert (samples_, sid, whole) == ("10", "b.parquet:0", "False")
    assert "over the limit of 1000000 bytes" in error
    assert int(grown) < 60
