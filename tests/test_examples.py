"""Each example runs as it stands, and says what it should."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_it_runs(path, capsys):
    runpy.run_path(str(path), run_name="__main__")

    assert capsys.readouterr().out


def test_own_data_is_learned_over_a_restart(capsys):
    main = runpy.run_path(str(EXAMPLES[[p.stem for p in EXAMPLES].index("own_data")]))["main"]

    assert main() > 0.7
    assert "'pump', 'fan', 'valve', 'slider', 'gearbox'" in capsys.readouterr().out
