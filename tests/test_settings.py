"""Settings: one source of truth, strict, and documented by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lifelong.errors import ConfigError
from serving.settings import Settings, metrics_folder, table, variable


def test_an_empty_environment_gives_the_defaults():
    """Nothing is required: the server starts in an empty folder and waits for a registry."""
    assert Settings.load({}) == Settings()


def test_every_setting_can_be_set_by_its_variable():
    """No field is out of reach of the environment."""
    for each in dataclasses.fields(Settings):
        values = {"Path": "elsewhere", "int": "3000", "float": "0.25", "str": "postgresql://h/d", "bool": "true"}
        text = values[each.type]
        value = {"keep_retired": "3", "workers": "3", "threads": "3"}.get(each.name, text)

        loaded = Settings.load({variable(each.name): value})

        assert getattr(loaded, each.name) == (True if each.type == "bool" else type(each.default)(value))
        assert getattr(loaded, each.name) != each.default


def test_the_table_names_every_setting_once_with_its_default():
    """Documentation is tested against this table."""
    rows = table()

    assert [name for name, _, _ in rows] == [variable(each.name) for each in dataclasses.fields(Settings)]
    assert ("LIFELONG_POLL_SECONDS", "0.05") in [(name, default) for name, default, _ in rows]
    assert all(meaning and "\n" not in meaning for _, _, meaning in rows)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIFELONG_MAX_ROWS", "many"),
        ("LIFELONG_MAX_ROWS", "1.5"),
        ("LIFELONG_MAX_ROWS", ""),
        ("LIFELONG_MAX_ROWS", "0"),
        ("LIFELONG_MAX_ROWS", "-1"),
        ("LIFELONG_POLL_SECONDS", "nan"),
        ("LIFELONG_POLL_SECONDS", "inf"),
        ("LIFELONG_POLL_SECONDS", "0"),
        ("LIFELONG_POLL_SECONDS", "1s"),
        ("LIFELONG_WORKERS", "cpu_count"),
        ("LIFELONG_REGISTRY", " "),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value):
    """The message names the variable and what it got."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({name: value})

    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["LIFELONG_MAXROWS", "LIFELONG_MAX_ROW", "LIFELONG_POLL_SECOND", "LIFELONG_REGISTERY"])
def test_a_near_miss_is_refused_with_the_right_name(name):
    """A typing error must not silently leave the default."""
    with pytest.raises(ConfigError, match="did you mean LIFELONG_"):
        Settings.load({name: "1"})


def test_variables_of_others_are_left_alone():
    """The data resolver's variable, and names that are far from ours, are not our business."""
    assert Settings.load({"LIFELONG_DATA": "x", "LIFELONG_DAEMON_TOPIC": "y", "PATH": "z"}) == Settings()


def test_a_password_is_not_shown():
    """Settings are printed in tracebacks and logs."""
    assert "hidden" not in repr(Settings.load({"LIFELONG_GALLERY": "postgresql://u:hidden@h/d"}))


def test_settings_made_in_code_are_checked_too():
    """The range holds however the value got there."""
    with pytest.raises(ConfigError, match="LIFELONG_THREADS"):
        Settings(threads=0)


def test_the_home_folder_is_expanded():
    """As a shell would do it."""
    assert Settings.load({"LIFELONG_STATE": "~/state"}).state == Path.home() / "state"


def test_the_metrics_folder_is_what_bentoml_says():
    """An empty variable means one process."""
    assert metrics_folder({"PROMETHEUS_MULTIPROC_DIR": "/m"}) == "/m"
    assert metrics_folder({"PROMETHEUS_MULTIPROC_DIR": ""}) is None
    assert metrics_folder({}) is None


def test_tls_needs_both_files_and_they_must_be_there(tmp_path):
    """Said when the server starts, and not by the first client."""
    (tmp_path / "cert.pem").touch()
    with pytest.raises(ConfigError, match="belong together"):
        Settings(tls_cert=str(tmp_path / "cert.pem")).tls()
    with pytest.raises(ConfigError, match=r"key\.pem is missing"):
        Settings(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")).tls()
    (tmp_path / "key.pem").touch()
    assert Settings(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")).tls()["enabled"]
    assert Settings().tls() == {"enabled": False}
