"""Tokens and what they open: closed by default, told apart by their hash alone, never written down."""

from __future__ import annotations

import hashlib

import pytest
from click.testing import CliRunner

from lifelong import tokens
from lifelong.cli import cli
from lifelong.errors import ConfigError, UnknownName
from serving.auth import Keys, needed
from serving.exchange import Exchange
from serving.limits import Rates
from serving.problems import Problem
from serving.settings import Settings


def asked(keys, path, secret=None, host="127.0.0.1:3000", server="127.0.0.1"):
    """The status with which a request is let in (200) or refused, and by whose token."""
    head = [(b"host", host.encode())]
    if secret is not None:
        head.append((b"authorization", f"Bearer {secret}".encode()))
    exchange = Exchange(head=dict(head))
    try:
        keys.admit({"path": path, "server": (server, 3000)}, exchange)
    except Problem as problem:
        return problem.status, exchange.who
    return 200, exchange.who


def test_a_request_shown_in_a_log_does_not_show_its_token():
    assert "secret" not in repr(Exchange(head={b"authorization": b"Bearer secret"}))


PATHS = {"read": "/v1/predict", "write": "/v1/gallery/add", "admin": "/v1/admin/promote"}


def test_what_is_kept_is_the_sha256_and_nothing_else():
    """Against hashlib; the secret is in no part of what is kept."""
    secret, kept = tokens.make("alice", "admin")
    assert kept.line() == f"alice admin {hashlib.sha256(secret.encode()).hexdigest()}"
    assert secret not in repr(kept)
    assert tokens.parse(f"# all\n\n{kept.line()} # hers") == (kept,)
    assert tokens.find(secret, [kept]) == kept
    assert tokens.find(secret + "x", [kept]) is None
    assert len({tokens.make("a", "read")[0] for _ in range(20)}) == 20


@pytest.mark.parametrize("line", ["alice admin", "alice admin SECRET", "al/ice admin " + "a" * 64, "a b c d"])
def test_a_line_that_is_none_is_refused_without_quoting_it(line):
    """It might hold a token."""
    with pytest.raises(ConfigError) as caught:
        tokens.parse(line)
    assert "SECRET" not in str(caught.value)


def test_an_unknown_scope_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'admin'"):
        tokens.make("alice", "admn")


@pytest.mark.parametrize("scope", tokens.SCOPES)
def test_each_scope_opens_itself_and_what_is_below(scope):
    secret, kept = tokens.make("it", scope)
    keys = Keys(Settings(tokens=kept.line()))
    rank = tokens.SCOPES.index(scope)
    for number, name in enumerate(tokens.SCOPES):
        assert asked(keys, PATHS[name], secret) == (200 if number <= rank else 403, "it")
        assert asked(keys, PATHS[name])[0] == 401
        assert asked(keys, PATHS[name], "ll_wrong") == (401, "")
    assert asked(keys, "/livez") == (200, "")


def test_without_tokens_reading_is_open_and_the_rest_closed():
    keys = Keys(Settings())
    assert [asked(keys, PATHS[name])[0] for name in tokens.SCOPES] == [200, 403, 403]


@pytest.mark.parametrize(
    ("host", "server", "status"),
    [
        ("127.0.0.1:3000", "127.0.0.1", 200),
        ("localhost", "127.0.0.1", 200),
        ("[::1]:3000", "::1", 200),
        ("evil.example", "127.0.0.1", 403),  # a web page whose name resolves to 127.0.0.1
        ("127.0.0.1", "10.0.0.7", 403),
        ("", "127.0.0.1", 403),
    ],
)
def test_insecure_is_for_loopback_only(host, server, status):
    keys = Keys(Settings(insecure=True))
    assert asked(keys, PATHS["admin"], host=host, server=server)[0] == status


def test_insecure_and_tokens_exclude_each_other():
    with pytest.raises(ConfigError, match="insecure"):
        Keys(Settings(insecure=True, tokens=tokens.make("a", "read")[1].line()))


def test_public_read_opens_reading_only():
    keys = Keys(Settings(public_read=True, tokens=tokens.make("a", "write")[1].line()))
    assert [asked(keys, PATHS[name])[0] for name in tokens.SCOPES] == [200, 401, 401]


def test_the_file_is_followed_and_a_broken_one_changes_nothing(tmp_path):
    """Rotation without a restart; an empty file lets nobody in."""
    path = tmp_path / "tokens"
    old, kept = tokens.make("old", "admin")
    new, newer = tokens.make("new", "admin")
    path.write_text(kept.line())
    keys = Keys(Settings(tokens_file=str(path)))
    path.write_text(f"{kept.line()}\n{newer.line()}\n")
    keys.refresh()
    assert [asked(keys, PATHS["admin"], s)[0] for s in (old, new)] == [200, 200]
    path.write_text("nonsense")
    keys.refresh()
    assert asked(keys, PATHS["admin"], new)[0] == 200
    path.write_text(newer.line() + "\n")
    keys.refresh()
    assert [asked(keys, PATHS["admin"], s)[0] for s in (old, new)] == [401, 200]
    path.write_text("")
    keys.refresh()
    assert [asked(keys, p, new)[0] for p in PATHS.values()] == [401, 401, 401]


def test_a_missing_file_stops_the_start(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(Settings(tokens_file=str(tmp_path / "none")))


@pytest.mark.parametrize("path", ["/v1/admin/", "/v1/admin/anything", "/v1/admin/promote"])
def test_everything_below_admin_needs_admin(path):
    assert needed(path) == "admin"


def test_the_command_shows_the_token_once_and_keeps_its_hash(tmp_path):
    file = tmp_path / "new" / "tokens"
    done = CliRunner().invoke(cli, ["token", "alice", "--scope", "admin", "--file", str(file)])
    secret = done.stdout.strip()
    (kept,) = tokens.parse(file.read_text())
    assert tokens.find(secret, [kept]) == kept
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    again = CliRunner().invoke(cli, ["token", "alice", "--file", str(file)])
    assert isinstance(again.exception, ConfigError)


def test_a_client_gets_a_burst_and_then_its_rate():
    """A bucket of 3, refilled with 2 per second, by a clock of our own."""
    rates = Rates(2.0, 3)
    taken = []
    for now in (0.0, 0.0, 0.0, 0.1, 0.6, 0.6):
        try:
            rates.take("a", now)
            taken.append(True)
        except Problem as problem:
            assert (problem.status, problem.head()) == (429, {"retry-after": "1"})
            taken.append(False)
    rates.take("b", 0.6)
    assert taken == [True, True, True, False, True, False]
