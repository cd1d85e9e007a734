"""Lists of work in the console, and acts on it: by filters, page by page, across corpora and tenants."""

from __future__ import annotations

import re

import pytest

from crochet_tasks.access import keys
from crochet_tasks.db import dead_letters
from crochet_tasks.db.process import Process
from tests.support import failing_work, steps
from tests.support.api import Api
from tests.support.pages import Visitor, code
from web import paging

pytestmark = pytest.mark.integration
ROWS = re.compile(r'name="work" value="([^"]+)"')


def in_order(process: Process, condition: str = "true", moment: str = "created_at") -> list[str]:
    statement = f"SELECT id FROM work WHERE {condition} ORDER BY {moment} DESC, id DESC"
    return [str(row[0]) for row in steps.sql(process, statement)]


def turn_over(visitor: Visitor, address: str, label: str) -> list[list[str]]:
    """The rows of each page, from this one on until there is no more such link."""
    pages = []
    while address:
        pages.append(ROWS.findall(visitor.get(address).text))
        address = visitor.links(address).get(label, "")
        assert len(pages) < 100
    return pages


def test_every_row_is_on_one_page_in_both_directions(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several of them were written at the same moment."""
    monkeypatch.setattr(paging, "AT_ONCE", 3)
    for _ in range(2):
        failing_work.accepted(steps.new_corpus(api.process), *(f"a{number} b" for number in range(5)))
    tied = "UPDATE work SET created_at = (SELECT min(created_at) FROM work) WHERE id IN (SELECT id FROM work LIMIT 5)"
    steps.sql(api.process, tied)
    expected = in_order(api.process)
    assert len(expected) == 10
    visitor = Visitor(api, "admin")
    forth = turn_over(visitor, "/console/work", "Older")
    assert forth == [expected[:3], expected[3:6], expected[6:9], expected[9:]]
    last = "/console/work"
    for _ in range(3):
        last = visitor.links(last)["Older"]
    assert turn_over(visitor, last, "Newer") == [expected[9:], expected[6:9], expected[3:6], expected[:3]]


def test_what_has_ended_is_listed_by_when_it_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "AT_ONCE", 2)
    corpus = steps.new_corpus(api.process)
    steps.accept(corpus, "a b, c d, a c, b d")
    steps.run(corpus)
    steps.sql(api.process, "UPDATE work SET finished_at = finished_at - interval '1 h' WHERE kind = 'search'")
    pages = turn_over(Visitor(api, "admin"), "/console/work?state=done", "Older")
    assert [each for page in pages for each in page] == in_order(api.process, "state = 'done'", "finished_at")
    assert len(pages) > 1


def test_filters_stay_in_the_address(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "AT_ONCE", 1)
    for _ in range(2):
        corpus = steps.new_corpus(api.process)
        failing_work.with_failed(api.process, corpus, monkeypatch, "ingest.text", "a b")
    (first, second) = in_order(api.process, "state = 'failed'")
    steps.sql(api.process, """UPDATE work SET error = error || '{"code": "text_failed"}' WHERE id = :id""", id=first)
    visitor = Visitor(api, "admin")
    assert visitor.links("/console")["internal"] == "/console/work?error=internal"
    assert ROWS.findall(visitor.get("/console/work?error=internal").text) == [second]
    assert ROWS.findall(visitor.get("/console/work?state=failed&kind=search").text) == []
    older = visitor.links("/console/work?state=failed&kind=ingest")["Older"]
    assert re.fullmatch(r"/console/work\?state=failed&kind=ingest&after=[0-9]+\.[0-9a-f]{32}", older)
    assert ROWS.findall(visitor.get(older).text) == [second]
    of_one = f"/corpora/{corpus.name}/work?state=failed"
    assert ROWS.findall(visitor.get(of_one).text) == [first]


def test_what_no_list_is_asked_by_is_refused(api: Api) -> None:
    admin = Visitor(api, "admin")
    for refused, address in (
        ("invalid_cursor", "work?after=1"),
        ("invalid_cursor", "work?before=x"),
        ("invalid_cursor", "work?after=1.0"),
        ("invalid_request", "work?state=odd"),
        ("invalid_request", "work?error=%00"),
        ("invalid_request", "work?kind=text"),
        ("invalid_request", "confirm?act=drop"),
        ("invalid_request", "confirm?act=delete&work=text-1"),
        ("invalid_request", "log?about=odd"),
        ("invalid_request", "log?key=%00"),
        ("invalid_cursor", "log?after=0"),
        ("invalid_cursor", "log?before=9999999999999999999"),
    ):
        answer = admin.get(f"/console/{address}")
        assert (answer.status_code, code(answer)) == (422, refused), address


def test_a_tenant_sees_and_changes_its_own_work_only(api: Api) -> None:
    """Operators see all of it; what they do is in the log of whose work it is."""
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    theirs = api.stranger.post("/v1/corpora/theirs/texts", json={"body": "a b"}).get_json()["id"]
    corpus = steps.new_corpus(api.process)
    (mine,) = failing_work.accepted(corpus, "c d")
    stranger, operator = Visitor(api, "stranger"), Visitor(api, "admin")
    assert len(ROWS.findall(stranger.get("/console/work").text)) == 1
    assert len(ROWS.findall(operator.get("/console/work").text)) == 2
    (item,) = ROWS.findall(operator.get(f"/corpora/{corpus.name}/work").text)
    for name in (mine, item):
        for refused in (
            stranger.get(f"/console/work/{name}"),
            stranger.get(f"/console/confirm?act=cancel&work={name}"),
        ):
            assert (refused.status_code, code(refused)) == (404, "not_found")
        assert stranger.post("/console/act", {"act": "cancel", "work": name}).status_code == 409
    assert operator.post("/console/act", {"act": "cancel", "work": mine}, token="made up").status_code == 403
    assert [state for state, _ in failing_work.texts(api.process, corpus)] == ["accepted"]
    assert operator.get(f"/console/work/{theirs}").status_code == 200
    assert operator.post("/console/act", {"act": "cancel", "work": theirs}).status_code == 200
    (line,) = (each for each in keys.log(api.process.database, 100) if each.what == "work.cancelled")
    assert (line.tenant, line.key) == ("other", api.keys["admin"].split("_")[1])
    assert line.address is not None
    assert line.request is not None
    assert line.details == {"corpus": "theirs", "work": theirs}


def test_work_is_dropped_after_it_was_shown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus lacks it then, which is said; it can be retried."""
    corpus = steps.new_corpus(api.process)
    (failed,) = failing_work.with_failed(api.process, corpus, monkeypatch, "search.part", "a b, c d, a c, b d")
    operator = Visitor(api, "admin")
    assert ">Drop chosen<" in operator.get("/console/work?state=failed").text
    asked = operator.get(f"/console/confirm?act=drop&work={failed.id}").text
    assert "Drop 1 piece of work?" in asked
    assert failed.about in asked
    assert failing_work.states(api.process, corpus) == ["failed"]
    done = operator.post("/console/act", {"act": "drop", "work": failed.id})
    assert "is incomplete until it is retried" in done.text
    assert failing_work.states(api.process, corpus, state="cancelled") == ["cancelled"]
    again = operator.post("/console/act", {"act": "drop", "work": failed.id})
    assert (again.status_code, "Not done" in again.text) == (409, True)
    assert operator.post("/console/act", {"act": "retry", "work": failed.id}).status_code == 200
    assert [each.what for each in keys.log(api.process.database, 100) if each.what.startswith("work.")] == [
        "work.dropped",
        "work.retried",
    ]


def test_a_dead_letter_is_for_operators_and_dropped_for_good(api: Api) -> None:
    with api.process.database.transaction() as connection:
        letter = {"reason": "rejected", "task": None, "message": None, "body": b"<b>", "died_at": "2026-01-01"}
        dead_letters.add(connection, queue="search", **letter)
    ((number,),) = steps.sql(api.process, "SELECT id FROM dead_letters")
    name = f"dead-{number}"
    assert Visitor(api, "stranger").get(f"/console/work/{name}").status_code == 404
    operator = Visitor(api, "admin")
    assert "&lt;b&gt;" in operator.get(f"/console/work/{name}").text
    assert "Not done" in operator.post("/console/act", {"act": "retry", "work": name}).text
    done = operator.post("/console/act", {"act": "drop", "work": name})
    assert (done.status_code, ">deleted<" in done.text) == (200, True)
    assert steps.sql(api.process, "SELECT id FROM dead_letters") == []
    assert operator.get(f"/console/work/{name}").status_code == 404
