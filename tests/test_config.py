"""A run in a file: the schema, the checks and the command line agree, and what is typed wins."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path

import click
import pytest
import streams
from click.testing import CliRunner
from typed import run

from lifelong import ranges
from lifelong.cli import cli, train
from lifelong.commands.config_group import RENAMED
from lifelong.errors import ConfigError, NotFound, UnknownName
from lifelong.following import config
from lifelong.following.settings import Follow

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "deploy" / "trainer" / "train.toml"
NOT_IN_FILES = {"config", "as_json"}


def test_every_option_has_a_key_with_its_default_and_no_other_key_is_there():
    """The command line and the dataclass are two lists of the same thing."""
    typed = train.make_context("train", ["--run", "here"]).params
    keys = {RENAMED.get(one.name, one.name): one.default for one in dataclasses.fields(config.Config)}
    assert set(typed) - NOT_IN_FILES == set(keys)
    for name in set(keys) - {"scenario_set", "follow", "settings", "model_set", "rate", "budget", "run_folder"}:
        assert keys[name] == typed[name] or (typed[name] is None and keys[name] in ("", None)), name
    told = ranges.schema(config.Config)["properties"]
    assert [name for name, about in told.items() if not about["description"]] == []
    for table in ("follow", "rate", "budget"):
        assert [name for name, about in told[table]["properties"].items() if not about["description"]] == []


GOOD = ["", "lr = 1", "momentum = 0", "[follow]\nlinger = 2", "[set]\nanything = [1, 2]", 'run = "a"\nseed = -3']
BAD = {
    "learning_rate = 0.1": "no setting is called 'learning_rate'",
    "batchsize = 3": "did you mean 'batch_size'?",
    "[folow]\nkeep = 1": "did you mean 'follow'?",
    "[follow]\nkep = 1": "no setting in [follow] is called 'kep'; did you mean 'keep'?",
    'batch_size = "3"': "batch_size wants a whole number, got '3'",
    "batch_size = true": "batch_size wants a whole number, got True",
    "batch_size = 1.5": "batch_size wants a whole number, got 1.5",
    "batch_size = 0": "batch_size must be at least 1, got 0",
    "lr = 0": "lr must be more than 0, got 0",
    "momentum = 1.0": "momentum must be less than 1, got 1.0",
    "max_forgetting = 2.0": "max_forgetting must be at most 1, got 2.0",
    'optimizer = "adm"': "no value of optimizer is called 'adm'; did you mean 'adam'?",
    'follow = "window=none"': "follow wants a table, got 'window=none'",
    '[follow]\nwindow = "count:x"': "write the window as",
    "[follow]\nmax_dead = -1.0": "max_dead must be at least 0, got -1.0",
    '[rate]\npolicy = "cosin"': "no value of policy is called 'cosin'; did you mean 'cosine'?",
    "[budget]\nflop = 1": "no setting in [budget] is called 'flop'; did you mean 'flops'?",
    "[set]\nday = 2020-01-01": "value.set.day is date",
}


@pytest.mark.parametrize("text", GOOD)
def test_what_is_right_is_read_as_it_stands(text, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    config.read(tmp_path / "a.toml")


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_said_with_what_was_got_and_what_is_wanted(text, tmp_path):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path / "a.toml")
    assert BAD[text] in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "a.toml"))


def test_a_validator_of_json_schemas_says_the_same(tmp_path):
    """A second source: jsonschema, which knows nothing of ours."""
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    made = json.loads(run("config", "schema"))
    validator.check_schema(made)
    plain = [text for text in BAD if "day" not in text]
    assert [text for text in GOOD if list(validator(made).iter_errors(tomllib.loads(text)))] == []
    assert [text for text in plain if not list(validator(made).iter_errors(tomllib.loads(text)))] == []


def test_the_sample_is_right_and_sets_what_it_says():
    values = config.read(SAMPLE)
    assert json.loads(run("config", "check", SAMPLE, "--json")) == values
    assert "replay" in run("config", "check", SAMPLE)
    assert Follow.of(values["follow"]).publish_samples == 10_000
    assert config.options(values)["set"] == ["capacity=2000"]


def test_arguments_of_the_strategy_are_checked_by_name(tmp_path):
    (tmp_path / "a.toml").write_text("[set]\ncapcity = 3\n")
    with pytest.raises(UnknownName, match="did you mean 'capacity'"):
        run("config", "check", tmp_path / "a.toml")
    with pytest.raises(NotFound, match="is missing"):
        run("config", "check", tmp_path / "none.toml")
    (tmp_path / "a.toml").write_text("[[")
    with pytest.raises(ConfigError, match="is no TOML"):
        run("config", "check", tmp_path / "a.toml")


def test_what_is_typed_wins_over_the_file_key_by_key(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr("lifelong.commands.follow.run", lambda **options: seen.update(options))
    (tmp_path / "a.toml").write_text(
        'source = "log"\nrun = "r"\nlr = 0.5\nbatch_size = 9\nallow_major = true\n'
        '[follow]\nwindow = "count:5"\nkeep = 7\n[set.replay]\ncapacity = 3\n[model_set]\nhidden = [8]\n'
        "[scenario_set]\nexperiences = 2\n"
    )
    run("train", "--config", tmp_path / "a.toml", "--lr", 0.25, "--follow", "keep=2")
    assert (seen["source"], seen["run_folder"], seen["lr"], seen["batch_size"]) == ("log", Path("r"), 0.25, 9)
    assert seen["follow"] == ['window="count:5"', "keep=2"]
    assert seen["settings"] == ["replay.capacity=3"]
    assert seen["model_set"] == ["hidden=[8]"]
    assert seen["scenario_set"] == ["experiences=2"]
    assert seen["allow_major"] is True
    assert seen["seed"] == 0
    assert list(seen["given"]) == ["keep=2"]


def test_the_folder_of_the_run_has_to_be_given_somewhere(tmp_path):
    (tmp_path / "a.toml").write_text('source = "log"\n')
    done = CliRunner().invoke(cli, ["train", "--config", str(tmp_path / "a.toml")])
    assert isinstance(done.exception, SystemExit | click.ClickException)
    assert "--run" in done.output


@pytest.mark.slow
def test_a_run_by_file_is_the_run_by_options(tmp_path):
    """The same stream twice: the figures at the end are the same, and so is the file that says what is run."""
    streams.log(tmp_path / "log", streams.samples(60))
    (tmp_path / "a.toml").write_text(
        f'source = "{tmp_path / "log"}"\nrun = "{tmp_path / "one"}"\nbatch_size = 8\n'
        '[follow]\nuntil = "end"\n[set]\ncapacity = 30\n'
    )
    first = run("train", "--config", tmp_path / "a.toml", "--json")
    second = run("train", "--source", tmp_path / "log", "--run", tmp_path / "two", "--batch-size", 8, "--json",
                 "--follow", 'until="end"', "--set", "capacity=30")  # fmt: skip
    assert first == second
    assert (tmp_path / "one" / "run.json").read_bytes() == (tmp_path / "two" / "run.json").read_bytes()
