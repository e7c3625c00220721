"""The dashboard in a real browser: shows what is there, follows by itself, works by keyboard alone and on a phone."""

from __future__ import annotations

import json

import pytest
from browser import PROGRAM, Browser
from servers import wait

from lifelong import tokens
from lifelong.client import Client
from lifelong.release.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="needs chromium")]
X = [[0.1, 0.2, 0.3, 0.4]]
TAB, ENTER = ("Tab", 9), ("Enter", 13, "\r")


def to(browser, condition):
    """Press Tab until what has the focus fulfils a condition: nothing may be out of reach of a keyboard."""
    for _ in range(60):
        if browser.value(f"Boolean((e => {condition})(document.activeElement))"):
            return
        browser.press(*TAB)
    raise AssertionError(f"no way to {condition} by keyboard")


def test_an_operator_promotes_by_keyboard_and_reads_it_on_a_phone(server, kit):
    """A token, a promotion with a reason, what feedback tells; texts are shown as text, never as markup."""
    secret, kept = tokens.make("ann", "admin")
    server.settings = {"LIFELONG_TOKENS": kept.line(), "LIFELONG_TOKENS_FILE": ""}
    registry = Registry(server.folder / "registry", create=True)
    kit.publish(registry, 2)
    registry.promote(1, why="<img src=x onerror=document.title=1>")
    server.start().up()
    with Client(server.url, token=secret, timeout=30) as client:
        wait(lambda: client.ready(1))
        client.add(["a"], X)
        (told,) = client.predict(X, remember=True)["predictions"]
        client.feedback({told["id"]: "ant"})
    with Browser() as browser:
        browser.open(server.url + "/ui")
        browser.wait("document.getElementById('said').textContent.startsWith('401')")
        to(browser, "e.id === 'token'")
        browser.type(secret)
        browser.press(*ENTER)
        browser.wait("document.getElementById('live').textContent === 'version 1 is live'")
        text = browser.value("document.body.innerText")
        assert "1 worker" in text
        assert "100\u00a0%" in text  # of the labels
        assert "<img src=x" in text
        assert browser.value("document.title") == "lifelong"
        to(browser, "e.textContent === 'Promote 2'")
        browser.press(*ENTER)
        browser.wait("document.getElementById('ask').open")
        to(browser, "e.id === 'why'")
        browser.type("looks good")
        to(browser, "e.value === 'yes'")
        browser.press(*ENTER)
        browser.wait("document.getElementById('live').textContent === 'version 2 is live'")
        browser.wait("document.body.innerText.includes('looks good')")
        assert browser.value("document.documentElement.scrollWidth <= 1280")
        assert json.loads(browser.value("JSON.stringify(localStorage)")) == {}  # the token ends with the tab
    with Browser(390, 844, phone=True) as phone:
        phone.open(server.url + "/ui")
        phone.wait("document.getElementById('token')")
        phone.value(f"sessionStorage.token = {secret!r}")
        phone.wait("document.getElementById('live').textContent === 'version 2 is live'")
        assert phone.value("document.documentElement.scrollWidth <= 390")  # only tables scroll sideways
        small = "[...document.querySelectorAll('main button')].filter(b => b.offsetHeight < 32).length"
        assert phone.value(small) == 0
    last = registry.history()[-1]
    assert (last.kind, last.version, last.who, last.why) == ("promote", 2, "http:ann", "looks good")
    assert secret not in server.log


LOSE = """
globalThis.sent = []; globalThis.lose = true; const real = fetch;
globalThis.fetch = async (to, about) => {
  const answer = await real(to, about);
  if (!String(to).includes("admin")) return answer;
  sent.push(about.headers["idempotency-key"]);
  if (lose) throw new TypeError("the connection broke");
  return answer;
};
globalThis.shown = show; show = () => 0;
"""


def clicked(browser, calls):
    """Click on the rollback, twice as a nervous hand does, and on what is asked then; wait for so many calls in all."""
    browser.value("document.getElementById('rollback').click(), document.getElementById('rollback').click()")
    browser.value("document.querySelector('#ask [value=yes]').click()")
    browser.wait(f"sent.length === {calls} && !busy")


def test_a_click_is_one_step_however_often_it_is_sent(server, kit):
    """A rollback whose answer is lost and which is asked for again is one; the next one is another; Escape is none."""
    registry = Registry(server.folder / "registry", create=True)
    kit.publish(registry, 4)
    for version in (1, 2, 3, 4):
        registry.promote(version)
    server.start().up()
    with Browser() as browser:
        browser.open(server.url + "/ui")
        browser.wait("current && current.version === 4")
        browser.value(LOSE)  # and what happened is not shown: as if the connection were gone
        clicked(browser, 1)
        assert browser.value("document.getElementById('said').textContent").startswith("no answer")
        browser.value("globalThis.lose = false")
        clicked(browser, 2)
        assert browser.value("document.getElementById('said').textContent") == "rollback: done"
        assert browser.value('sent[0] === sent[1] && /^"[0-9a-f]{32}"$/.test(sent[0])')
        assert registry.current() == 3
        clicked(browser, 3)
        assert browser.value("sent[2] !== sent[0]")
        assert registry.current() == 2
        browser.value("show = shown")
        browser.wait("document.getElementById('live').textContent === 'version 2 is live'")
        browser.value("document.getElementById('rollback').click()")
        browser.press("Escape", 27)
        browser.wait("!document.getElementById('ask').open")
        assert browser.value("new Promise(said => setTimeout(() => said(!busy && sent.length === 3), 50))")
    assert [event.kind for event in registry.history()[-3:]] == ["promote", "rollback", "rollback"]
