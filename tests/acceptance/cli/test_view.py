"""`crochet view`: the page over a store, with the pipeline beside it."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.browser import token
from tests.support.cli import HARBOUR, closure, crochet, exported, refused, report_of, started
from tests.support.server import take_port
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.acceptance


@contextmanager
def viewing(state: Path, *arguments: object) -> Iterator[str]:
    """The address that it prints; it is ended by Ctrl-C, and must end well."""
    running = started("view", "--state", state, *arguments)
    assert running.stdout is not None
    try:
        line = running.stdout.readline()
        found = re.fullmatch(r"The page is at (http://127\.0\.0\.1:\S+) \(good once\)\. Ctrl-C ends it\.\n", line)
        assert found, line
        yield found[1]
    finally:
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=SECONDS)
    assert (running.returncode, errors) == (0, "")


def test_it_goes_on_with_the_work_and_lets_in_once(ready_state: Path) -> None:
    """What an earlier run left open is done while one looks, and then what is asked for there; no one else gets in."""
    first = report_of(crochet("run", HARBOUR, "--state", ready_state, "--budget", 1, "--json"))
    assert not first.closed
    html = {"Accept": "text/html"}
    with viewing(ready_state) as address, httpx.Client(follow_redirects=True, headers=html) as browser:
        assert "main" in browser.get(address).text
        root = address.partition("/enter")[0]
        eventually(lambda: "Every ortho within the limits is stored" in browser.get(f"{root}/corpora/main").text)
        form = f"{root}/corpora/main/best"
        assert browser.post(form, data={"csrf_token": token(browser.get(form).text)}).status_code == 200
        eventually(lambda: ">proven</span>" in browser.get(form).text)
        with httpx.Client(follow_redirects=True, headers=html) as other:
            assert other.get(address).status_code == 401
            assert other.get(f"{root}/v1/corpora").status_code == 401
    assert exported(ready_state) == closure(HARBOUR)


def test_the_port_can_be_chosen_and_a_store_has_one_page(ready_state: Path) -> None:
    port = take_port()
    with viewing(ready_state, "--port", port) as address:
        assert address.startswith(f"http://127.0.0.1:{port}/enter?token=")
        with httpx.Client(follow_redirects=True) as browser:
            assert "There is no corpus yet" in browser.get(address).text
        refused(crochet("view", "--state", ready_state), 4, "state_in_use")
