"""Adding texts: paste, files, the estimate before, and watching them become versions."""

from __future__ import annotations

import io
import re

import pytest
from playwright.sync_api import FilePayload, expect

from crochet_tasks.db.corpora import Corpus
from tests.support import steps
from tests.support.api import Api
from tests.support.browser import Site, session

pytestmark = pytest.mark.integration
SQUARE = "a b, c d, a c, b d"
"""one ortho: a b / c d"""
HTML = {"Accept": "text/html"}


@pytest.fixture
def corpus(api: Api) -> Corpus:
    return steps.new_corpus(api.process)


def file(name: str, content: str | bytes) -> FilePayload:
    body = content.encode() if isinstance(content, str) else content
    return {"name": name, "mimeType": "text/plain", "buffer": body}


def test_a_pasted_text_becomes_a_version_while_one_looks_on(at: Site, corpus: Corpus) -> None:
    page = at.page(f"/corpora/{corpus.name}", scope="write")
    page.get_by_role("link", name="Add texts").click()
    page.get_by_label("Paste a text").fill(SQUARE)
    page.get_by_label("Its title").fill("a square")
    page.get_by_role("button", name="Add texts").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Added texts")
    expect(page.get_by_role("status")).to_contain_text("1 text of 1 not read yet")
    steps.run(corpus)
    expect(page.get_by_role("status")).to_contain_text("complete Every ortho within the limits is stored: 1")
    expect(page.get_by_role("row", name=re.compile("a square"))).to_contain_text("version 1")


def test_the_estimate_comes_first_and_files_stay_chosen(at: Site, corpus: Corpus) -> None:
    """Nothing is accepted by it. Each file is a text, in their order, by its name."""
    page = at.page(f"/corpora/{corpus.name}/add", scope="write")
    page.get_by_label("Or choose files").set_input_files([file("one.txt", SQUARE), file("two.txt", f"{SQUARE}, e f")])
    page.get_by_role("button", name="Estimate").click()
    expect(page.locator("#estimate")).to_contain_text("With these 2 texts the corpus holds 1 ortho, counted")
    assert steps.sql(at.api.process, "SELECT FROM texts WHERE corpus = :corpus", corpus=corpus.id) == []
    page.get_by_role("button", name="Add texts").click()
    expect(page.get_by_role("link", name="one.txt")).to_be_visible()
    titles = steps.sql(at.api.process, "SELECT title FROM texts WHERE corpus = :corpus ORDER BY seq", corpus=corpus.id)
    assert titles == [("one.txt",), ("two.txt",)]


def test_files_can_be_dropped(at: Site, corpus: Corpus) -> None:
    page = at.page(f"/corpora/{corpus.name}/add", scope="write")
    page.evaluate(
        "body => { const to = document.querySelector('[data-drop]'), files = new DataTransfer();"
        " files.items.add(new File([body], 'dropped.txt', {type: 'text/plain'}));"
        " to.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true})); }",
        SQUARE,
    )
    page.get_by_role("button", name="Add texts").click()
    expect(page.get_by_role("link", name="dropped.txt")).to_be_visible()


def test_without_script_and_by_keyboard(at: Site, corpus: Corpus) -> None:
    """The estimate is a page then, which keeps what was pasted; and the state is one that is loaded again."""
    page = at.page(f"/corpora/{corpus.name}/add", scope="write", java_script_enabled=False)
    page.get_by_label("Paste a text").focus()
    page.keyboard.type(SQUARE)
    page.keyboard.press("Tab")
    page.keyboard.type("typed")
    page.keyboard.press("Enter")
    expect(page.locator("#estimate")).to_contain_text("With “typed” the corpus holds 1 ortho, counted")
    page.get_by_role("button", name="Add texts").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("not read yet")
    steps.run(corpus)
    page.get_by_role("link", name="Load again").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("complete")


NO_TEXTS = {
    b"caf\xe9 au lait": "'it.txt' is not UTF-8 (at offset 3): it looks like Latin-1",
    b"\x1f\x8b\x08": "'it.txt' is not UTF-8 (at offset 1): it looks compressed with gzip",
    b"a\0b": "'it.txt' holds a NUL character",
    b"1 2 3": "'it.txt' holds no words: nothing with a letter in it.",
}


def test_what_is_no_text_is_said_as_the_api_says_it(at: Site, corpus: Corpus) -> None:
    """Also of the second file: then the first is not accepted, either."""
    page = at.page(f"/corpora/{corpus.name}/add", scope="write")
    for content, said in NO_TEXTS.items():
        page.get_by_label("Or choose files").set_input_files([file("good.txt", SQUARE), file("it.txt", content)])
        page.get_by_role("button", name="Estimate").click()
        expect(page.get_by_role("alert")).to_contain_text(said)
        page.get_by_role("button", name="Add texts").click()
        expect(page.get_by_role("alert")).to_contain_text(said)
    assert steps.sql(at.api.process, "SELECT FROM texts WHERE corpus = :corpus", corpus=corpus.id) == []


def test_what_is_too_large_is_refused_as_by_the_api(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 150_000  # more than a field of other forms may have
    monkeypatch.setitem(api.app.config, "MAX_CONTENT_LENGTH", 3 * limit)
    monkeypatch.setitem(
        api.app.extensions,
        "crochet.settings",
        api.app.extensions["crochet.settings"].model_copy(update={"max_text_bytes": limit}),
    )
    client, token = session(api, "write")
    address, whole = f"/corpora/{corpus.name}/add", SQUARE + " e" * (limit // 2 - len(SQUARE))
    sent = {"csrf_token": token, "title": "large", "act": "accept"}
    multipart = "multipart/form-data"
    large = client.post(address, data={**sent, "body": f"{whole} e e e e e e e e e e e e"}, content_type=multipart)
    assert (large.status_code, "larger than the limit of 150000 bytes" in large.text) == (413, True)
    files = {**sent, "files": (io.BytesIO((whole * 2).encode()), "large.txt")}
    assert client.post(address, data=files, content_type=multipart).status_code == 413
    accepted = client.post(address, data={**sent, "body": whole}, content_type=multipart)
    assert accepted.status_code == 303
    beyond = {**sent, "body": "e " * (3 * limit // 2)}
    answer = client.post(address, data=beyond, content_type=multipart, headers=HTML)
    assert (answer.status_code, "request_too_large" in answer.text) == (413, True)


def test_nothing_at_all_is_no_text(at: Site, corpus: Corpus) -> None:
    page = at.page(f"/corpora/{corpus.name}/add", scope="write")
    page.get_by_role("button", name="Add texts").click()
    expect(page.get_by_role("alert")).to_contain_text("There is no text yet")


def test_where_there_is_no_room_one_is_told_what_was_accepted(
    at: Site, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at.api.process, "settings", at.api.process.settings.model_copy(update={"max_waiting_texts": 1}))
    page = at.page(f"/corpora/{corpus.name}/add", scope="write")
    page.get_by_label("Or choose files").set_input_files([file("one.txt", SQUARE), file("two.txt", "a b")])
    page.get_by_role("button", name="Add texts").click()
    expect(page.get_by_role("alert")).to_contain_text(
        re.compile(r"1 texts of this corpus wait already.* 1 of 2 were accepted.*text-\d+")
    )


def test_who_may_only_read_sees_no_way_in(at: Site, corpus: Corpus) -> None:
    page = at.page(f"/corpora/{corpus.name}")
    expect(page.get_by_role("heading", level=1)).to_have_text(corpus.name)
    expect(page.get_by_role("link", name=re.compile("hand", re.IGNORECASE))).to_have_count(0)
    page.goto(f"/corpora/{corpus.name}/add")
    expect(page.locator(".eyebrow")).to_have_text("403 · forbidden")


def test_a_form_of_another_site_hands_nothing_in(api: Api, corpus: Corpus) -> None:
    client, _ = session(api, "write")
    address = f"/corpora/{corpus.name}/add"
    for sent in ({"body": SQUARE}, {"body": SQUARE, "csrf_token": "made up"}):
        answer = client.post(address, data=sent, content_type="multipart/form-data", headers=HTML)
        assert (answer.status_code, "form_refused" in answer.text) == (403, True)
    assert steps.sql(api.process, "SELECT FROM texts WHERE corpus = :corpus", corpus=corpus.id) == []
