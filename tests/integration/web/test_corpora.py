"""Making, changing and deleting corpora in a browser, and watching one grow."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from crochet_tasks.publish import publish_next
from tests.support import steps
from tests.support.browser import Site

pytestmark = pytest.mark.integration


def send(page: Page, button: str, **fields: str) -> None:
    """Fill the fields with these labels, and press the button."""
    for label, value in fields.items():
        page.get_by_label(label.replace("_", " ")).fill(value)
    page.get_by_role("button", name=button).click()


def test_a_corpus_is_made_changed_and_deleted(at: Site) -> None:
    """Whatever its name is: no page of another kind has an address that a corpus may have."""
    page = at.page(scope="admin")
    page.get_by_role("link", name="New corpus").click()
    send(page, "Make it", Name="new", Axes="2", Budget="5000")
    expect(page.get_by_role("heading", level=1)).to_have_text("new")
    expect(page.get_by_text("2 axes, side 8, 64 cells")).to_be_visible()
    made = at.api.read.get("/v1/corpora/new").get_json()
    assert (made["limits"]["max_axes"], made["budget"]) == (2, 5000)
    page.get_by_role("link", name="Settings").click()
    send(page, "Save", Name="orchard", Description="Apples & <b>pears</b>", Budget="")
    expect(page.get_by_role("heading", level=1)).to_have_text("orchard")
    expect(page.get_by_text("Apples & <b>pears</b>")).to_be_visible()
    found = at.api.read.get("/v1/corpora/orchard").get_json()
    assert (found["budget"], found["priority"]) == (None, 0)
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Priority").select_option("2")
    send(page, "Save")
    assert at.api.read.get("/v1/corpora/orchard").get_json()["priority"] == 2
    page.get_by_role("link", name="Settings").click()
    send(page, "Delete corpus", to_confirm="garden")
    expect(page.get_by_role("alert")).to_have_text("Nothing was deleted: type orchard to confirm.")
    send(page, "Delete corpus", to_confirm="orchard")
    expect(page).to_have_title("Corpora · crochet")
    expect(page.get_by_role("link", name="orchard")).to_have_count(0)


def test_a_form_that_is_sent_twice_makes_one_corpus(at: Site) -> None:
    """A double click sends it once; where it comes twice all the same, it leads to what it made."""
    page = at.page("/new-corpus", scope="write")
    page.get_by_label("Name").fill("double")
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    page.get_by_role("button", name="Make it").dblclick()
    expect(page.get_by_role("heading", level=1)).to_have_text("double")
    assert len(posts) == 1
    page = at.page("/new-corpus", scope="write")
    send(page, "Make it", Name="double")
    expect(page.get_by_role("heading", level=1)).to_have_text("double")
    page = at.page("/new-corpus", scope="write")
    send(page, "Make it", Name="double", Axes="2")
    expect(page.get_by_role("alert")).to_have_text("There is a corpus 'double' already.")


def test_what_is_wrong_with_a_form_is_said_beside_it(at: Site) -> None:
    page = at.page("/new-corpus", scope="write")
    send(page, "Make it", Name="harbour")
    expect(page.get_by_role("alert")).to_have_text("There is a corpus 'harbour' already.")
    expect(page.get_by_label("Name")).to_have_value("harbour")
    page.locator("form.stack").evaluate("form => form.noValidate = true")
    send(page, "Make it", Longest_side="99", Name="sides")
    expect(page.get_by_role("alert")).to_have_text("Longest side must be at most 64.")


def test_a_change_of_what_somebody_else_has_changed_is_refused(at: Site) -> None:
    steps.new_corpus(at.api.process, name="shared")
    mine, other = (at.page("/corpora/shared/settings", scope="write") for _ in range(2))
    send(other, "Save", Description="theirs")
    expect(other.get_by_text("theirs")).to_be_visible()
    send(mine, "Save", Description="mine")
    expect(mine.get_by_role("alert")).to_contain_text("Somebody has changed it meanwhile")
    assert at.api.read.get("/v1/corpora/shared").get_json()["description"] == "theirs"


def test_who_may_only_read_sees_nothing_to_change(at: Site) -> None:
    page = at.page("/corpora/harbour")
    for name in ("Settings", "New corpus"):
        expect(page.get_by_role("link", name=name)).to_have_count(0)
    page.goto("/corpora/harbour/settings")
    expect(page.get_by_text("needs the scope 'write'")).to_be_visible()
    writer = at.page("/corpora/harbour/settings", scope="write")
    expect(writer.get_by_role("button", name="Save")).to_be_visible()
    expect(writer.get_by_role("button", name="Delete corpus")).to_have_count(0)


def test_other_tenants_see_nothing(at: Site) -> None:
    page = at.page(scope="stranger")
    expect(page.get_by_text("There is no corpus yet.")).to_be_visible()
    page.goto("/corpora/harbour")
    expect(page.get_by_role("heading", level=1)).to_have_text("Corpus unknown")


def test_a_page_follows_the_work(at: Site) -> None:
    """What is found appears without loading the page again, and what is open stays open."""
    corpus = steps.new_corpus(at.api.process, name="growing")
    steps.accept(corpus, steps.TEXTS[0])
    page = at.page("/corpora/growing")
    shown = page.locator("main")  # beside it the change of state is announced to screen readers
    expect(shown.get_by_text("working")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    steps.run(corpus)
    expect(shown.get_by_text("Every ortho within the limits is stored.")).to_be_visible()
    found = at.api.read.get("/v1/corpora/growing/shapes").get_json()["total"]
    expect(page.get_by_role("link", name=f"All {found}")).to_be_visible()
    steps.accept(corpus, steps.TEXTS[1])
    expect(shown.get_by_text("working")).to_be_visible()
    steps.run(corpus)
    expect(page.get_by_role("heading", name="Growth")).to_be_visible()
    assert page.evaluate("window.sameDocument")


def test_an_estimate_is_made_for_who_asks(at: Site) -> None:
    corpus = steps.new_corpus(at.api.process, name="unfinished")
    steps.accept(corpus, *steps.TEXTS[:2])
    for _ in range(2):
        publish_next(corpus.id)
    page = at.page("/corpora/unfinished")
    page.get_by_role("link", name="Estimate how many there are in all").click()
    expect(page.get_by_text(re.compile("^The texts hold [0-9]+ orthos, counted"))).to_be_visible()
