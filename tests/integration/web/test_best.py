"""The best orthos in a browser: asked for, followed, stopped, gone on with to the proof, and where it was read."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine.best import certificate
from crochet_tasks.publish import publish_next
from crochet_tasks.query.best import CERTIFICATES
from tests.support import best, library, steps
from tests.support.api import Api
from tests.support.browser import Site, session
from tests.support.dense import corpus as dense

pytestmark = pytest.mark.integration
HTML = {"Accept": "text/html"}


@pytest.fixture
def busy(api: Api, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """A corpus whose best takes many parts."""
    monkeypatch.setattr(api.process, "settings", api.process.settings.model_copy(update={"best_part_visits": 10}))
    corpus = steps.new_corpus(api.process, [limit or 8 for limit in best.BUSY_SCOPE])
    steps.sql(api.process, "UPDATE corpora SET budget = 1 WHERE id = :c", c=corpus.id)
    steps.accept(corpus, *steps.usable(dense(best.BUSY)))
    steps.run(corpus)
    return corpus


def test_it_is_asked_for_followed_and_proven(at: Site, busy: Corpus, tmp_path: Path) -> None:
    """Each step appears without loading the page again; what is stopped goes on; the certificate is one."""
    page = at.page(f"/corpora/{busy.name}", scope="write")
    page.get_by_role("link", name="The best, proven").click()
    expect(page.get_by_text("Nobody has asked for the best yet.")).to_be_visible()
    page.get_by_role("button", name="Search version").click()
    status = page.get_by_role("status")
    expect(status).to_contain_text("queued")
    while best.read(at.api.process, busy).searching is None or not best.read(at.api.process, busy).parts:
        publish_next(busy.id)
    now = best.read(at.api.process, busy)
    assert now.searching is not None
    expect(status).to_contain_text(f"{now.searching.shape.replace('x', '×')}")
    expect(status).to_contain_text("searching")
    page.get_by_role("button", name="Stop the search").click()
    expect(status).to_contain_text("It was stopped. What is found stays.")
    assert best.read(at.api.process, busy).state == "stopped"
    page.get_by_role("button", name="Go on").click()
    expect(status).to_contain_text("queued")
    steps.run(busy)
    expect(status).to_contain_text("proven")
    proven = best.expected(dense(best.BUSY), best.BUSY_SCOPE)
    shown = page.locator(".proven").first.locator("td").all_inner_texts()
    assert shown == list(proven[0][1])
    assert page.locator(".proven").count() == min(12, len(proven))
    page.locator(".proven summary").first.press("Enter")
    page.locator(".proven li a").first.click()
    expect(page.locator(".concordance .key").first).to_be_visible()
    page.go_back()
    with page.expect_download() as download:
        page.get_by_role("link", name="Certificate").click()
    download.value.save_as(tmp_path / "proof.json")
    proof = CERTIFICATES.validate_json((tmp_path / "proof.json").read_bytes())
    with at.api.process.database.snapshot() as connection:
        tree = at.api.process.tree(connection, busy.id, best.read(at.api.process, busy).version)
    certificate.check(proof, tree)


def test_what_cannot_be_asked_is_said_beside_the_form(at: Site) -> None:
    page = at.page(f"/corpora/{library.HARBOUR}/best", scope="write", java_script_enabled=False)
    page.get_by_label("Longest side").fill("60")
    page.get_by_role("button", name="Search version").click()
    expect(page.get_by_role("alert")).to_have_text("Longest side must lie between 2 and 8, not 60.")
    expect(page.get_by_label("Longest side")).to_have_value("60")
    page.get_by_label("Longest side").fill("8")
    page.get_by_label("Axes").fill("9")
    page.get_by_role("button", name="Search version").click()
    expect(page.get_by_role("alert")).to_have_text("Axes must be at most 8.")


def test_who_may_not_sees_no_way_and_finds_none(api: Api) -> None:
    """Readers, other tenants, jobs of other corpora, forms of other sites."""
    job = f"/corpora/{library.HARBOUR}/best/{api.read.get(f'/v1/corpora/{library.HARBOUR}/best').get_json()['id']}"
    read, token = session(api, "read")
    shown = read.get(job, headers=HTML)
    assert (shown.status_code, "Search version" in shown.text, "Certificate" in shown.text) == (200, False, True)
    for address in (f"/corpora/{library.HARBOUR}/best", f"{job}/cancel"):
        assert read.post(address, data={"csrf_token": token}, headers=HTML).status_code == 403
    write, token = session(api, "write")
    for address in (f"/corpora/{library.HARBOUR}/best", f"{job}/cancel"):
        assert write.post(address, data={"csrf_token": "made up"}, headers=HTML).status_code == 403
    elsewhere = job.replace(library.HARBOUR, library.SCRIPTS)
    for address in (elsewhere, f"{elsewhere}/certificate", f"{job}0", job.replace("best-", "text-")):
        assert write.get(address, headers=HTML).status_code == 404
    assert write.post(f"{elsewhere}/cancel", data={"csrf_token": token}, headers=HTML).status_code == 404
    stranger, token = session(api, "stranger")
    for address in (job, f"{job}/certificate", f"/corpora/{library.HARBOUR}/best"):
        assert stranger.get(address, headers=HTML).status_code == 404
    asked = stranger.post(f"/corpora/{library.HARBOUR}/best", data={"csrf_token": token}, headers=HTML)
    assert asked.status_code == 404


def test_the_page_of_what_is_proven_is_not_read_again(at: Site) -> None:
    """Only what is busy changes without an event. The time is the browser's, which the test moves."""
    page = at.page(None)
    page.clock.install()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.resource_type))
    page.goto(f"/corpora/{library.HARBOUR}/best")
    expect(page.get_by_role("status")).to_contain_text("proven")
    page.clock.run_for(30_000)
    assert "document" in asked
    assert "xhr" not in asked
