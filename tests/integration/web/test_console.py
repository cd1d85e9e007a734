"""The console: what is open and what failed, why, and what can be done about it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.support import failing_work, steps
from tests.support.api import Api
from tests.support.browser import Site

pytestmark = pytest.mark.integration
HTML = {"Accept": "text/html"}


def test_failed_work_is_found_and_retried(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = steps.new_corpus(at.api.process)
    failing_work.with_failed(at.api.process, corpus, monkeypatch, "ingest.text", "a b, c d, a c, b d")
    page = at.page("/console", scope="admin")
    expect(page.get_by_role("region", name="Errors")).to_contain_text("internal")
    page.get_by_role("link", name=corpus.name, exact=True).click()
    page.get_by_label("State").select_option("failed")
    page.get_by_label("Kind").select_option("ingest")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(f"{at.url}/corpora/{corpus.name}/work?state=failed&kind=ingest")
    address = page.url
    page.get_by_role("region", name="Work").get_by_role("link").click()
    expect(page.get_by_role("listitem").filter(has_text="internal").first).to_be_visible()
    page.goto(address)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Retry chosen").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Retry 1 piece of work?")
    assert failing_work.states(at.api.process, corpus) == ["failed"]
    page.get_by_role("button", name="Yes, retry").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Done: 1 piece")
    steps.run(corpus)
    assert steps.version(at.api.process, corpus) == 1


def test_a_text_is_cancelled_once(at: Site) -> None:
    corpus = steps.new_corpus(at.api.process)
    steps.accept(corpus, "a b, c d, a c, b d")
    page = at.page(f"/corpora/{corpus.name}/work", scope="admin", java_script_enabled=False)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Cancel chosen").click()
    page.get_by_role("button", name="Yes, cancel").click()
    expect(page.get_by_role("status")).to_contain_text("Done: 1 piece")
    assert [state for state, _ in failing_work.texts(at.api.process, corpus)] == ["cancelled"]


def test_who_is_no_admin_has_no_console(at: Site) -> None:
    page = at.page(scope="write")
    expect(page.get_by_role("link", name="Console")).to_have_count(0)
    for address in ("/console", "/corpora/harbour/work", "/corpora/harbour/work/text-1"):
        page.goto(address)
        expect(page.locator(".eyebrow")).to_have_text("403 · forbidden")


def test_nobody_reaches_work_of_another_corpus_or_acts_from_another_site(api: Api) -> None:
    corpus = steps.new_corpus(api.process)
    (text,) = failing_work.accepted(corpus, "a b")
    client = api.app.test_client()
    for key, site, code in (("admin", "harbour", 404), ("stranger", corpus.name, 404)):
        form = client.get("/log-in").text.partition('name="csrf_token" value="')[2].partition('"')[0]
        client.post("/log-in", data={"key": api.keys[key], "csrf_token": form})
        token = client.get("/corpora").text.partition('name="csrf_token" value="')[2].partition('"')[0]
        assert client.get(f"/corpora/{site}/work/{text}", headers=HTML).status_code == code
        sent = {"act": "cancel", "work": text, "csrf_token": token}
        refused = client.post(f"/corpora/{site}/work/act", data=sent, headers=HTML)
        assert refused.status_code in (404, 409)
        sent["csrf_token"] = "made up"
        assert client.post(f"/corpora/{corpus.name}/work/act", data=sent, headers=HTML).status_code == 403
    assert [state for state, _ in failing_work.texts(api.process, corpus)] == ["accepted"]
