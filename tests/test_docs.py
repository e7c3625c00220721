"""The pages are true: what there is has its place in them, what they name exists, and their examples run."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shlex
import sys
import tomllib
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from lifelong import errors, plugins
from lifelong.bench.metrics import METRICS
from lifelong.cli import cli
from lifelong.errors import LifelongError
from lifelong.following.settings import Follow
from lifelong.learning import Strategy
from lifelong.learning.budgets import Budget
from lifelong.learning.rates import Rate
from lifelong.release import compat
from lifelong.telemetry import SERVING, TRAINING, Metric
from serving import settings

with warnings.catch_warnings():  # bentoml's own imports
    warnings.simplefilter("ignore")
    from serving import service
    from serving.pages import GETS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = {"strategies/anchor.py", "docs/strategies/anchor.md"}  # what the reader is about to write
STRATEGIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lifelong.strategies"]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def rows(text: str) -> dict[str, list[str]]:
    """Rows of all tables by their first cell, marks taken off."""
    lines = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace("`", "") for cell in line] for line in lines]
    return {line[0]: line[1:] for line in cells if not set(line[0]) <= set("-: ")}


def blocks_of_tables(text: str) -> list[dict[str, list[str]]]:
    """Each table of a text by itself."""
    return [rows(part) for part in re.split(r"\n\s*\n", text) if part.lstrip().startswith("|")]


def sections(text: str) -> dict[str, str]:
    """What follows each heading of level 2, by heading."""
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


# ---- everything has its place


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_has_a_page_that_names_every_argument_and_its_default(strategy: str) -> None:
    text = page(f"docs/strategies/{strategy}.md")
    table = rows(text)
    arguments = inspect.signature(plugins.find("strategy", strategy)).parameters.values()

    for argument in arguments:
        shown = str(argument.default).lower() if isinstance(argument.default, bool) else str(argument.default)
        assert table.get(argument.name, ["missing"])[0] == shown, argument
    for promised in ("When to use it.", "Cost.", "Source.", "Differs:", "Checked by."):
        assert promised in text
    assert f"(docs/strategies/{strategy}.md)" in page("README.md")


def test_no_page_describes_a_strategy_that_is_gone() -> None:
    assert {path.stem for path in (ROOT / "docs/strategies").glob("*.md")} == set(STRATEGIES)


def test_every_metric_of_learning_and_of_compatibility_is_defined_and_no_other() -> None:
    told = sections(page("docs/metrics.md"))
    assert set(rows(told["Of learning"])) - {"metric"} == set(METRICS)
    assert set(rows(told["Of compatibility"])) - {"metric"} == set(compat.summary(torch.eye(2)))


@pytest.mark.parametrize(("title", "metrics"), [("Of the server", SERVING), ("Of the trainer", TRAINING)])
def test_every_metric_is_there_with_its_kind_and_labels(title: str, metrics: tuple[Metric, ...]) -> None:
    table = rows(sections(page("docs/metrics.md"))[title])
    assert set(table) - {"metric"} == {metric.name for metric in metrics}
    for metric in metrics:
        assert table[metric.name][:2] == [metric.kind, ", ".join(metric.labels)]


def commands(command: click.Command, path: tuple[str, ...] = ("lifelong",)) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            if not below.hidden:  # what commands start themselves
                yield from commands(below, (*path, word))
    else:
        yield " ".join(path), command


def options(command: click.Command) -> set[str]:
    found = [p for p in command.params if isinstance(p, click.Option)]
    return {", ".join([*option.opts, *option.secondary_opts]) for option in found}


def test_every_command_and_every_option_is_there_and_nothing_else() -> None:
    told = sections(page("docs/cli.md"))
    real = dict(commands(cli))

    assert set(told) == set(real)
    for path, command in real.items():
        assert set(rows(told[path])) - {"option"} == options(command), path
        assert str(command.help) in told[path], path


def test_the_options_of_all_commands_are_there() -> None:
    told = rows(page("docs/cli.md").split("\n## ")[0])
    assert set(told) - {"option"} == {*(", ".join(sorted(p.opts, key=len)[::-1]) for p in cli.params), "--help, -h"}


def test_every_error_is_there_with_parent_exit_code_and_status() -> None:
    table = rows(page("docs/errors.md"))
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, LifelongError)]

    assert set(table) - {"class"} == {kind.__name__ for kind in kinds}
    for kind in kinds:
        parent = "" if kind is LifelongError else kind.__base__.__name__  # type: ignore[union-attr]
        assert table[kind.__name__][:3] == [parent, str(kind.exit_code), str(kind.http_status)]


def test_every_setting_is_there_with_its_default() -> None:
    table = rows(page("docs/settings.md").split("\n## ")[0])
    assert set(table) - {"variable"} == {variable for variable, _, _ in settings.table()}
    for variable, default, _ in settings.table():
        assert table[variable][0] == default


def test_every_setting_of_a_stream_is_there_with_its_default() -> None:
    table = rows(sections(page("docs/stream.md"))["Settings"])
    defaults = {f.name: str(f.default) for f in dataclasses.fields(Follow)}
    assert {name: told[0] for name, told in table.items() if name != "setting"} == defaults


@pytest.mark.parametrize(("option", "settings"), [("rate", Rate), ("budget", Budget)])
def test_every_key_of_a_rate_and_of_a_budget_is_there_with_its_default(option: str, settings: type) -> None:
    every = blocks_of_tables(sections(page("docs/stream.md"))["Learning rate and budget"])
    table = next(table for table in every if f"key of --{option}" in table)
    defaults = {f.name: str(f.default) for f in dataclasses.fields(settings)}
    assert {name: told[0] for name, told in table.items() if not name.startswith("key of")} == defaults


FORMS = {f"POST {route}": form for route, (form, _) in service.POSTS.items()}


def test_every_route_is_there_and_nothing_else() -> None:
    assert set(sections(page("docs/http.md"))) == {*FORMS, *(f"GET {r}" for r in [*GETS, "/docs.json"])}


@pytest.mark.parametrize("title", sorted(FORMS))
def test_every_field_of_a_request_and_of_its_answer_is_there(title: str) -> None:
    told, form, answer = sections(page("docs/http.md"))[title], FORMS[title], service.POSTS[title.split()[1]][1]

    assert {field for field in form.model_fields if f"`{field}`" not in told} == set()
    (shown,) = blocks(told, "json")
    assert answer.model_validate_json(shown, strict=True)
    assert set(json.loads(shown)) == set(answer.model_fields)


def test_every_example_request_goes_to_its_route_and_is_a_request_of_it() -> None:
    for title, told in sections(page("docs/http.md")).items():
        (line,) = blocks(told, "sh")
        words = shlex.split(line.replace("\\\n", " "))
        assert f"localhost:3000{title.split()[1]}" in words
        if title in FORMS:
            FORMS[title].read(words[words.index("-d") + 1].encode())


def test_every_hook_is_explained_to_who_adds_a_strategy() -> None:
    told = page("docs/add-a-strategy.md")
    hooks = {hook for hook in vars(Strategy) if inspect.isfunction(vars(Strategy)[hook])} - {"summary"}
    assert {hook for hook in hooks if f"`{hook}(" not in told} == set()


# ---- what the pages name exists


def slugs(text: str) -> set[str]:
    """Anchors as they are made of headings."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?://|mailto:", link):
            file, _, anchor = link.partition("#")
            target = path.parent / file if file else path
            assert target.exists(), f"{link} leads nowhere"
            assert not anchor or anchor in slugs(target.read_text()), f"{link} has no such heading"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_file_of_ours_that_a_page_quotes_is_there(path: Path) -> None:
    quoted = re.findall(r"`((?:lifelong|strategies|serving|tests|docs|benchmarks|tools)/[\w./-]*)`", path.read_text())
    assert not [file for file in quoted if not (ROOT / file).exists() and file not in EXAMPLES]


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_command_line_of_ours_parses(path: Path) -> None:
    """Examples in full; in running text, the command and its options have to be there."""
    for block in blocks(path.read_text(), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("lifelong "):
                command, words = found(shlex.split(line.removesuffix(" &"), comments=True)[1:])
                command.make_context(command.name, words)
    for text in re.findall(r"`lifelong ([a-z][^`]*)`", path.read_text()):
        command, words = found(text.split())
        known = {option for p in command.params for option in p.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= known, text


def found(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that `words` begin with, and the rest."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    return command, words


# ---- the examples run


def run(code: str, title: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    module = types.ModuleType(title)
    monkeypatch.setitem(sys.modules, title, module)  # dataclasses and type hints look their module up
    exec(compile(code, f"<{title}>", "exec"), module.__dict__)
    return vars(module)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_all_python_compiles(path: Path) -> None:
    for block in blocks(path.read_text(), "python(?: norun)?"):
        compile(block, name(path), "exec")


@pytest.mark.slow
def test_the_quick_start_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(page("README.md"), "python")
    made = run(code, "quick_start", monkeypatch)
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {"acc_final", "bwt_gem"}
    assert made["metrics"].acc_final(made["matrix"]) > 0.4  # chance is 0.1, naive training ends near 0.2


@pytest.mark.slow
def test_own_data_is_learned_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(page("docs/data.md"), "python")
    assert run(code, "own_data", monkeypatch)["learner"].labels.tolist() == ["ant", "bee", "cat", "dog"]


@pytest.mark.slow
def test_the_strategy_of_the_page_obeys_every_law(monkeypatch: pytest.MonkeyPatch) -> None:
    from lifelong import checks

    (code,) = blocks(page("docs/add-a-strategy.md"), "python")
    verdicts = checks.check(run(code, "anchor", monkeypatch)["Anchor"])
    assert [verdict for verdict in verdicts if verdict.outcome != "holds"] == []
