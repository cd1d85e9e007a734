"""Texts over HTTP: submitted once, in order, within bounds; read and cancelled."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from typing_extensions import Buffer
from werkzeug.test import TestResponse

from crochet_tasks.access import tenancy
from crochet_tasks.app import Step
from crochet_tasks.db import corpora, operators, outbox
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.process import Process
from crochet_tasks.errors import BrokerUnavailable, CorpusUnknown
from crochet_tasks.intake import admission
from crochet_tasks.operate import cancelling
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of, made

pytestmark = pytest.mark.integration

URL = "/v1/corpora/genesis/texts"


def post(api: Api, body: str = "the sea", title: str = "a title", **headers: str) -> TestResponse:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.write.post(URL, json={"title": title, "body": body}, headers=given)


def rows(process: Process) -> list[tuple[object, ...]]:
    return steps.sql(process, "SELECT title, body FROM texts ORDER BY seq")


def at_once(*calls: Callable[[], TestResponse]) -> list[TestResponse]:
    """Their answers, asked for at the same time, each in a thread of its own."""
    answers: dict[int, TestResponse] = {}
    start = threading.Barrier(len(calls))

    def ask(place: int) -> None:
        start.wait()
        answers[place] = calls[place]()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[place] for place in range(len(calls))]


# ── hurried ────────────────────────────────────────────────────────────────────────────────────


def test_a_text_is_given_a_priority(api: Api, corpus: Corpus) -> None:
    """Up to that of the caller's role, in either form of the body, and of a whole batch; the audit has it."""
    plain = {"Content-Type": "text/plain"}
    first = api.write.post(f"{URL}?priority=1", data="the sea", headers=plain)
    assert (first.status_code, first.get_json()["priority"]) == (202, 1)
    api.problem(api.write.post(f"{URL}?priority=2", json={"body": "the land"}), "priority_too_high", 403)
    assert api.admin.post(f"{URL}?priority=3", json={"body": "the land"}).get_json()["priority"] == 3
    for wrong in ("4", "-1", "high"):
        api.problem(api.admin.post(f"{URL}?priority={wrong}", json={"body": "the air"}), "invalid_request", 422)
    body = {"texts": [{"body": "the air"}, {"body": "the sea"}]}
    api.problem(api.write.post(f"{URL}/batch?priority=3", json=body), "priority_too_high", 403)
    taken = api.write.post(f"{URL}/batch?priority=1", json=body).get_json()["texts"]
    assert [(each["status"], each["text"]["priority"]) for each in taken] == [(202, 1), (200, 1)]
    assert post(api, "the moon").get_json()["priority"] == 0
    lines = api.admin.get("/v1/audit?what=text.accepted").get_json()["lines"]
    assert [line["after"].get("priority") for line in lines] == [None, 1, 3, 1]


def test_a_key_of_a_request_is_of_one_priority(api: Api, corpus: Corpus) -> None:
    """Without one the request is as it was before there were any."""
    headers = {"Idempotency-Key": "again"}
    assert api.write.post(f"{URL}?priority=1", json={"body": "the sea"}, headers=headers).status_code == 202
    again = api.write.post(URL, json={"body": "the sea"}, headers=headers)
    api.problem(again, "idempotency_key_reused", 422)


def test_a_text_that_is_posted_again_after_it_was_cancelled_has_the_new_priority(api: Api, corpus: Corpus) -> None:
    text = api.write.post(f"{URL}?priority=1", json={"body": "the sea"}).get_json()["id"]
    api.write.post(f"{URL}/{text}/cancel")
    assert post(api, "the sea").get_json()["priority"] == 0
    assert (text, api.read.get(f"{URL}/{text}").get_json()["priority"]) == ("text-1", 0)


# ── submitted ──────────────────────────────────────────────────────────────────────────────────


def test_a_text_becomes_a_version(api: Api, corpus: Corpus) -> None:
    """202 says where to look; there is its place in the queue, and its version when it has one."""
    answer = post(api, steps.TEXTS[0])
    assert (answer.status_code, answer.headers["Location"]) == (202, f"{URL}/text-1")
    assert (answer.get_json()["state"], answer.get_json()["position"]) == ("accepted", 1)
    assert post(api, steps.TEXTS[1]).get_json()["position"] == 2
    steps.run(corpus)
    seen = api.read.get(answer.headers["Location"])
    assert (seen.get_json()["state"], seen.get_json()["version"], seen.get_json()["position"]) == ("current", 1, None)
    assert seen.headers["X-Crochet-Version"] == "2"
    again = api.read.get(answer.headers["Location"], headers={"If-None-Match": seen.headers["ETag"]})
    assert (again.status_code, again.headers["X-Crochet-Version"]) == (304, "2")


def test_plain_text_is_taken_as_it_is(api: Api, corpus: Corpus) -> None:
    """As a stream, with its title in the address; a byte order mark is none of it."""
    answer = api.write.post(f"{URL}?title=a+title", data="\ufeffthé sea\r\n".encode(), content_type="text/plain")
    assert answer.status_code == 202
    assert rows(api.process) == [("a title", "thé sea\r\n")]


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_body_that_comes_in_chunks(api: Api, corpus: Corpus, kind: str) -> None:
    """Without a Content-Length."""
    body = b"the sea" if kind == "text/plain" else b'{"title": "t", "body": "the sea"}'
    query = "?title=t" if kind == "text/plain" else ""
    assert chunked(api, body, kind, query).status_code == 202
    assert rows(api.process) == [("t", "the sea")]


def chunked(api: Api, body: bytes, kind: str, query: str = "?title=t") -> TestResponse:
    return api.write.post(
        f"{URL}{query}",
        input_stream=io.BytesIO(body),
        content_type=kind,
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )


@pytest.mark.parametrize(
    ("body", "kind", "query", "code", "status"),
    [
        (b"the sea", "text/html", "?title=t", "wrong_content_type", 415),
        (b"the sea", "", "?title=t", "wrong_content_type", 415),
        (b"the sea", "text/plain; charset=utf-16", "?title=t", "wrong_content_type", 415),
        (b"title=t&body=b", "application/x-www-form-urlencoded", "", "wrong_content_type", 415),
        (b"the sea", "text/plain", "?title=", "invalid_request", 422),
        (b"the sea", "text/plain", "?title=t&more=1", "invalid_request", 422),
        (b"the s\xe9a", "text/plain", "?title=t", "text_not_utf8", 422),
        (b"the s\0a", "text/plain", "?title=t", "text_has_nul", 422),
        (b"1 2 3", "text/plain", "?title=t", "text_without_words", 422),
        (b"", "text/plain", "?title=t", "text_without_words", 422),
        (b'{"title": "t", "body": "1 2"}', "application/json", "", "text_without_words", 422),
        (b'{"title": "t", "body": "the\\u0000sea"}', "application/json", "", "text_has_nul", 422),
        (b'{"title": "t", "body": "the sea \\ud800"}', "application/json", "", "text_not_utf8", 422),
        (b'{"title": "t", "body": "the sea \xe9"}', "application/json", "", "malformed_request", 400),
        (b'{"title": "t\\n", "body": "the sea"}', "application/json", "", "invalid_request", 422),
        (b'{"title": "\\ud800", "body": "the sea"}', "application/json", "", "invalid_request", 422),
        (b'{"title": "", "body": "the sea"}', "application/json", "", "invalid_request", 422),
        (b'{"title": "t", "body": 7}', "application/json", "", "invalid_request", 422),
        (b'{"title": "t"}', "application/json", "", "invalid_request", 422),
        (b'{"title": "t", "body": "the sea", "state": "current"}', "application/json", "", "invalid_request", 422),
        (b'{"title": "t", "body": "the sea"}', "application/json", "?title=u", "invalid_request", 422),
        (b'{"title": ', "application/json", "", "malformed_request", 400),
        (b"[1]", "application/json", "", "invalid_request", 422),
        (b"[" * 100_000, "application/json", "", "invalid_request", 422),
        (b'{"body": ' + b"[" * 1000, "application/json", "", "invalid_request", 422),
    ],
)
def test_what_is_no_text(
    api: Api,
    corpus: Corpus,
    body: bytes,
    kind: str,
    query: str,
    code: str,
    status: int,
) -> None:
    """Each is refused for what is wrong with it, and nothing was accepted."""
    api.problem(api.write.post(f"{URL}{query}", data=body, content_type=kind), code, status)
    assert rows(api.process) == []


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
@pytest.mark.parametrize("known", [True, False])
def test_a_body_that_is_too_large(process: Process, kind: str, known: bool) -> None:
    """Refused when it is announced, or while it comes: what follows is not read."""
    small = made(process, Settings(**SETTINGS, max_text_bytes=1000))
    corpus_of(small)
    body = b"a" * 1001 if kind == "text/plain" else b'{"title": "t", "body": "' + b"a" * 1001 + b'"}'
    query = "?title=t" if kind == "text/plain" else ""
    answer = (
        small.write.post(f"{URL}{query}", data=body, content_type=kind) if known else chunked(small, body, kind, query)
    )
    small.problem(answer, "text_too_large", 413)

    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Buffer) -> int:
            self.given += 1
            assert self.given < 100, "it goes on reading"
            view = memoryview(buffer)
            size = min(len(view), 10_000)
            view[:size] = b"a" * size
            return size

    answer = small.write.post(
        f"{URL}{query}",
        content_type=kind,
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input": Endless(), "wsgi.input_terminated": True},
    )
    assert answer.status_code == 413
    assert rows(process) == []


def test_the_broker_is_not_asked(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it answers or not: the text and its work are in the database, and are done when it is back."""

    def away(*_: object) -> NoReturn:
        raise BrokerUnavailable(reason="a test")

    with monkeypatch.context() as broken:
        broken.setattr(Step, "publish", away)
        assert post(api, steps.TEXTS[0]).status_code == 202
    (item,) = steps.sql(api.process, "SELECT kind, state, published_at FROM work")
    assert item == ("ingest", "open", None)
    steps.run(corpus)
    assert steps.stored(api.process, corpus) == steps.expected(steps.TEXTS[:1])


# ── once ────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_body_is_the_same_text(api: Api, corpus: Corpus) -> None:
    """200 and the first one's id, under whatever title; one that was cancelled is taken again."""
    first = post(api)
    again = post(api, title="another title")
    assert (again.status_code, again.get_json()["id"], again.get_json()["title"]) == (200, "text-1", "a title")
    assert again.headers["Location"] == first.headers["Location"]
    api.write.post(f"{URL}/text-1/cancel")
    retried = post(api)
    assert (retried.status_code, retried.get_json()["id"], retried.get_json()["seq"]) == (202, "text-1", 2)


def test_a_request_that_comes_again(api: Api, corpus: Corpus) -> None:
    """With its key it gets the first answer, whatever has happened since; another request with that key is refused."""
    first = post(api, Idempotency_Key="k1")
    steps.run(corpus)
    again = post(api, Idempotency_Key="k1")
    assert (again.status_code, again.data, again.headers["Location"]) == (202, first.data, first.headers["Location"])
    assert (first.headers.get("Idempotent-Replayed"), again.headers["Idempotent-Replayed"]) == (None, "true")
    api.problem(post(api, "another", Idempotency_Key="k1"), "idempotency_key_reused", 422)
    api.problem(post(api, title="another", Idempotency_Key="k1"), "idempotency_key_reused", 422)
    assert post(api, Idempotency_Key="k2").status_code == 200
    assert rows(api.process) == [("a title", "the sea")]
    for bad in (" ", "x" * 256, "é"):
        api.problem(post(api, Idempotency_Key=bad), "invalid_request", 422)


def test_a_corpus_made_again_takes_a_text_again(api: Api, corpus: Corpus) -> None:
    """What was done for the one before it, of the same name, was not done for it; nor is it in the way of deleting."""
    first = post(api, Idempotency_Key="k1")
    api.admin.delete("/v1/corpora/genesis?confirm=genesis")
    corpus_of(api)
    fresh = post(api, Idempotency_Key="k1")
    assert (fresh.status_code, "Idempotent-Replayed" in fresh.headers) == (202, False)
    assert fresh.headers["Location"] != first.headers["Location"]
    assert api.read.get(fresh.headers["Location"]).status_code == 200
    assert not tenancy.sweep(api.process.database, 60)
    assert steps.sql(api.process, "SELECT count(*) FROM idempotency") == [(1,)]


def test_a_key_is_a_tenants_own(api: Api, corpus: Corpus) -> None:
    """Another tenant may use the same one."""
    post(api, Idempotency_Key="k1")
    api.stranger.post("/v1/corpora", json={"name": "genesis"})
    theirs = api.stranger.post(URL, json={"title": "t", "body": "theirs"}, headers={"Idempotency-Key": "k1"})
    assert (theirs.status_code, theirs.get_json()["title"]) == (202, "t")


def test_what_was_refused_is_not_kept(api: Api, corpus: Corpus) -> None:
    """The key is free for the request as it should have been."""
    api.problem(post(api, "1 2 3", Idempotency_Key="k1"), "text_without_words", 422)
    assert post(api, Idempotency_Key="k1").status_code == 202


def test_the_same_request_twice_at_the_same_time(api: Api, corpus: Corpus) -> None:
    """One is done, the other one gets its answer; of two others with one key, one is refused."""
    same = at_once(*[lambda: post(api, Idempotency_Key="k1")] * 4)
    assert {answer.status_code for answer in same} == {202}
    assert len({answer.data for answer in same}) == 1
    assert sorted("Idempotent-Replayed" in answer.headers for answer in same) == [False, True, True, True]
    others = at_once(lambda: post(api, "one", Idempotency_Key="k2"), lambda: post(api, "two", Idempotency_Key="k2"))
    assert sorted(answer.status_code for answer in others) == [202, 422]
    assert len(rows(api.process)) == 2


def test_ten_texts_at_the_same_time(api: Api, corpus: Corpus) -> None:
    """All are accepted; they become versions in the order of acceptance."""
    answers = at_once(*[lambda n=n: post(api, f"{steps.TEXTS[0]}, word{'x' * n}") for n in range(10)])
    assert [answer.status_code for answer in answers] == [202] * 10
    by_seq = sorted((answer.get_json() for answer in answers), key=lambda line: line["seq"])
    assert [line["seq"] for line in by_seq] == [line["position"] for line in by_seq] == list(range(1, 11))
    steps.run(corpus)
    listed = api.read.get(URL).get_json()["texts"]
    assert [line["id"] for line in listed] == [line["id"] for line in by_seq]
    assert [line["version"] for line in listed] == list(range(1, 11))


# ── not too much ────────────────────────────────────────────────────────────────────────────────


def test_so_many_texts_may_wait(process: Process) -> None:
    """One more is refused with Retry-After; a known one is still answered."""
    small = made(process, Settings(**SETTINGS, max_waiting_texts=2))
    process.settings = Settings(max_waiting_texts=2)
    corpus = corpus_of(small)
    for body in ("one", "two"):
        assert post(small, body, Idempotency_Key=body).status_code == 202
    refused = post(small, "three", Idempotency_Key="three")
    small.problem(refused, "too_busy", 503)
    assert int(refused.headers["Retry-After"]) > 0
    assert (post(small, "two").status_code, post(small, "one", Idempotency_Key="one").status_code) == (200, 202)
    steps.run(corpus)
    assert post(small, "three", Idempotency_Key="three").status_code == 202


def test_so_much_work_may_be_open(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this corpus; another one's is none of its business, nor is what a budget holds back."""
    monkeypatch.setattr("crochet_tasks.intake.admission.BACKLOG_SECONDS", 0.0)
    process.settings = Settings(max_open_work=3)
    small = made(process)
    corpus = corpus_of(small)
    with process.database.transaction() as connection:
        outbox.add(connection, [outbox.search(corpus.id, 0, 1, (n, n + 1)) for n in range(3)])
    small.problem(post(small), "too_busy", 503)
    small.write.post("/v1/corpora", json={"name": "other"})
    assert small.write.post("/v1/corpora/other/texts", json={"title": "t", "body": "a b"}).status_code == 202
    steps.sql(process, "INSERT INTO counts (corpus, sides, orthos, batches) VALUES (:c, '{2,2}', 5, 1)", c=corpus.id)
    steps.sql(process, "UPDATE corpora SET budget = 5 WHERE id = :c", c=corpus.id)
    assert post(small).status_code == 202


# ── read, cancelled ─────────────────────────────────────────────────────────────────────────────


def test_pages_of_texts(api: Api, corpus: Corpus) -> None:
    """In the order of acceptance, each once; one state, if wanted, in which a cursor belongs."""
    for n in range(5):
        post(api, f"text {'x' * (n + 1)}", f"t{n}")
    api.write.post(f"{URL}/text-3/cancel")
    seen: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.read.get(URL, query_string={"limit": 2, **({"cursor": cursor} if cursor else {})}).get_json()
        seen += page["texts"]
        cursor = page["next_cursor"]
    assert [(line["title"], line["position"]) for line in seen] == [
        ("t0", 1),
        ("t1", 2),
        ("t2", None),
        ("t3", 3),
        ("t4", 4),
    ]
    only = api.read.get(f"{URL}?state=cancelled").get_json()
    assert ([line["id"] for line in only["texts"]], only["version"]) == (["text-3"], 0)
    good = api.read.get(f"{URL}?limit=1").get_json()["next_cursor"]
    for query in ({"cursor": good, "state": "accepted"}, {"cursor": good[:-2] + "AA"}):
        api.problem(api.read.get(URL, query_string=query), "invalid_cursor", 422)


def test_a_text_that_failed_says_why(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The details of a bug are not public."""

    def bug(*_: object) -> NoReturn:
        raise ValueError("secret of the inside")

    post(api)
    with monkeypatch.context() as broken:
        broken.setattr("crochet_tasks.db.texts.add", bug)
        with pytest.raises(ValueError, match="secret"):
            steps.run(corpus)
    seen = api.read.get(f"{URL}/text-1")
    assert seen.get_json()["error"] == {"code": "internal", "message": "Something went wrong."}
    assert b"secret" not in seen.data + api.read.get("/v1/corpora/genesis/work").data


@pytest.mark.parametrize("name", ["text-2", "text-0", "text-01", "text-", "1", "text--1", "text-" + "9" * 19, "text-١"])
def test_texts_that_there_are_not(api: Api, corpus: Corpus, name: str) -> None:
    """Whatever they are called."""
    post(api)
    api.problem(api.read.get(f"{URL}/{name}"), "not_found", 404)
    api.problem(api.write.post(f"{URL}/{name}/cancel"), "not_found", 404)


def test_a_text_is_cancelled_until_it_is_a_version(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice is once; the next one moves up; one of which a part takes too long is not, and one that is a version."""
    monkeypatch.setattr(cancelling, "ORDER_WAIT", "100ms")
    for body in steps.TEXTS:
        post(api, body)
    cancelled = api.write.post(f"{URL}/text-1/cancel")
    assert (cancelled.status_code, cancelled.get_json()["state"]) == (200, "cancelled")
    assert api.write.post(f"{URL}/text-1/cancel").status_code == 200
    assert api.read.get(f"{URL}/text-2").get_json()["position"] == 1
    with api.process.database.transaction() as connection:
        corpora.take_lock(connection, corpus.id, Lock.ORDER)
        connection.exec_driver_sql("SELECT FROM texts WHERE id = 2 FOR UPDATE")
        api.problem(api.write.post(f"{URL}/text-2/cancel"), "text_started", 409)
    steps.run(corpus)
    api.problem(api.write.post(f"{URL}/text-2/cancel"), "text_is_version", 409)
    api.problem(api.read.post(f"{URL}/text-3/cancel"), "forbidden", 403)
    assert steps.stored(api.process, corpus) == steps.expected(steps.TEXTS[1:])


def test_a_text_that_goes_with_its_corpus(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted in the middle of a request, it is not found: neither cancelled, nor tried again, nor accepted."""
    post(api)
    retry, cancel = (f"/v1/corpora/genesis/work/text-1/{verb}" for verb in ("retry", "cancel"))
    find = operators.text_row
    with monkeypatch.context() as patch:
        patch.setattr(operators, "text_row", lambda *given, lock=False: None if lock else find(*given))
        api.problem(api.admin.post(cancel), "not_found", 404)
    api.admin.post(cancel)
    steps.sql(api.process, "UPDATE corpora SET removed_at = clock_timestamp()")
    with monkeypatch.context() as patch:
        patch.setattr("crochet_tasks.operate.tenant_work.check", lambda *_: None)
        api.problem(api.admin.post(retry), "not_found", 404)
        assert not tenancy.sweep(api.process.database, 60)
        api.problem(api.admin.post(retry), "not_found", 404)
    with pytest.raises(CorpusUnknown):
        admission.accept(corpus, "a title", "the sea")
