"""The console: what is open and what failed, why, and what can be done about it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.support import failing_work, steps
from tests.support.browser import Site, check_access

pytestmark = pytest.mark.integration


def test_failed_work_is_found_and_retried(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = steps.new_corpus(at.api.process)
    failing_work.with_failed(at.api.process, corpus, monkeypatch, "ingest.text", "a b, c d, a c, b d")
    page = at.page("/console", scope="admin")
    expect(page.get_by_role("region", name="Errors")).to_contain_text("internal")
    page.goto(f"/corpora/{corpus.name}/work")
    page.get_by_label("State").select_option("failed")
    page.get_by_label("Kind").select_option("ingest")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(f"{at.url}/corpora/{corpus.name}/work?state=failed&kind=ingest&error=")
    address = page.url
    page.get_by_role("region", name="Work").get_by_role("link").click()
    expect(page.get_by_role("listitem").filter(has_text="internal").first).to_be_visible()
    page.goto(address)
    page.locator("[name=work]").check()
    page.get_by_role("button", name="Retry chosen").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Retry 1 piece of work?")
    assert failing_work.states(at.api.process, corpus) == ["failed"]
    page.get_by_role("button", name="Yes, retry").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Done: 1 piece")
    check_access(page)
    steps.run(corpus)
    assert steps.version(at.api.process, corpus) == 1


def test_a_text_is_cancelled_once(at: Site) -> None:
    corpus = steps.new_corpus(at.api.process)
    steps.accept(corpus, "a b, c d, a c, b d")
    page = at.page(f"/corpora/{corpus.name}/work", scope="admin", java_script_enabled=False)
    page.locator("[name=work]").check()
    page.get_by_role("button", name="Cancel chosen").click()
    page.get_by_role("button", name="Yes, cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Done: 1 piece")
    assert [state for state, _ in failing_work.texts(at.api.process, corpus)] == ["cancelled"]


HIDDEN = """
window.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
};
hide(true);
"""


def test_the_console_is_read_again_while_it_is_seen(at: Site) -> None:
    """And not while it is hidden. The time is the browser's, which the test moves."""
    page = at.page(None, scope="admin")
    page.clock.install()
    page.add_init_script(HIDDEN)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.resource_type))
    page.goto("/console")
    corpus = steps.new_corpus(at.api.process)
    failing_work.accepted(corpus, "a b")
    page.clock.run_for(30_000)
    assert "xhr" not in asked
    page.evaluate("hide(false)")
    row = page.get_by_role("region", name="Work by kind").get_by_role("row", name="ingest")
    expect(row.get_by_role("link").first).to_be_visible()
    with page.expect_request(lambda request: request.resource_type == "xhr"):
        page.clock.run_for(10_000)


def test_all_rows_are_chosen_at_once(at: Site) -> None:
    page = at.page("/corpora/harbour/work?state=done", scope="admin")
    page.get_by_role("checkbox", name="Choose all").check()
    expect(page.get_by_role("checkbox", checked=False)).to_have_count(0)
    page.get_by_role("checkbox", name="Choose all").uncheck()
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(0)


def test_who_is_no_admin_has_no_console(at: Site) -> None:
    page = at.page(scope="write")
    expect(page.get_by_role("link", name="Console")).to_have_count(0)
    for address in ("/console", "/corpora/harbour/work", "/console/work/text-1"):
        page.goto(address)
        expect(page.locator(".eyebrow")).to_have_text("403 · forbidden")
