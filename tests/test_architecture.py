"""The house: who may import whom, what a process loads, and numbers that may only fall.

Imports are read from the source (ast), module-level and function-level alike; what a process really loads is listed
by a fresh process. Every exception is named here with its reason, and an exception that nothing needs any more fails.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("lifelong", "serving", "strategies")
WITH_PROGRAMS = (*OURS, "tests", "tools", "benchmarks", "examples")

# What each part of `lifelong` may import of `lifelong`: the arrows of docs/architecture.md, nothing else.
VALUES = {"errors", "labels", "batching", "types"}
FILES = {"files", "locks", "plugins", "ranges"}
DATA = {"datafiles", "datatable", "data", "datauser"}
LIBRARY: dict[str, set[str]] = {
    "__init__": set(),  # the front door: names for type checkers, each loaded when it is first used
    "errors": set(),
    "batching": {"errors"},
    "client": {"errors", "wire"},
    "wire": {"errors"},
    "awaited": {"errors", "client"},
    "estimator": {"errors", "client"},
    "files": {"errors"},
    "labels": {"errors"},
    "locks": {"errors"},
    "plan": {"errors"},
    "plugins": {"errors"},
    "ranges": {"errors"},
    "measured": set(),
    "telemetry": {"errors", "measured"},
    "tokens": {"errors"},
    "types": {"errors", "labels", "batching"},
    "datafiles": {"errors"},
    "datatable": {"errors", "labels", "datafiles"},
    "data": VALUES | {"datafiles", "datatable"},
    "datauser": VALUES | {"data", "datafiles", "datatable"},
    "streams": VALUES | {"data", "datauser", "plugins", "ranges", "models"},  # frozen encoders make features of samples
    "sources": {"errors", "labels", "files"},
    "models": VALUES | FILES,
    "gallery": VALUES | {"locks"},
    "learning": VALUES | FILES | {"models"},  # the loop runs models; nothing in models knows of learning
    "release": VALUES | FILES | {"models"},
    "bench": VALUES | FILES | {"streams", "models", "learning", "compose", "locks"},
    "trial": VALUES | FILES | {"models", "learning"},
    "laws": VALUES | FILES | {"models", "learning", "trial"},
    "checks": VALUES | FILES | {"models", "learning", "trial", "laws"},
    "compose": VALUES | FILES | {"models", "learning"},
    "daemon": VALUES | FILES | {"plan", "streams", "models", "learning", "release"},
    "following": VALUES | FILES | {"plan", "sources", "models", "learning", "release", "daemon", "streams"},
    "adapters": VALUES | FILES | {"streams", "models", "learning", "bench", "compose", "datauser"},
    "commands": VALUES | FILES | DATA | {"adapters", "bench", "checks", "client", "compose", "daemon", "following"}
    | {"gallery", "learning", "models", "plan", "release", "sources", "streams", "telemetry", "tokens"},
    "cli": {"errors", "commands"},
    "__main__": {"cli"},
}  # fmt: skip
STRATEGIES = {"errors", "types", "models", "learning"}
STRATEGIES |= {"labels"}  # the label map that `prepare` is handed
SERVING = {"errors", "types", "models", "release", "gallery", "telemetry"}
SERVING |= {"labels"}  # the type of a label, in an answer
SERVING |= {"tokens"}
SERVING |= {"sources"}  # the log that feedback is written to
SERVING |= {"files"}  # LAST_GOOD is replaced as a whole, by the one function that knows how

# Packages that are large, or that only one place may know of: the files (or folders) that may import them.
KEPT_APART = {
    "avalanche": {f"lifelong/adapters/{file}.py" for file in ("avalanche", "classics", "counting", "peers")},
    "ray": {"lifelong/adapters/ray.py"},
    "mlflow": {"lifelong/adapters/sinks.py"},
    "wandb": {"lifelong/adapters/sinks.py"},
    "torchvision": {"lifelong/data.py", "lifelong/datauser.py"},
    "sklearn": {"lifelong/data.py"},
    "matplotlib": {
        "lifelong/commands/demo_report.py",
        "lifelong/commands/pictures.py",
        "lifelong/commands/bench_figures.py",
    },
    "faiss": {"lifelong/gallery"},
    "psycopg": {"lifelong/gallery"},
    "fsspec": {"lifelong/release/remote.py"},
    "bentoml": {"serving"},
    "starlette": {"serving"},
    "nats": {"lifelong/sources/jetstream.py"},
    "redis": {"lifelong/sources/redisstream.py"},
    "confluent_kafka": {"lifelong/sources/kafka.py"},
    "pyarrow": {"lifelong/sources/tables.py", "lifelong/commands/bench_report.py"},
    "prometheus_client": {"lifelong/telemetry.py", "serving/pages.py"},
}

# Global settings of torch (or OpenMP) that a process owns: commands and the threads of a server may set them.
SETS_THREADS = {
    "lifelong/bench/cell.py",  # one thread, or sums differ from machine to machine
    "lifelong/commands/demo.py",
    "lifelong/commands/demo_load.py",
    "lifelong/commands/follow.py",
    "lifelong/commands/train.py",
    "lifelong/commands/travel.py",
    "serving/mirror.py",  # the thread that compares, likewise
    "serving/slot.py",  # the watcher thread: OpenMP counts per thread
    "lifelong/gallery/embedded.py",  # only where its caller names a number of threads; FAISS has no narrower way
}
READS_ENVIRONMENT = {
    "lifelong/commands/bench.py",  # hands it on to the processes that it starts
    "lifelong/commands/demo.py",  # hands it on to the server that it starts
    "lifelong/commands/serve.py",  # hands it on to the server that it becomes
    "lifelong/commands/systemd.py",  # the socket of the service manager that started it
    "serving/service.py",  # gives it to serving/settings.py, and binds OpenMP before torch is loaded
}

# Ratchets: these numbers (lengths rounded up to tens) may only fall. A file that got short enough leaves the list.
LONGEST = 250
LONGER = {
    "lifelong/learning/learner.py": 320,
}
LONGEST_TEST = 760  # a test file may be longer, for it has no reader but who looks for one test
IGNORES = 30  # lines with `type: ignore` in what is shipped
TODOS = 0


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree(path)))


def module(path: Path) -> str:
    """`lifelong/learning/__init__.py` is `lifelong.learning`."""
    dotted = name(path).removesuffix(".py").replace("/", ".")
    return dotted.removesuffix(".__init__")


MODULES = {module(path) for path in sources(*WITH_PROGRAMS)}


@cache
def imports(path: Path) -> frozenset[tuple[str, int]]:
    """Modules that a file imports anywhere in it, with the line; `from a import b` is `a.b` where that is a module."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name(path)}:{node.lineno}: write imports in full"
            for alias in node.names:
                longer = f"{node.module}.{alias.name}"
                found.add((longer if longer in MODULES else str(node.module), node.lineno))
    return frozenset(found)


def for_types_only(path: Path) -> set[int]:
    """Lines of the front door that never run; nowhere else does a type excuse an import."""
    guarded = [n for n in tree(path).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    return {inner.lineno for n in guarded for inner in n.body} if module(path) == "lifelong" else set()


def foreign(path: Path, allowed: set[str]) -> Iterator[str]:
    """Imports of parts of `lifelong` that are not `allowed`."""
    for target, line in imports(path):
        root, _, rest = target.partition(".")
        part = rest.partition(".")[0] or "__init__"
        if root == "lifelong" and part not in allowed and line not in for_types_only(path):
            yield f"{name(path)}:{line} imports {target}"


def part_of(path: Path) -> str:
    """`errors` for `lifelong/errors.py`, `learning` for everything below `lifelong/learning/`."""
    return path.relative_to(ROOT / "lifelong").parts[0].removesuffix(".py")


def last(node: ast.expr) -> str:
    """`b` of `a.b`, and `b` of `b`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def calls(path: Path, *names: str) -> Iterator[tuple[int, str]]:
    """Line and dotted text of each call of something that ends in one of `names`."""
    for node in nodes(path):
        if isinstance(node, ast.Call) and last(node.func) in names:
            yield node.lineno, ast.unparse(node.func)


# ---- directions


def test_each_part_of_the_library_imports_only_what_lies_below_it() -> None:
    unlisted = {part_of(path) for path in sources("lifelong")} - set(LIBRARY)
    assert not unlisted, f"say in LIBRARY and docs/architecture.md what {sorted(unlisted)} may import"
    allowed = {path: LIBRARY[part_of(path)] | {part_of(path)} for path in sources("lifelong")}
    wrong = [line for path, parts in allowed.items() for line in foreign(path, parts)]
    assert not wrong


def test_the_table_of_directions_has_no_circle() -> None:
    """What is allowed could be imported all at once, and would still have an order."""
    done: set[str] = set()
    while ready := {part for part, below in LIBRARY.items() if part not in done and below <= done}:
        done |= ready
    assert done == set(LIBRARY)


def test_strategies_know_learning_models_types_and_errors_only() -> None:
    assert not [line for path in sources("strategies") for line in foreign(path, STRATEGIES)]


def test_the_server_knows_nothing_of_training() -> None:
    assert not [line for path in sources("serving") for line in foreign(path, SERVING)]


def test_siblings_meet_through_entry_points_only() -> None:
    """The library imports neither strategies nor the server, and they do not import each other."""
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for folder in OURS
        for path in sources(folder)
        for target, line in imports(path)
        if (root := target.partition(".")[0]) in OURS and root not in (folder, "lifelong")
    ]
    assert not wrong


def test_there_is_no_circle_of_files() -> None:
    """Also not one that an import inside a function hides."""
    edges = {module(p): {t for t, _ in imports(p) if t in MODULES and t != module(p)} for p in sources(*OURS)}
    open_: list[str] = []
    closed: set[str] = set()

    def visit(one: str) -> None:
        assert one not in open_, " -> ".join([*open_[open_.index(one) :], one])
        if one not in closed:
            open_.append(one)
            for other in sorted(edges.get(one, ())):
                visit(other)
            closed.add(open_.pop())

    for one in sorted(edges):
        visit(one)


@pytest.mark.parametrize("package", sorted(KEPT_APART))
def test_a_package_is_kept_in_its_place(package: str) -> None:
    found = {name(path) for path in sources(*OURS) for target, _ in imports(path) if target.split(".")[0] == package}
    wrong = {file for file in found if not any(f"{file}/".startswith(f"{home}/") for home in KEPT_APART[package])}
    assert not wrong


# ---- what a process loads


def loaded(code: str, folder: Path) -> set[str]:
    """Top-level modules of a fresh process after `code`."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIFELONG_")}
    environment |= {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "true", "PYTHONPATH": str(ROOT)}
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(found)


HELP = """
from lifelong import cli
sys.argv = ["lifelong", {arguments}"--help"]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code
"""


@pytest.mark.parametrize("arguments", ["", '"train", ', '"registry", "rollback", '])
def test_help_loads_nothing_heavy(arguments: str, tmp_path: Path) -> None:
    modules = loaded(HELP.format(arguments=arguments), tmp_path)
    assert "click" in modules
    assert not modules & {"torch", "numpy", "bentoml", "faiss", "rich", "prometheus_client", *HEAVY}


HEAVY = {"avalanche", "torchvision", "matplotlib", "ray", "sklearn", "pandas", "psycopg", "tensorboard", "wandb"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "needs", "never"),
    [
        ("lifelong", {"lifelong"}, {"torch", "numpy", "strategies", "serving", "bentoml", "faiss"}),
        ("serving.service", {"torch", "bentoml", "faiss"}, {"strategies"}),
        ("lifelong.streams.scenarios", {"torch"}, {"strategies", "serving", "bentoml", "faiss"}),
        ("lifelong.daemon", {"torch", "safetensors"}, {"strategies", "serving", "bentoml", "faiss"}),
        ("lifelong.checks", {"torch"}, {"strategies", "serving", "bentoml", "faiss"}),
        ("lifelong.client", {"json"}, {"torch", "numpy", "serving", "bentoml", "faiss", "click", "rich"}),
    ],
)
def test_a_process_loads_only_what_it_works_with(entry: str, needs: set[str], never: set[str], tmp_path: Path) -> None:
    modules = loaded(f"import {entry}", tmp_path)
    assert needs <= modules
    assert not modules & (HEAVY | never)


# ---- rules of the house


def test_every_module_of_torch_lives_in_models() -> None:
    """So a server rebuilds a model without importing how it was trained."""
    wrong = [
        f"{name(path)}:{node.lineno} class {node.name}"
        for path in sources(*OURS)
        for node in nodes(path)
        if isinstance(node, ast.ClassDef)
        and {ast.unparse(base).split(".")[-1] for base in node.bases} & {"Module", "Sequential", "ModuleList", "Linear"}
        and not name(path).startswith("lifelong/models/")
    ]
    assert not wrong


def test_no_pickle_is_ever_loaded() -> None:
    wrong = [
        f"{name(path)}:{line} imports {target}"
        for path in sources(*OURS)
        for target, line in imports(path)
        if target.split(".")[0] in {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    ]
    for path in sources(*WITH_PROGRAMS):
        for node in nodes(path):
            if isinstance(node, ast.Call) and last(node.func) == "load":
                said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                called = ast.unparse(node.func)
                if (called == "torch.load" and said.get("weights_only") != "True") or (
                    called in ("np.load", "numpy.load") and said.get("allow_pickle", "False") != "False"
                ):
                    wrong.append(f"{name(path)}:{node.lineno} loads what may be a pickle")
    assert not wrong


def test_no_global_random_state_is_touched() -> None:
    """`torch.manual_seed` seeds everybody; `torch.Generator().manual_seed` seeds its owner."""
    wrong = [
        f"{name(path)}:{line} {text}"
        for path in sources(*OURS)
        for line, text in [*calls(path, "manual_seed", "manual_seed_all", "seed_all"), *calls(path, "seed")]
        if not text.endswith("Generator().manual_seed")
    ]
    assert not wrong


def test_threads_are_set_by_processes_not_by_the_library() -> None:
    names = ("set_num_threads", "set_num_interop_threads", "omp_set_num_threads")
    assert {name(path) for path in sources(*OURS) if any(calls(path, *names))} == SETS_THREADS


def test_the_environment_is_read_where_the_list_says() -> None:
    readers = {
        name(path)
        for path in sources(*OURS)
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and ast.unparse(node) in ("os.environ", "os.getenv")
    }
    assert readers == READS_ENVIRONMENT


def test_nothing_is_caught_and_forgotten() -> None:
    """A bare `except:` or `except BaseException:` hides bugs and interrupts alike."""
    wrong = [
        f"{name(path)}:{node.lineno}"
        for path in sources(*OURS)
        for node in nodes(path)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) == "BaseException")
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert not wrong


def test_tests_are_no_package() -> None:
    """avalanche-lib installs a top-level package `tests`: with an `__init__.py` here one would hide the other."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


# ---- ratchets


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_files_stay_short() -> None:
    long = {name(path): n for path in sources(*OURS, "tools", "benchmarks", "examples") if (n := lines(path)) > LONGEST}
    grown = {file: n for file, n in long.items() if n > LONGER.get(file, LONGEST)}
    assert not grown, "cut these in two; the list only shrinks"
    assert not set(LONGER) - set(long), "short enough now: take these off the list"


def test_no_test_file_gets_longer_than_the_longest() -> None:
    assert max(lines(path) for path in sources("tests")) <= LONGEST_TEST


def test_type_checks_are_switched_off_ever_less_often() -> None:
    assert sum(path.read_text().count("# type: ignore") for path in sources(*OURS)) <= IGNORES


def written() -> Iterator[tuple[Path, str]]:
    """Every text file of the project, wherever a person writes; nothing that is built or run."""
    tops = [path for path in ROOT.iterdir() if path.is_file()]
    below = [path for folder in (*WITH_PROGRAMS, "docs", ".ci") for path in (ROOT / folder).rglob("*")]
    for path in [*tops, *below]:
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".npz", ".png", ".pyc", ".gz"):
            yield path, path.read_text()


def test_nothing_is_left_to_do() -> None:
    """What is open is an entry in docs/log.md or it is not; half-open marks in the code rot."""
    marks = re.compile(r"\b(?:TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
    found = [f"{name(path)}: {mark.group()}" for path, text in written() for mark in marks.finditer(text)]
    assert len(found) <= TODOS, found


def test_no_file_names_the_machine_it_was_written_on() -> None:
    """Home and work folders of a person, a container or a build machine."""
    paths = re.compile(r"(?<![\w.:/<-])/(?:" + "work|root|Users" + r")/|(?<![\w.:/])/home/\w")
    found = [
        f"{name(path)}: {text[m.start() : m.start() + 40]!r}" for path, text in written() for m in paths.finditer(text)
    ]
    assert not found
