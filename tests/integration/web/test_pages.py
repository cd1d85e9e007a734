"""What holds for every page: accessible in both themes, usable on a phone, readable without script, harmless."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.support import library
from tests.support.browser import NARROW, Site

pytestmark = pytest.mark.integration

PAGES = {
    "log-in": "/log-in",
    "corpora": "/corpora",
    "corpus": "/corpora/harbour",
    "empty corpus": "/corpora/empty",
    "new corpus": "/corpora/new",
    "settings": "/corpora/harbour/settings",
    "gallery": "/corpora/harbour/orthos?contains=tide&min_volume=3",
    "dense gallery": "/corpora/harbour/orthos?shape=2x2x2&contains=tide&density=dense&across=1",
    "empty gallery": "/corpora/empty/orthos",
    "gallery without any": "/corpora/harbour/orthos?contains=nowhere",
    "scripts": "/corpora/scripts/orthos",
    "ortho": f"/corpora/harbour/orthos/{library.ORTHO}",
    "word": "/corpora/harbour/phrase?words=the",
    "phrase": "/corpora/harbour/phrase?words=the+wind&sort=left",
    "texts": "/corpora/harbour/texts",
    "text": "/corpora/harbour/texts/text-1",
    "sentence": "/corpora/harbour/texts/text-1/sentences/5?words=the+wind",
    "best": "/corpora/harbour/best",
    "best of nothing": "/corpora/empty/best",
    "console": "/console",
    "work": "/corpora/harbour/work?state=done",
    "hand in": "/corpora/harbour/hand-in",
    "handed in": "/corpora/harbour/handed-in?text=text-1&text=text-2",
    "hostile corpus": "/corpora/hostile",
    "hostile gallery": "/corpora/hostile/orthos",
    "missing": "/corpora/nowhere",
}
"""a page of each kind: add yours"""
ROWS_OF_KEYS = 12
"""stops of the keyboard that are looked at on each page"""


@pytest.mark.parametrize("path", PAGES.values(), ids=list(PAGES))
def test_everybody_can_use_it(at: Site, path: str) -> None:
    """In both themes by the rules of axe-core, by keyboard, on a phone, and without script it says the same."""
    same = {"X-Request-ID": "that-of-a-test"}
    page = at.page(path, scope="admin", color_scheme="light", extra_http_headers=same)
    _axe(page)
    page.emulate_media(color_scheme="dark")
    _axe(page, {"runOnly": ["color-contrast"]})
    if path != "/log-in":  # there the key has the focus
        _keyboard(page)
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    plain = at.page(path, scope="admin", java_script_enabled=False, extra_http_headers=same, viewport=NARROW)
    page.evaluate("[...document.querySelectorAll('main [data-only-with-script]')].forEach(each => each.remove())")
    said, without = (" ".join(each.locator("main").inner_text().split()) for each in (page, plain))
    assert without == said != ""


def _axe(page: Page, options: dict[str, list[str]] | None = None) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"], **(options or {})})
    assert found.violations_count == 0, found.generate_report()


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
