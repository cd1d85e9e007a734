"""What holds for every page: accessible in both themes, usable on a phone, readable without script, harmless."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from playwright.sync_api import Page, expect

from crochet_tasks.reporting import queue_depths
from crochet_tasks.reporting.queue_depths import Depths
from tests.support import library
from tests.support.browser import NARROW, Site, check_access
from web import gallery, paging, text, word

pytestmark = pytest.mark.integration

PAGES = {
    "log-in": "/log-in",
    "corpora": "/corpora",
    "corpus": "/corpora/harbour",
    "empty corpus": "/corpora/empty",
    "new corpus": "/new-corpus",
    "settings": "/corpora/harbour/settings",
    "gallery": "/corpora/harbour/orthos?contains=sky&min_volume=3",
    "dense gallery": "/corpora/harbour/orthos?shape=2x2x2&contains=tide&density=dense&across=1",
    "empty gallery": "/corpora/empty/orthos",
    "gallery without any": "/corpora/harbour/orthos?contains=nowhere",
    "scripts": "/corpora/scripts/orthos",
    "ortho": f"/corpora/harbour/orthos/{library.ORTHO}",
    "word": "/corpora/harbour/phrase?words=tide",
    "orthos that share a line": f"/corpora/harbour/orthos?shares_line_with={library.ORTHO}",
    "phrase": "/corpora/harbour/phrase?words=the+wind&sort=left",
    "texts": "/corpora/harbour/texts",
    "text": "/corpora/harbour/texts/text-1",
    "sentence": "/corpora/harbour/texts/text-1/sentences/5?words=the+wind",
    "best": "/corpora/harbour/best",
    "best of nothing": "/corpora/empty/best",
    "console": "/console",
    "work": "/corpora/harbour/work?state=done",
    "piece of work": "/console/work/text-1",
    "confirm": "/console/confirm?act=drop&work=text-1&work=text-2",
    "queues": "/console/queues",
    "dead letters": "/console/dead",
    "audit": "/console/audit",
    "audit of a text": "/console/audit?subject=text+1&what=text.&since=2026-01-01T00:00:00",
    "log": "/console/log",
    "keys": "/console/keys",
    "tenants": "/console/tenants",
    "add texts": "/corpora/harbour/add",
    "added texts": "/corpora/harbour/added?text=text-1&text=text-2",
    "hostile corpus": "/corpora/hostile",
    "hostile gallery": "/corpora/hostile/orthos",
    "missing": "/corpora/nowhere",
}
"""a page of each kind: add yours"""
AGE = r"[0-9]+(\u202f(s|min|h)| days?) ago|just now"
ROWS_OF_KEYS = 12
"""stops of the keyboard that are looked at on each page"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages hold little, so most of them lead on, and they are quickly looked at."""
    for module, name, value in ((gallery, "AT_ONCE", 6), (word, "PLACES", 6), (text, "SHOWN", 300)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(paging, "AT_ONCE", 6)
    monkeypatch.setattr(word, "CONTINUATIONS", 6)
    begun = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    history = [Depths(begun + dt.timedelta(seconds=30 * place), {"search": place}) for place in range(31)]
    monkeypatch.setattr(queue_depths, "read", lambda *_: history)


@pytest.mark.parametrize("path", PAGES.values(), ids=list(PAGES))
def test_everybody_can_use_it(at: Site, path: str) -> None:
    """In both themes by the rules of axe-core, by keyboard, on a phone, and without script it says the same."""
    page = at.lasting(path)
    check_access(page)
    if path != "/log-in":  # there the key has the focus
        _keyboard(page)
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    plain = at.lasting(path, script=False, viewport=NARROW)
    if not _same(page, plain):  # on the console something may have become too old to be shown between the two
        page.reload()
        plain.reload()
        assert _same(page, plain)


def _same(page: Page, plain: Page) -> bool:
    """Whether they say the same, but for what is there for scripts only."""
    page.evaluate("[...document.querySelectorAll('main [data-only-with-script]')].forEach(each => each.remove())")
    return _said(page) == _said(plain) != ""


def _said(page: Page) -> str:
    """Without numbers and ages, which change meanwhile."""
    words = " ".join(page.locator("main").inner_text().split())
    return re.sub(r"[0-9][0-9.:\u202f]*", "0", re.sub(AGE, "ago", words))


def _keyboard(page: Page) -> None:
    """Tab goes through what can be done, and shows where it is."""
    stops = page.locator("a[href]:visible, button:visible, input:not([type=hidden]):visible, select:visible").count()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    reached = set()
    for _ in range(min(stops, ROWS_OF_KEYS)):
        what, visible = page.evaluate(
            "(() => { const at = document.activeElement;"
            " return [at.outerHTML, getComputedStyle(at).outlineStyle !== 'none']; })()"
        )
        assert visible, what
        reached.add(what)
        page.keyboard.press("Tab")
    assert len(reached) == min(stops, ROWS_OF_KEYS)
