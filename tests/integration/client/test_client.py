"""The client, and the command line as a client, on the real application behind a real server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx
import pytest

from crochet_tasks.client import Client
from crochet_tasks.errors import (
    ApiUnavailable,
    CorpusExists,
    CorpusUnknown,
    Forbidden,
    InvalidRequest,
    NotConfirmed,
    PreconditionFailed,
    SignatureRefused,
    TextIsVersion,
    Unauthorized,
    WorkNotFailed,
)
from crochet_tasks.schemas.answers import Gone, Progress
from tests.integration.client.conftest import Served
from tests.support import steps
from tests.support.failing_work import with_bug

pytestmark = pytest.mark.integration

ORTHOS = steps.expected(steps.TEXTS)


def test_corpora_are_made_listed_changed_and_deleted(client: Client) -> None:
    """Made, listed over several pages, changed by who has seen them last, deleted by who confirms it."""
    for name in ("one", "two"):
        made = client.create_corpus(name, limits={"max_axes": 2}, description=f"number {name}")
        assert (made.name, made.limits.max_axes, made.limits.max_side, made.budget) == (name, 2, 8, 10_000_000)
    with pytest.raises(CorpusExists):
        client.create_corpus("one")
    with pytest.raises(InvalidRequest) as invalid:
        client.create_corpus("three", limits={"max_axes": 99})
    with pytest.raises(InvalidRequest, match="max_side must be at most 64"):
        client.create_corpus("three", max_side=99)
    assert isinstance(invalid.value.context["errors"], list)
    assert {"one", "two", "whole"} <= {each.name for each in client.corpora(at_once=1)}
    seen = client.corpus("one")
    changed = client.change_corpus("one", seen.tag, budget=5, name="uno")
    assert (changed.corpus.name, changed.corpus.budget) == ("uno", 5)
    with pytest.raises(PreconditionFailed):
        client.change_corpus("uno", seen.tag, budget=None)
    assert client.change_corpus("uno", changed.tag, budget=None).corpus.budget is None
    with pytest.raises(NotConfirmed):
        client.delete_corpus("uno", confirm="one")
    for name in ("uno", "two"):
        client.delete_corpus(name, confirm=name)
        with pytest.raises(CorpusUnknown) as raised:
            client.corpus(name)
        assert raised.value.context["status"] == 404


def test_texts_are_posted_known_again_listed_and_cancelled(client: Client, served: Served) -> None:
    """Posted as text or bytes, known again, listed over several pages, cancelled."""
    client.create_corpus("texts")
    first = client.post_text("texts", "ü & co", steps.TEXTS[0])
    assert (first.new, first.text.title, first.text.state) == (True, "ü & co", "accepted")
    again = client.post_text("texts", "other", steps.TEXTS[0].encode())
    assert (again.new, again.text.id) == (False, first.text.id)
    posted = [client.post_text("texts", "two", "seas and land", idempotency_key="mine").text.id for _ in range(2)]
    assert posted[0] == posted[1] != first.text.id
    assert [text.id for text in client.texts("texts", at_once=1)] == [first.text.id, posted[0]]
    assert client.cancel_text("texts", posted[0]).state == client.cancel_text("texts", posted[0]).state == "cancelled"
    assert [text.id for text in client.texts("texts", state="cancelled")] == posted[:1]
    steps.run(served.corpus("texts"))
    assert (client.text("texts", first.text.id).version, client.version("texts")) == (1, 1)
    with pytest.raises(TextIsVersion):
        client.cancel_text("texts", first.text.id)


def test_words_and_phrases_come_over_several_pages(client: Client) -> None:
    """Words and phrases over several pages, and what waits on one."""
    words = [seen.word for seen in client.words("whole", at_once=4)]
    assert words == sorted(set(" ".join(steps.TEXTS).replace(",", "").split()))
    assert [seen.word for seen in client.words("whole", "a")] == ["a"]
    assert ("a", "b") in [tuple(seen.words) for seen in client.phrases("whole", "a", at_once=2)]
    assert client.waiting_on("whole", "a").phrase == ["a"]


def test_orthos_are_the_same_by_pages_streams_ids_and_checks(client: Client) -> None:
    """Over several pages, as a stream, one, the best, counted, checked: all the same ones."""
    paged = [(tuple(each.shape or []), tuple(each.words or [])) for each in client.orthos("whole", at_once=5)]
    rows = list(client.export("whole"))
    assert set(paged) == {(tuple(row.shape), tuple(row.words)) for row in rows} == ORTHOS.keys()
    assert len(paged) == len(rows) == sum(ORTHOS.values()) > 5
    best = client.best("whole", 3).orthos
    assert [each.id for each in best] == [row.id for row in rows[:3]]
    chosen = list(client.orthos("whole", shape="2x2", contains="a", min_volume=1, fields=["words"]))
    assert {tuple(each.words or []) for each in chosen} == {
        words for shape, words in ORTHOS if shape == (2, 2) and "a" in words
    }
    assert all(each.id is None for each in chosen)
    whole = client.ortho("whole", rows[0].id)
    assert (whole.words, whole.lines[0].sources != []) == (rows[0].words, True)
    assert client.shapes("whole").total == len(rows)
    checked = client.check("whole", ids=[rows[0].id, "0" * 32]).results
    assert [each.stored for each in checked] == [True, False]
    assert client.check("whole", grids=[whole.grid], exact=False).results[0].id == rows[0].id


class Breaking(httpx.HTTPTransport):
    """Breaks off each export behind its first `lines` lines; `between` is called each time."""

    def __init__(self, lines: int, between: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.lines, self.between, self.exports = lines, between, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if "ndjson" not in answer.headers["Content-Type"]:
            return answer
        self.exports += 1
        whole = answer.read().splitlines(keepends=True)
        headers = {"ETag": answer.headers["ETag"], "Content-Type": "application/x-ndjson"}
        return httpx.Response(200, headers=headers, stream=Broken(whole, self))


class Broken(httpx.SyncByteStream):
    def __init__(self, whole: list[bytes], of: Breaking) -> None:
        self._whole, self._of = whole, of

    def __iter__(self) -> Iterator[bytes]:
        yield b"".join(self._whole[: self._of.lines])
        if len(self._whole) > self._of.lines:
            yield self._whole[self._of.lines][:-2]
            self._of.between()
            raise httpx.ReadError("broken")


def test_an_export_goes_on_where_it_broke_off(served: Served, client: Client) -> None:
    """Behind every ortho of every shape, and with filters; a part of a line is no line."""
    for which in ({}, {"contains": "a"}, {"shape": "2x2"}, {"min_volume": 2}):
        whole = list(client.export("whole", **which))
        for lines in (1, 3):
            broken = Breaking(lines)
            with Client(served.url, served.keys["read"], transport=broken) as other:
                assert list(other.export("whole", **which)) == whole
            assert broken.exports == -(-len(whole) // lines) > 1


def test_an_export_that_broke_off_is_of_one_snapshot(served: Served, client: Client) -> None:
    """If more was found meanwhile it is no export any more; if nothing more comes, neither."""
    client.create_corpus("broken")
    corpus = served.corpus("broken")
    steps.ingest_all(corpus, steps.TEXTS[:1])
    growing = Breaking(1, lambda: steps.ingest_all(corpus, steps.TEXTS[1:2]))
    with Client(served.url, served.keys["read"], transport=growing) as other:
        with pytest.raises(ApiUnavailable, match="more has been found since"):
            list(other.export("broken"))
        growing.lines = 0
        with pytest.raises(ApiUnavailable, match="broke off"):
            list(other.export("whole"))
    client.delete_corpus("broken", confirm="broken")


def test_texts_are_posted_together(client: Client) -> None:
    """Each with its own answer; with the same key they are accepted once."""
    client.create_corpus("batch")
    for _ in range(2):
        first, second = client.post_texts("batch", [("a", "the sea"), ("b", "7")], idempotency_key="once")
        assert first.text is not None
        assert (first.status, first.text.title, first.error) == (202, "a", None)
        assert (second.status, second.error and second.error.code) == (422, "text_without_words")
    assert [text.title for text in client.texts("batch")] == ["a"]
    client.delete_corpus("batch", confirm="batch")


def test_failed_work_is_listed_and_retried_and_a_text_cancelled(
    client: Client, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed is listed, retried and done; a text is cancelled by its work."""
    client.create_corpus("work")
    with_bug(served.corpus("work"), monkeypatch, "search.part")
    (failed,) = client.work("work", state="failed").work
    assert (failed.kind, client.status("work").closed) == ("search", False)
    assert [line.state for line in client.retry_work("work", failed.id).changed] == ["ready"]
    with pytest.raises(WorkNotFailed):
        client.retry_work("work", failed.id)
    steps.run(served.corpus("work"))
    status = client.status("work")
    assert (status.closed, status.total) == (True, sum(steps.expected(steps.TEXTS[:1]).values()))
    text = client.post_text("work", "another", "land and seas").text
    (ingest,) = client.work("work", kind="ingest").work
    assert {line.state for line in client.cancel_work("work", ingest.id).changed} == {"cancelled"}
    assert client.text("work", text.id).state == "cancelled"


class Counting(httpx.HTTPTransport):
    """Counts the requests."""

    requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return super().handle_request(request)


def test_events_go_on_over_streams_without_gap_or_repeat(served: Served) -> None:
    """From one stream to the next without a gap, until the corpus is gone; nothing comes twice."""
    counted = Counting()
    client = Client(served.url, served.keys["admin"], transport=counted)
    client.create_corpus("followed")
    events = client.events("followed")
    seen = [next(events)]
    steps.accept(served.corpus("followed"), steps.TEXTS[0])
    steps.run(served.corpus("followed"))
    while not (isinstance(seen[-1], Progress) and seen[-1].version and not seen[-1].open_work):
        seen.append(next(events))
    client.delete_corpus("followed", confirm="followed")
    with contextlib.suppress(CorpusUnknown):  # where it was deleted between two streams
        seen.extend(events)
    client.close()
    assert counted.requests > 3  # a stream lasts 0.05 s here
    with served.client("read") as reader:
        assert set(reader.changes("whole")) == {None}  # at least the end
    progress = [each for each in seen if isinstance(each, Progress)]
    assert progress[-1].orthos == sum(steps.expected(steps.TEXTS[:1]).values())
    assert len(set(map(str, progress))) == len(progress)
    assert set(seen) - set(progress) <= {Gone(corpus="followed")}
    with served.client("stranger") as stranger, pytest.raises(CorpusUnknown):
        next(stranger.events("whole"))


def test_health_needs_no_key(served: Served) -> None:
    with Client(served.url) as client:
        assert (client.live().status, client.started().status) == ("live", "started")
        assert client.ready().components["database"].state == "ok"
        with pytest.raises(Unauthorized):
            client.version("whole")


def test_a_token_is_used_for_a_key_renewed_and_ended(served: Served) -> None:
    """Got for a key, used in its place, renewed, given back; what must be signed needs the key itself."""
    with served.client() as client:
        tokens = client.exchange_key(["read"])
        whole = client.exchange_key()
    with Client(served.url, tokens.access_token) as reader:
        assert reader.version("whole") == 3
        with pytest.raises(Forbidden):
            reader.create_corpus("nope")
        renewed = reader.refresh_tokens(tokens.refresh_token)
    with Client(served.url, whole.access_token) as unsigned, pytest.raises(SignatureRefused):
        unsigned.delete_corpus("whole", confirm="whole")
    with Client(served.url, renewed.access_token) as again:
        again.end_session()
        with pytest.raises(Unauthorized):
            again.version("whole")


def test_what_administrators_ask_is_signed(served: Served) -> None:
    """Unless one does not want that: then it is refused."""
    with served.client() as client, served.client(sign=False) as unsigned:
        client.create_corpus("a.b-c")
        with pytest.raises(SignatureRefused):
            unsigned.delete_corpus("a.b-c", confirm="a.b-c")
        client.delete_corpus("a.b-c", confirm="a.b-c")
