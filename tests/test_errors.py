"""The tree of errors: what its drawing promises is what the classes say."""

from __future__ import annotations

import re

import pytest

from lifelong import errors
from lifelong.errors import LifelongError, UnknownName

CLASSES = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LifelongError)
}
DRAWN = re.findall(r"^([│├└─ ]*)(\w+) +exit (\d+) +HTTP (\d+)", errors.__doc__ or "", flags=re.M)


def test_every_class_is_drawn_once_and_every_drawn_class_exists() -> None:
    assert sorted(name for _, name, _, _ in DRAWN) == sorted(CLASSES)


@pytest.mark.parametrize(("branch", "name", "code", "status"), DRAWN)
def test_the_drawing_states_the_exit_code_the_status_and_the_parent(
    branch: str, name: str, code: str, status: str
) -> None:
    """Depth in the drawing is depth below LifelongError."""
    kind = CLASSES[name]

    assert (kind.exit_code, kind.http_status) == (int(code), int(status))
    assert len(branch) // 4 == kind.__mro__.index(LifelongError)


def test_exit_codes_tell_families_apart_and_never_claim_success() -> None:
    """0 is success and 2 is what command lines use for wrong arguments."""
    families = [kind for kind in CLASSES.values() if LifelongError in kind.__bases__]
    codes = [kind.exit_code for kind in families]

    assert len(set(codes)) == len(codes)
    assert all(0 < kind.exit_code < 126 for kind in CLASSES.values())
    assert errors.ConfigError.exit_code == 2


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("replya", ["replay", "naive"], "did you mean 'replay'?"),
        ("xyz", ["replay", "naive"], "choose one of: naive, replay"),
        ("xyz", [], "choose one of: none is installed"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_known_one(name: str, known: list[str], hint: str) -> None:
    assert str(UnknownName.among("strategy", name, known)) == f"no strategy is called {name!r}; {hint}"
