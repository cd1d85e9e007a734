"""What holds for every page: accessible in both themes, usable on a phone, readable without script, harmless."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.support.browser import NARROW, Site

pytestmark = pytest.mark.integration

PAGES = {
    "log-in": "/log-in",
    "corpora": "/corpora",
    "corpus": "/corpora/harbour",
    "empty corpus": "/corpora/empty",
    "missing": "/corpora/nowhere",
}
"""a page of each kind: add yours"""
LOADED = {name: pytest.param(path, id=name) for name, path in PAGES.items()}


@pytest.mark.parametrize("path", LOADED.values())
def test_it_is_accessible_in_both_themes(at: Site, path: str) -> None:
    """By the rules of axe-core, contrast among them; at no other width is a page wider than the window."""
    page = at.page(path, scope="admin", color_scheme="light")
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("path", LOADED.values())
def test_it_fits_a_phone(at: Site, path: str) -> None:
    page = at.page(path, viewport=NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


@pytest.mark.parametrize("path", LOADED.values())
def test_it_can_be_read_without_script(at: Site, path: str) -> None:
    """What it says is the same."""
    same = {"X-Request-ID": "that-of-a-test"}
    with_, without = (
        at.page(path, scope="admin", java_script_enabled=on, extra_http_headers=same).locator("main")
        for on in (True, False)
    )
    expect(without).not_to_be_empty()
    text = "[...document.querySelectorAll('main [data-only-with-script]')].forEach(each => each.remove())"
    with_.page.evaluate(text)
    assert " ".join(without.inner_text().split()) == " ".join(with_.inner_text().split())


@pytest.mark.parametrize("path", [LOADED[name] for name in LOADED if name != "log-in"])  # there the key has the focus
def test_the_keyboard_reaches_everything(at: Site, path: str) -> None:
    """Tab goes through all that can be done, in order, and shows where it is."""
    page = at.page(path)
    stops = page.locator("a[href]:visible, button:visible, input:not([type=hidden]):visible, select:visible").count()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    reached = set()
    for _ in range(min(stops, 12)):
        focus = page.evaluate(
            "(() => { const at = document.activeElement, style = getComputedStyle(at);"
            " return [at.outerHTML, style.outlineStyle !== 'none']; })()"
        )
        assert focus[1], focus[0]
        reached.add(focus[0])
        page.keyboard.press("Tab")
    assert len(reached) > 2
