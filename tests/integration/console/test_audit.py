"""The audit in the console: across all items, by filters, in pages both ways, and as a file."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest

from crochet_tasks.db import audit
from tests.support import steps
from tests.support.api import Api
from tests.support.pages import Visitor, code
from web import paging

pytestmark = pytest.mark.integration

AUDIT = "/console/audit"


def shown(page: str) -> list[tuple[str, str]]:
    """What changed, and which, of each row."""
    rows = re.findall(r'<span class="tag">(.*?)</span>.*?<code>(.*?)</code>', page, re.DOTALL)
    return [(unescape(what), unescape(subject)) for what, subject in rows]


def changed(api: Api, *names: str) -> None:
    """A corpus of each name, and a budget for it."""
    for name in names:
        api.write.post("/v1/corpora", json={"name": name})
        headers = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
        api.write.patch(f"/v1/corpora/{name}", json={"budget": 7}, headers=headers)


def test_changes_of_all_items_are_shown_with_who_made_them(api: Api) -> None:
    changed(api, "harbour")
    text = api.write.post("/v1/corpora/harbour/texts", json={"body": "a b"}).get_json()["id"]
    page = Visitor(api, "admin").get(AUDIT).text
    rows = shown(page)
    assert rows[:2] == [("work.open", rows[0][1]), ("text.accepted", f"text {text[5:]}")]
    assert [what for what, _ in rows[2:4]] == ["corpus.changed", "corpus.created"]
    assert {"key.created", "tenant.created"} <= {what for what, _ in rows}
    row = page.partition("corpus.changed")[2].partition("</tr>")[0]
    assert api.keys["write"].split("_")[1] in row
    assert "127.0.0.1" in row
    facts = " ".join(re.sub("<[^>]*>", " ", row).split())
    assert "budget 10000000 → 7 " in facts
    assert "harbour" not in facts.partition("budget")[2]  # the name is as it was
    made = page.partition("corpus.created")[2].partition("</tr>")[0]
    assert "name harbour" in " ".join(re.sub("<[^>]*>", " ", made).split())


FILTERED: tuple[tuple[dict[str, str], set[str]], ...] = (
    ({"what": "corpus."}, {"corpus.created", "corpus.changed"}),
    ({"what": "corpus.changed", "corpus": "harbour"}, {"corpus.changed"}),
    ({"corpus": "nowhere"}, set()),
    ({"until": "2020-01-01T00:00"}, set()),
    ({"since": "2999-01-01T00:00:00"}, set()),
    ({"since": "2020-01-01T00:00", "what": "key.created"}, {"key.created"}),
)


@pytest.mark.parametrize(("query", "expected"), FILTERED, ids=[" ".join(query.values()) for query, _ in FILTERED])
def test_filters_leave_what_was_asked_for(api: Api, query: dict[str, str], expected: set[str]) -> None:
    """And the form keeps them."""
    changed(api, "harbour", "market")
    page = Visitor(api, "admin").get(AUDIT, **query).text
    assert {what for what, _ in shown(page)} == expected
    assert all(f'value="{value}"' in page for value in query.values())


def test_a_subject_and_a_key_lead_to_their_changes(api: Api) -> None:
    changed(api, "harbour", "market")
    admin = Visitor(api, "admin")
    ((number,),) = steps.sql(api.process, "SELECT id FROM corpora WHERE name = 'market'")
    links = admin.links(AUDIT)
    of_subject = shown(admin.get(links[f"corpus {number}"]).text)
    assert of_subject == [("corpus.changed", f"corpus {number}"), ("corpus.created", f"corpus {number}")]
    by_key = shown(admin.get(links[api.keys["write"].split("_")[1]]).text)
    assert [what for what, _ in by_key] == ["corpus.changed", "corpus.created"] * 2


def test_pages_lead_back_and_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "AT_ONCE", 3)
    changed(api, "one", "two", "three", "four")
    admin, address = Visitor(api, "admin"), f"{AUDIT}?what=corpus."
    pages = []
    while address:
        pages.append((address, shown(admin.get(address).text)))
        address = admin.links(address).get("Older", "")
    assert [len(rows) for _, rows in pages] == [3, 3, 2]
    everything = [row for _, rows in pages for row in rows]
    assert len(set(everything)) == len(everything) == 8
    back = admin.links(pages[2][0])["Newer"]
    assert shown(admin.get(back).text) == pages[1][1]
    first = admin.links(back)["Newer"]
    assert shown(admin.get(first).text) == pages[0][1]
    assert "Newer" not in admin.links(first)


def test_a_page_that_found_nothing_yet_leads_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks through so many lines and no more."""
    monkeypatch.setattr(audit, "LOOKED_AT", 4)
    api.write.post("/v1/corpora", json={"name": "first"})
    changed(api, *(f"later-{number}" for number in range(4)))
    admin, address = Visitor(api, "admin"), f"{AUDIT}?corpus=first"
    assert "There are older ones" in admin.get(address).text
    found: list[Any] = []
    while address and not found:
        found = shown(admin.get(address).text)
        address = admin.links(address).get("Older", "")
    assert [what for what, _ in found] == ["corpus.created"]


def test_a_file_has_all_that_the_filters_let_through(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is on other pages."""
    monkeypatch.setattr(paging, "AT_ONCE", 2)
    monkeypatch.setattr("web.audit.EXPORTED_AT_ONCE", 3)
    changed(api, "one", "two", "three", "four")
    admin = Visitor(api, "admin")
    answer = admin.get(admin.links(f"{AUDIT}?what=corpus.")["Save as JSON lines"])
    assert (answer.status_code, answer.mimetype) == (200, "application/x-ndjson")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.ndjson"'
    lines = [json.loads(line) for line in answer.text.splitlines()]
    expected = steps.sql(api.process, "SELECT id, what FROM audit WHERE what LIKE 'corpus.%' ORDER BY id DESC")
    assert [(line["id"], line["what"]) for line in lines] == expected
    assert lines[0]["after"]["budget"] == 7


def test_it_is_of_the_own_tenant_and_for_administrators(api: Api) -> None:
    """Operators read that of all, or of one."""
    changed(api, "mine")
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    admin, stranger = Visitor(api, "admin"), Visitor(api, "stranger")
    for path in (AUDIT, f"{AUDIT}.ndjson"):
        assert [name in admin.get(path).text for name in ("mine", "theirs")] == [True, True]
        assert [name in stranger.get(path).text for name in ("mine", "theirs")] == [False, True]
        assert [name in admin.get(path, tenant="other").text for name in ("mine", "theirs")] == [False, True]
        refused = Visitor(api, "write").get(path)
        assert (refused.status_code, code(refused)) == (403, "forbidden")
    assert urlsplit(admin.links("/console")["Audit"]).path == AUDIT
    assert "Audit" not in Visitor(api, "write").links("/corpora")


@pytest.mark.parametrize(
    "query", ["what=DROP", "subject=all", "since=yesterday", "before=x", "after=0", "corpus=a%20b"]
)
def test_what_cannot_be_asked_for_is_said(api: Api, query: str) -> None:
    answer = Visitor(api, "admin").get(f"{AUDIT}?{query}")
    assert answer.status_code in (400, 422)
    assert code(answer) in ("invalid_request", "invalid_cursor")
