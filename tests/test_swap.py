"""The benchmark of swaps: through the real gate and slot nothing is written, and a written row would be seen."""

import numpy as np
import pytest
import torch

from benchmarks import swap

pytestmark = pytest.mark.slow  # trains two versions


@pytest.fixture(scope="module")
def figures():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {row["name"]: row for row in swap.rows([500, 10_000], turns=3)}
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("size", [500, 10_000])
def test_a_swap_writes_no_row_and_leaves_all_of_them_readable(figures, size):
    """Every row is there, bit for bit, and the new version reads it."""
    assert figures[f"swap_{size}_rows"]["value"] == size
    for name in ("rows_written", "bits_changed", "rows_unreadable"):
        assert figures[f"swap_{size}_{name}"]["value"] == 0
        assert figures[f"swap_{size}_{name}"]["holds"]


def test_the_cost_of_a_backfill_is_rows_times_seconds_per_row(figures):
    each = figures["encode_served_row"]["value"] / 1e6
    assert figures["backfill_served_10000_seconds"]["value"] == pytest.approx(10_000 * each, rel=1e-3)
    assert figures["swap_10000_over_500"]["value"] > 0


def test_one_row_that_is_written_again_is_seen(tmp_path):
    """The fingerprint is of every id, space and vector."""
    from lifelong.types import Space
    from serving.shelf import Shelf

    shelf, space = Shelf(tmp_path / "gallery"), Space("a", 4)
    shelf.add(list(range(50)), np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32), space, None)
    before = swap.fingerprint(shelf)
    assert before == swap.fingerprint(shelf)
    shelf.add([7], np.ones((1, 4), np.float32), space, None)
    assert swap.fingerprint(shelf) != before
    shelf.close()
