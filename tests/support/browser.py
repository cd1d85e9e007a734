"""A browser for tests of the page: Debian's Chromium, driven by Playwright.

    def test_something(at: Site) -> None:
        page = at.page()                        # logged in with a key of scope `read`, on the list of corpora
        page = at.page("/corpora/x", scope="write", java_script_enabled=False, viewport={"width": 360, ...})
        page = at.lasting("/corpora/x")         # the same session in all tests, for who only looks: quicker

Every test fails on an error in the console, a violation of the Content-Security-Policy or of Trusted Types, an
exception in a script, and any request to another host: `Site.check` asks for that when the test is over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.base import AxeResults
from axe_playwright_python.sync_playwright import Axe
from flask.testing import FlaskClient
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from api.asgi import SESSION_COOKIE
from tests.support.api import Api
from tests.support.server import find_program
from tests.support.waiting import SECONDS

NARROW: ViewportSize = {"width": 360, "height": 740}
WIDE: ViewportSize = {"width": 1280, "height": 720}
EXPECTED = "Failed to load resource: the server responded with a status of"
"""what Chromium writes for an error page that a test asked for"""


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Raises Missing where there is no Chromium."""
    program = find_program("chromium", "usr/bin/chromium")
    expect.set_options(timeout=1000 * SECONDS)
    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=str(program), args=[*sandbox, "--disable-dev-shm-usage", "--force-color-profile=srgb"]
        )
        yield browser
        browser.close()


def token(html: str) -> str:
    """The CSRF token of a page's forms."""
    return html.partition('name="csrf_token" value="')[2].partition('"')[0]


def session(api: Api, scope: str) -> tuple[FlaskClient, str]:
    """What a browser has that is logged in, without one; and the CSRF token of its forms."""
    client = api.app.test_client()
    client.post("/log-in", data={"key": api.keys[scope], "csrf_token": token(client.get("/log-in").text)})
    return client, token(client.get("/corpora").text)


def check_access(page: Page) -> None:
    """By the rules of axe-core, in both themes; of the second one the colours, as nothing else is different."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(Axe().axe_script)
    page.emulate_media(color_scheme="light")
    _axe(page)
    page.emulate_media(color_scheme="dark")
    _axe(page, runOnly=["color-contrast"])


def _axe(page: Page, **options: list[str]) -> None:
    found = AxeResults(page.evaluate("options => axe.run(options)", {"resultTypes": ["violations"], **options}))
    assert found.violations_count == 0, found.generate_report()


@dataclass
class Site:
    """The page on a server, and the browser that shows it."""

    browser: Browser
    api: Api
    url: str
    problems: list[str] = field(default_factory=list)
    _contexts: list[BrowserContext] = field(default_factory=list)
    _lasting: dict[bool, Page] = field(default_factory=dict)
    _cookies: dict[str, Any] = field(default_factory=dict)

    def page(self, path: str | None = "/corpora", scope: str | None = "read", **options: Any) -> Page:
        """A new page of a new browser session, logged in with a key of this scope, or not at all."""
        context = self.browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(1000 * SECONDS)
        self._contexts.append(context)
        if scope is not None:
            context.add_cookies([self._session(scope)])  # type: ignore[list-item]
        page = context.new_page()
        self._watch(page)
        if path is not None:
            page.goto(path)
        return page

    def lasting(self, path: str, *, script: bool = True, viewport: ViewportSize = WIDE) -> Page:
        """A page for who only looks, of a session with all scopes; it is open already, so this takes half the time."""
        page = self._lasting.get(script)
        if page is None:
            same = {"X-Request-ID": "that-of-a-test"}  # which an error page shows
            page = self.page(None, "admin", java_script_enabled=script, extra_http_headers=same)
            self._contexts.remove(page.context)
            self._lasting[script] = page
            if script:
                page.add_init_script(Axe().axe_script)
        if page.viewport_size != viewport:
            page.set_viewport_size(viewport)
        page.goto(path)
        return page

    def check(self) -> None:
        """Close all pages, and fail where something was wrong in one of them."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()
        for page in self._lasting.values():
            if page.url != "about:blank":
                page.goto("about:blank")
        problems, self.problems = self.problems, []
        assert not problems, problems

    def _session(self, scope: str) -> dict[str, str]:
        """The cookie of a session, begun as the log-in does it: once, because each test needs one."""
        if scope not in self._cookies:
            cookie = session(self.api, scope)[0].get_cookie(SESSION_COOKIE)
            assert cookie is not None
            self._cookies[scope] = cookie.value
        return {"name": SESSION_COOKIE, "value": self._cookies[scope], "url": self.url, "sameSite": "Strict"}

    def _watch(self, page: Page) -> None:
        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not message.text.startswith(EXPECTED):
                self.problems.append(f"{page.url}: {message.text}")

        def asked(request: Request) -> None:
            if not request.url.startswith((self.url, "blob:", "data:")):
                self.problems.append(f"{page.url}: a request to {request.url}")

        page.on("console", said)
        page.on("pageerror", lambda error: self.problems.append(f"{page.url}: {error}"))
        page.on("request", asked)
