"""`import lifelong` gives the public names, and costs nothing until one is used."""

import subprocess
import sys

import pytest

import lifelong


@pytest.mark.parametrize("name", lifelong.__all__)
def test_each_public_name_is_there(name):
    assert getattr(lifelong, name).__name__.lower().lstrip("_") == name.lower()


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Lerner'"):
        _ = lifelong.Lerner


def test_importing_the_package_imports_no_torch():
    code = "import sys, lifelong; dir(lifelong); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
