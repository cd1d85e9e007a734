"""Reading orthos in a browser, as somebody does who looks for something."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.support import library, oracle
from tests.support.browser import Site
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration
GALLERY = "/corpora/harbour/orthos"


def grids(page: Page) -> list[list[str]]:
    """The words of the grids on a page, row by row."""
    words = "cards => cards.map(card => [...card.querySelectorAll('td')].map(cell => cell.innerText))"
    found: list[list[str]] = page.locator(".card").evaluate_all(words)
    return found


def of_api(site: Site, query: str = "") -> list[list[str]]:
    answer = site.api.read.get(f"/v1/corpora/harbour/orthos?{query}")
    return [each["words"] for each in answer.get_json()["orthos"]]


def test_the_gallery_shows_what_the_api_lists_page_by_page(at: Site) -> None:
    """Best first; forward and back; and the address is the view: another browser shows the same."""
    page = at.lasting(GALLERY)
    assert grids(page) == of_api(at, "limit=48")
    listed = of_api(at, "limit=144")
    for begin in (48, 96):
        page.get_by_role("link", name="Next").click()
        expect(page.locator(".card").first.locator("td")).to_have_text(listed[begin])
    assert grids(page) == listed[96:]
    there = at.page(page.url.removeprefix(at.url))
    assert grids(there) == grids(page)
    for begin in (48, 0):
        there.get_by_role("link", name="Previous").click()
        expect(there.locator(".card").first.locator("td")).to_have_text(listed[begin])
        assert grids(there) == listed[begin : begin + 48]
    page.get_by_role("link", name="First page").click()
    expect(page.locator(".card").first.locator("td")).to_have_text(listed[0])
    expect(page.get_by_role("link", name="Previous")).to_have_count(0)


def test_filters_are_in_the_address_and_can_be_cleared(at: Site) -> None:
    page = at.lasting(GALLERY)
    page.get_by_label("Word").fill("Wind")
    page.get_by_label("Least volume").fill("2")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**/orthos?*")
    query = parse_qs(urlsplit(page.url).query)
    assert query == {"contains": ["Wind"], "min_volume": ["2"]}
    assert grids(page) == of_api(at, "contains=wind&min_volume=2&limit=48") != []
    page.get_by_label("Shape").select_option("3x3")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**shape=3x3**")
    assert grids(page) == of_api(at, "contains=wind&min_volume=2&shape=3x3&limit=48")
    page.get_by_role("link", name="Clear").click()
    expect(page).to_have_url(f"{at.url}{GALLERY}")


@pytest.mark.parametrize("query", ["shape=1x9", "min_volume=many", "cursor=made-up", "density=none"])
def test_an_address_that_cannot_be_is_explained(at: Site, query: str) -> None:
    page = at.lasting(f"{GALLERY}?{query}")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Invalid"))
    expect(page.get_by_role("link", name="All corpora")).to_be_visible()


def test_words_are_completed_from_the_vocabulary(at: Site) -> None:
    page = at.lasting(GALLERY)
    page.get_by_label("Word").press_sequentially("har")
    expect(page.locator("#contains-words option")).to_have_count(1)
    assert page.locator("#contains-words option").get_attribute("value") == "harbour"
    page.get_by_label("Begins with").press_sequentially("old h")
    expect(page.locator("#starts_with-words option").first).to_have_attribute("value", "old harbour")


def test_the_keyboard_is_enough(at: Site) -> None:
    """/ to search, j and k to move, Enter to open, and letters in a field are letters."""
    page = at.lasting(GALLERY)
    page.keyboard.press("/")
    expect(page.get_by_label("Word")).to_be_focused()
    page.keyboard.type("jokj")
    expect(page.get_by_label("Word")).to_have_value("jokj")
    page.get_by_label("Word").fill("wind")
    page.keyboard.press("Enter")
    page.wait_for_url("**contains=wind")
    cards = page.locator(".card .open")
    for key, place in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(cards.nth(place)).to_be_focused()
    words = page.locator(".card").nth(1).locator("td").all_inner_texts()
    page.keyboard.press("Enter")
    expect(page.locator("#ortho td")).to_have_text(words)


def test_an_ortho_says_where_each_line_was_read(at: Site) -> None:
    """Each line is marked in a sentence that holds it, and leads to its places and its text."""
    page = at.lasting(f"{GALLERY}/{library.ORTHO}")
    expect(page.locator("#ortho td")).to_have_text(list(library.WORDS))
    lines = page.locator(".lines > li")
    rows = ["the wind and", "sea came to", "lay in the"]
    columns = ["the sea lay", "wind came in", "and to the"]
    assert lines.locator(".phrase").all_inner_texts() == rows + columns
    for line, words in zip(lines.all(), rows + columns, strict=True):
        assert line.locator("mark").first.inner_text() == words
    lines.nth(4).hover()
    assert page.locator("#ortho td.lit").all_inner_texts() == ["wind", "came", "in"]
    lines.nth(0).locator(".phrase").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("the wind and")
    page.go_back()
    lines.nth(0).locator(".where").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("harbour")


def test_an_ortho_leads_to_its_parent_and_children(at: Site) -> None:
    """The parent is the ortho without the last slab of its longest axis; who has a parent is among its children."""
    page = at.lasting(f"{GALLERY}/{library.ORTHO}")
    page.get_by_role("link", name=re.compile("^2×3")).first.click()
    expect(page.locator("#ortho td")).to_have_count(6)
    parent = page.locator("#ortho td").all_inner_texts()
    assert set(parent) < set(library.WORDS)
    page.locator("section", has=page.locator("#family")).locator(f"a[href$='{library.ORTHO}']").click()
    expect(page.locator("#ortho td")).to_have_text(list(library.WORDS))


@pytest.mark.parametrize("script", [True, False])
def test_a_sentence_is_widened(at: Site, script: bool) -> None:
    """Where it stands, or on a page of its own without a script; as far as the text goes."""
    page = at.lasting(f"{GALLERY}/{library.ORTHO}", script=script)
    line = page.locator(".lines > li").nth(1)
    said = line.locator(".read p").first.inner_text()
    number = int(re.search(r"sentence (\d+)", line.locator(".where").first.inner_text())[1])  # type: ignore[index]
    title = line.locator(".where bdi").first.inner_text()
    text = oracle.sentences((ROOT / "examples" / f"{title}.txt").read_text())
    line.locator(".wider").first.click()
    around = page.locator(".around")
    expect(around.locator(".here")).to_have_text(said)
    expect(around.locator(".here mark").first).to_have_text("sea came to")
    assert page.url.endswith(library.ORTHO) == script
    shown = text[max(0, number - 4) : number + 3]
    expect(around.locator("li")).to_have_text([" ".join(words) for words in shown])
    around.get_by_role("link", name="Wider").click()
    shown = text[max(0, number - 13) : number + 12]
    expect(around.locator("li")).to_have_text([" ".join(words) for words in shown])
    page.goto(f"/corpora/harbour/texts/text-1/sentences/{len(text) + 1000}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")


def test_an_ortho_leads_to_others_that_share_a_line(at: Site) -> None:
    """Wherever the line stands in them; then to all of them in the gallery, which other filters narrow."""
    page = at.lasting(f"{GALLERY}/{library.ORTHO}")
    section = page.locator("section", has=page.locator("#sharing"))
    listed = of_api(at, f"shares_line_with={library.ORTHO}&limit=48")
    shown = section.locator(".card")
    cards = [card.locator("td").all_inner_texts() for card in shown.all()]
    assert [sorted(words) for words in cards] == [sorted(words) for words in listed[: len(cards)]] != []
    section.get_by_role("link", name="All of them").click()
    expect(page.locator(".chosen")).to_contain_text("the wind and")
    assert grids(page) == listed
    page.get_by_label("Shape").select_option("2x3")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**shape=2x3**")
    assert grids(page) == of_api(at, f"shares_line_with={library.ORTHO}&shape=2x3&limit=48") != []
    page.locator(".chosen").get_by_role("link", name="All orthos").click()
    page.wait_for_url(lambda url: "shares" not in url)
    assert grids(page) == of_api(at, "shape=2x3&limit=48")


def test_what_is_rare_says_how_far_was_looked(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crochet_tasks.query.pages.SCANNED_AT_ONCE", 1)
    every = at.api.read.get("/v1/corpora/harbour/shapes").get_json()["total"]
    page = at.lasting(f"{GALLERY}?contains=old")
    note = page.locator(".looked").inner_text()
    looked, of = (int(re.sub(r"\D", "", part)) for part in note.partition(";")[0].split(" of ", 1))
    assert 0 <= looked < of == every
    expect(page.get_by_role("link", name="Next")).to_be_visible()


def test_an_ortho_is_copied_and_downloaded(at: Site, tmp_path: Path) -> None:
    page = at.page(f"{GALLERY}/{library.ORTHO}", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as text").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    lines = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert [line.split() for line in lines[:3]] == [list(library.WORDS[row : row + 3]) for row in (0, 3, 6)]
    saved = {}
    for role, name in (("link", "SVG"), ("link", "JSON"), ("link", "Text"), ("button", "PNG")):
        with page.expect_download() as download:
            page.get_by_role(role, name=name, exact=True).click()  # type: ignore[arg-type]
        assert download.value.suggested_filename.startswith(f"harbour-3x3-{library.ORTHO[:8]}.")
        saved[name] = tmp_path / name
        download.value.save_as(saved[name])
    assert json.loads(saved["JSON"].read_text())["words"] == list(library.WORDS)
    assert all(f">{word}</text>" in saved["SVG"].read_text() for word in library.WORDS)
    assert saved["PNG"].read_bytes().startswith(b"\x89PNG")


def test_layers_of_three_axes_can_be_turned(at: Site) -> None:
    """Whichever axis runs across, the cells are the same."""
    page = at.lasting(f"{GALLERY}?shape=2x2x2")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#ortho caption").first).to_have_text("axis 1, 1 of 2")
    words = page.locator("#ortho td").all_inner_texts()
    page.get_by_role("link", name="axis 1").click()
    expect(page.locator("#ortho caption").first).to_have_text("axis 2, 1 of 2")
    turned = page.locator("#ortho td").all_inner_texts()
    assert turned == [words[4 * one + 2 * two + three] for two in (0, 1) for three in (0, 1) for one in (0, 1)]
    assert sorted(turned) == sorted(words)


def test_a_phrase_is_shown_in_its_places(at: Site) -> None:
    """Sorted by what is before or behind it; it goes on with the words that follow it somewhere."""
    page = at.lasting("/corpora/harbour/phrase?words=the+old")
    places = page.locator(".concordance tr:has(.key)")
    expect(places.first.locator(".key")).to_have_text("the old")
    read = [oracle.sentences((ROOT / "examples" / f"{name}.txt").read_text()) for name in library.TEXTS]
    threes = [each for text in read for words in text for each in zip(words, words[1:], words[2:], strict=False)]
    follows = {last for *before, last in threes if before == ["the", "old"]}
    assert set(page.locator(".tree > li > a").all_inner_texts()) == follows
    number = places.count()
    page.get_by_role("link", name="what comes after").click()
    page.wait_for_url("**sort=right*")
    after = page.locator(".concordance .after").all_inner_texts()
    assert (after, len(after)) == (sorted(after), number)
    page.get_by_role("link", name="harbour", exact=True).last.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("the old harbour")


@pytest.mark.parametrize("script", [True, False])
def test_a_word_goes_on_as_a_tree(at: Site, script: bool) -> None:
    """Level by level, with the keyboard, and without a script; each phrase leads to its own page."""
    page = at.lasting("/corpora/harbour/phrase?words=the", script=script)
    texts = [oracle.sentences((ROOT / "examples" / f"{name}.txt").read_text()) for name in library.TEXTS]
    said = [f" {' '.join(words)} " for text in texts for words in text]
    first = page.locator(".tree > li", has=page.locator("details")).first
    phrase = f"the {first.locator('> a').inner_text()}"
    for _ in range(2):
        first.locator("> details > summary").focus()
        page.keyboard.press("Enter")
        below = first.locator("> details > ul > li")
        expect(below.first).to_be_visible()
        for word in below.locator("> a:not(.note)").all_inner_texts():
            assert any(f" {phrase} {word} " in each for each in said)
        if not below.locator("> details").count():
            break
        first = below.filter(has=page.locator("details")).first
        phrase += f" {first.locator('> a').inner_text()}"
    link = below.locator("> a").first
    word = link.inner_text()
    link.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{phrase} {word}")


def test_all_words_that_go_on_can_be_reached(at: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.word.CONTINUATIONS", 10)
    page = at.lasting("/corpora/harbour/phrase?words=the")
    every = at.api.read.get("/v1/corpora/harbour/phrases?prefix=the&limit=1000").get_json()["phrases"]
    found = page.locator(".tree > li > a").all_inner_texts()
    while page.get_by_role("link", name="More words").count():
        page.get_by_role("link", name="More words").click()
        expect(page.locator(".tree > li > a").first).to_have_text(every[len(found)]["words"][-1])
        found += page.locator(".tree > li > a").all_inner_texts()
    assert found == [each["words"][-1] for each in every]
    page.get_by_role("link", name="First words").click()
    expect(page.locator(".tree > li > a").first).to_have_text(found[0])


def test_a_corpus_shows_how_it_grew(at: Site) -> None:
    """Words, phrases and orthos by version, as lines, as a table and as data."""
    page = at.lasting("/corpora/harbour")
    expect(page.get_by_role("img", name=re.compile("^Orthos by version"))).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Growth as CSV").click()
    rows = [line.split(",") for line in download.value.path().read_text().splitlines()]
    assert rows[0] == ["version", "words", "phrases", "orthos"]
    texts = [(ROOT / "examples" / f"{name}.txt").read_text() for name in library.TEXTS]
    total = at.api.read.get("/v1/corpora/harbour/shapes").get_json()["total"]
    assert [row[0] for row in rows[1:]] == ["1", "2"]
    assert 0 < int(rows[1][3]) < int(rows[2][3]) == total
    assert [int(row[1]) for row in rows[1:]] == [
        len({word for text in texts[:version] for words in oracle.sentences(text) for word in words})
        for version in (1, 2)
    ]


def test_the_shapes_of_a_corpus_are_data_too(at: Site) -> None:
    page = at.lasting("/corpora/harbour")
    with page.expect_download() as download:
        page.get_by_role("link", name="Shapes as CSV").click()
    rows = [line.split(",") for line in download.value.path().read_text().splitlines()]
    assert rows[0] == ["shape", "volume", "orthos"]
    shapes = at.api.read.get("/v1/corpora/harbour/shapes").get_json()["shapes"]
    assert {row[0]: int(row[2]) for row in rows[1:]} == {
        "x".join(map(str, each["shape"])): each["orthos"] for each in shapes
    }
    assert [int(row[1]) for row in rows[1:]] == sorted((int(row[1]) for row in rows[1:]), reverse=True)


def test_an_ortho_is_printed_without_what_can_only_be_clicked(at: Site) -> None:
    """In the light theme, whatever is chosen, as the paper is white."""
    (first, *_) = at.api.read.get("/v1/corpora/harbour/orthos?limit=1").get_json()["orthos"]
    page = at.lasting(f"/corpora/harbour/orthos/{first['id']}")
    body, light = page.locator("body"), "rgb(31, 28, 24)"
    page.emulate_media(color_scheme="light")
    expect(body).to_have_css("color", light)
    page.emulate_media(color_scheme="dark")
    expect(body).not_to_have_css("color", light)
    expect(page.locator(".top nav")).to_be_visible()
    page.emulate_media(media="print")
    expect(body).to_have_css("color", light)
    expect(page.locator(".top nav")).to_be_hidden()
    assert set(first["words"]) <= set(page.locator("#ortho").inner_text().split())
    page.emulate_media(media="null", color_scheme="light")


def test_a_text_is_shaded_by_orthos(at: Site) -> None:
    """What stands in many orthos more than what stands in few; its words lead to their places."""
    page = at.lasting("/corpora/harbour/texts")
    page.get_by_role("link", name="harbour-evening").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("harbour-evening")
    pairs = "words => words.map(each => [each.innerText.toLowerCase(), each.className])"
    shades = dict(page.locator(".body a").evaluate_all(pairs))
    assert shades["the"] == "s5"
    assert len(set(shades.values())) > 2
    page.locator(".body a", has_text="harbour").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("harbour")


def test_scripts_stand_as_they_are_written(at: Site) -> None:
    """Arabic from right to left, the grid too; a word of 60 letters breaks nothing; no cell hides a word."""
    page = at.lasting("/corpora/scripts/orthos")
    arabic = page.locator("table.ortho[dir=rtl]")
    expect(arabic).to_have_count(1)
    left, right = (arabic.locator("td").nth(place).bounding_box() for place in (1, 0))
    assert left is not None
    assert right is not None
    assert left["x"] < right["x"]
    assert {"समुद्र", "海", library.LONG} <= {word for words in grids(page) for word in words}
    page.locator(".card", has_text=library.LONG).locator(".open").click()
    expect(page.locator("#ortho td").first).to_have_text(library.LONG)
    box = page.locator("#ortho td").first.bounding_box()
    assert box is not None
    assert box["width"] < 600


@pytest.mark.parametrize("number", range(len(library.TITLES)))
def test_what_somebody_wrote_into_a_text_runs_nowhere(at: Site, number: int) -> None:
    """Scripts in titles and bodies are letters: `at` fails where one runs, or where the policy had to stop it."""
    page = at.lasting("/corpora/hostile/texts")  # its request ids are no made-up ones, which might hold 49
    title = library.TITLES[number]
    page.get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(title)
    expect(page.locator(".body")).to_contain_text("alert(1)")
    page.locator(".body a").first.click()
    expect(page.locator(".concordance")).to_be_visible()
    page.goto(f"/corpora/harbour/phrase?words={title.replace('#', '')}")
    expect(page.locator("main")).not_to_contain_text("49")
