"""The client alone: what it tries again and when, when it gives up, what it raises, and what it never shows."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER, hashed, signature
from crochet_tasks.client import Client
from crochet_tasks.client.calls import Patience
from crochet_tasks.errors import (
    ApiUnavailable,
    CorpusUnknown,
    CrochetError,
    NotEncrypted,
    RateLimited,
    RemoteProblem,
    TextNotUtf8,
    TooBusy,
    Unauthorized,
    WrongCall,
    kinds,
)
from crochet_tasks.schemas.answers import Gone, Progress

URL = "https://api.example"
SECRET = "S" * 43
KEY = f"crk_aaaaaaaaaa_{SECRET}"
VERSION = {"corpus": "main", "version": 7}
TEXT = {
    "id": "text-1",
    "title": "t",
    "state": "accepted",
    "seq": 1,
    "position": 1,
    "version": None,
    "sentences": 0,
    "bytes": 3,
    "error": None,
    "accepted_at": "2026-01-01T00:00:00Z",
    "finished_at": None,
}
BUSY = {"Retry-After": "3"}

Answer = httpx.Response | Exception


class Script:
    """An API that gives these answers, the last one for ever; it keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, key: str | None = KEY, **patience: Any) -> Client:
        return Client(URL, key, patience=Patience()._replace(**patience), transport=httpx.MockTransport(self))


def problem(code: str, status: int, **headers: str) -> httpx.Response:
    body = {"type": f"/problems/{code}", "title": code, "status": status, "code": code, "detail": "what went wrong"}
    all_headers = {
        "Content-Type": "application/problem+json",
        **{name.replace("_", "-"): v for name, v in headers.items()},
    }
    return httpx.Response(status, json={**body, "request_id": "request-1"}, headers=all_headers)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, which take no time."""
    made: list[float] = []
    now = time.monotonic
    monkeypatch.setattr("crochet_tasks.client.calls.time.sleep", made.append)
    monkeypatch.setattr("crochet_tasks.client.calls.time.monotonic", lambda: now() + sum(made))
    return made


# ── tries ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        httpx.Response(502),
        problem("database_unavailable", 503),
        httpx.Response(504),
        problem("rate_limited", 429),
    ],
    ids=lambda failure: type(failure).__name__ if isinstance(failure, Exception) else str(failure.status_code),
)
def test_what_may_help_is_tried_again(failure: Answer, pauses: list[float]) -> None:
    """After a pause, each about twice as long as the one before."""
    script = Script(failure, failure, failure, httpx.Response(200, json=VERSION))
    assert script.client().version("main") == 7
    assert len(script.requests) == 4
    for number, pause in enumerate(pauses):
        assert 0.1 * 2**number <= pause <= 0.2 * 2**number
    assert len({request.headers["X-Request-ID"] for request in script.requests}) == 1


def test_what_never_helps_is_not_tried_again(pauses: list[float]) -> None:
    script = Script(problem("corpus_unknown", 404))
    with pytest.raises(CorpusUnknown):
        script.client().version("main")
    bug = Script(problem("internal", 500))
    with pytest.raises(CrochetError, match=r"what went wrong \(request request-1\)"):
        bug.client().version("main")
    assert (len(script.requests), len(bug.requests), pauses) == (1, 1, [])


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create_corpus("main"),
        lambda client: client.change_corpus("main", '"1"', budget=5),
        lambda client: client.retry_work("main", "text-1"),
        lambda client: client.exchange_key(),
        lambda client: client.refresh_tokens("crr_x"),
    ],
    ids=["create", "change", "retry", "exchange", "refresh"],
)
def test_what_must_not_be_done_twice_is_sent_once(call: Callable[[Client], object]) -> None:
    """Whatever becomes of it."""
    for failure in (httpx.ReadTimeout("slow"), problem("too_busy", 503, Retry_After="1")):
        script = Script(failure)
        with pytest.raises((ApiUnavailable, TooBusy)):
            call(script.client())
        assert len(script.requests) == 1


def test_a_text_is_sent_again_with_the_same_key() -> None:
    """So it is accepted once; another text has another key."""
    script = Script(httpx.ReadTimeout("slow"), httpx.Response(202, json=TEXT))
    client = script.client()
    assert client.post_text("main", "t", "été").new
    client.post_text("main", "t", b"another")
    first, again, other = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first == again != other
    assert script.requests[1].content == "été".encode()


def test_a_deletion_whose_answer_was_lost_is_done() -> None:
    """The second try finds nothing; where the first does, there was none."""
    gone = problem("corpus_unknown", 404)
    Script(httpx.ReadTimeout("slow"), gone).client().delete_corpus("main", confirm="main")
    with pytest.raises(CorpusUnknown):
        Script(gone).client().delete_corpus("main", confirm="main")


def test_retry_after_is_kept(pauses: list[float]) -> None:
    """In seconds or as a date; a longer pause than the client would wait is raised at once."""
    date = formatdate(time.time() + 20, usegmt=True)
    script = Script(
        problem("rate_limited", 429, Retry_After="3"),
        problem("too_busy", 503, Retry_After=date),
        httpx.Response(200, json=VERSION),
    )
    assert script.client().version("main") == 7
    assert pauses[0] == 3
    assert 10 < pauses[1] <= 20
    late = Script(problem("rate_limited", 429, Retry_After="3600"))
    with pytest.raises(RateLimited) as raised:
        late.client().version("main")
    assert raised.value.context["seconds"] == 3600
    assert (len(late.requests), len(pauses)) == (1, 2)


def test_tries_are_bounded_in_number_and_time(pauses: list[float]) -> None:
    """Whichever bound is reached first."""
    script = Script(httpx.ConnectError("refused"))
    with pytest.raises(ApiUnavailable) as raised:
        script.client(tries=3).version("main")
    assert (len(script.requests), raised.value.context["tries"]) == (3, 3)
    pauses.clear()
    with pytest.raises(ApiUnavailable):
        script.client(tries=1000, failures=1000, seconds=10.0).version("main")
    assert sum(pauses) <= 10


# ── the breaker ─────────────────────────────────────────────────────────────────────────────────


def test_an_api_that_is_away_is_left_in_peace(pauses: list[float]) -> None:
    """After so many failures in a row who comes is refused at once; after a while one tries."""
    script = Script(*[httpx.ConnectError("refused")] * 4, httpx.Response(200, json=VERSION))
    client = script.client(tries=1, failures=4, away=60.0)
    for _ in range(10):
        with pytest.raises(ApiUnavailable, match="refused") as raised:
            client.version("main")
        assert raised.value.exit_code == 4
    assert len(script.requests) == 4
    pauses.append(61.0)
    assert client.version("main") == client.version("main") == 7


def test_an_api_that_refuses_is_not_away() -> None:
    """Busy, limited or wrong: it answers."""
    for status, code in ((429, "rate_limited"), (503, "too_busy"), (404, "corpus_unknown")):
        script = Script(problem(code, status))
        client = script.client(tries=1, failures=1)
        for _ in range(3):
            with pytest.raises(kinds()[code]):
                client.version("main")
        assert len(script.requests) == 3


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", sorted(kinds()))
def test_problems_are_our_errors(code: str) -> None:
    """By their code, in the words of the API, with the id of the request; they can be sent on."""
    kind = kinds()[code]
    with pytest.raises(kind, match="what went wrong") as raised:
        Script(problem(code, kind.status)).client(tries=1).version("main")
    error = raised.value
    assert (type(error), error.exit_code, error.context["request_id"]) == (kind, kind.exit_code, "request-1")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.context) == (kind, str(error), error.context)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (problem("invented_later", 422), r"answered 422: what went wrong \[invented_later\]"),
        (httpx.Response(418, text="<html>"), "answered 418"),
        (httpx.Response(400, content=b"{", headers={"Content-Type": "application/problem+json"}), "answered 400"),
        (httpx.Response(200, text="<html>"), "not what this client knows"),
        (httpx.Response(302, headers={"Location": "https://elsewhere.example"}), "answered 302"),
    ],
    ids=["newer", "strange", "broken", "page", "redirect"],
)
def test_what_is_not_known_is_said(answer: httpx.Response, says: str) -> None:
    """A redirect is not followed: the key is for this API alone."""
    script = Script(answer)
    with pytest.raises(RemoteProblem, match=says):
        script.client().version("main")
    assert len(script.requests) == 1


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(TextNotUtf8):
        Script(httpx.Response(202, json=TEXT)).client().post_text("main", "t", "a\ud800")


# ── keys ────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_never_told(caplog: pytest.LogCaptureFixture) -> None:
    """Not by what is shown, raised or logged, not even of a key that is none."""
    caplog.set_level(logging.DEBUG)
    texts = []
    for failure in (httpx.ConnectError("refused"), problem("unauthorized", 401)):
        client = Script(failure).client(tries=2, failures=1)
        texts += [repr(client), repr(client._caller), repr(client._caller._http.headers)]
        with pytest.raises((ApiUnavailable, Unauthorized)) as raised:
            client.version("main")
        texts += [str(raised.value), repr(raised.value), repr(raised.value.context)]
    with pytest.raises(WrongCall) as wrong:
        Client(URL, f"{SECRET}\n")
    texts += [str(wrong.value), caplog.text]
    assert "service_unavailable" in caplog.text
    assert all(SECRET not in each for each in texts)


@pytest.mark.parametrize("url", ["http://api.example", "http://192.0.2.1:8080", "http://127.0.0.1.example"])
def test_a_key_is_not_sent_in_the_open(url: str) -> None:
    """Unless that is allowed; without a key there is nothing to hide."""
    with pytest.raises(NotEncrypted):
        Client(url, KEY)
    Client(url, KEY, plain_http=True).close()
    Client(url).close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:80", "https://api.example"])
def test_a_key_may_be_sent_here_and_encrypted(url: str) -> None:
    Client(url, KEY).close()


@pytest.mark.parametrize("url", ["", "api.example", "ftp://api.example", "https://", "https://me:x@api.example", "\0"])
def test_an_address_is_one(url: str) -> None:
    with pytest.raises(WrongCall):
        Client(url)


# ── requests ────────────────────────────────────────────────────────────────────────────────────


def test_each_try_is_signed_anew() -> None:
    """As the server checks it: method, path and query as sent, date, body. No signature is taken twice."""
    script = Script(httpx.Response(502), httpx.Response(202, json=TEXT))
    script.client().post_text("a b/c", "ü & co", b"body")
    first, again = script.requests
    assert again.url.raw_path.startswith(b"/v1/corpora/a%20b%2Fc/texts?title=")
    for request in (first, again):
        target, date = request.url.raw_path.decode(), request.headers[DATE_HEADER]
        wanted = signature(hashed(SECRET), "POST", target, date, b"body")
        assert request.headers[SIGNATURE_HEADER] == wanted
    assert first.headers[SIGNATURE_HEADER] != again.headers[SIGNATURE_HEADER]


def test_only_keys_sign() -> None:
    """An access token cannot; and one may go without."""
    script = Script(httpx.Response(200, json=VERSION))
    for client in (
        script.client("eyJ.a.b"),
        script.client(None),
        Client(URL, KEY, sign=False, transport=httpx.MockTransport(script)),
    ):
        client.version("main")
    assert all(SIGNATURE_HEADER not in request.headers for request in script.requests)
    assert [request.headers.get("Authorization") for request in script.requests] == [
        "Bearer eyJ.a.b",
        None,
        f"Bearer {KEY}",
    ]
    assert script.requests[0].headers["User-Agent"].startswith("crochet-tasks")


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


class Cut(httpx.SyncByteStream):
    """A body that breaks off."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        raise httpx.ReadError("reset")


def test_an_export_that_breaks_off_is_an_error() -> None:
    """What came before is there; a line may come in parts."""
    row = b'{"id":"1","shape":[2,2],"words":["a","b","c","d"],"born":1}\n'
    script = Script(httpx.Response(200, stream=Cut(row[:20], row[20:] + row, row[:9])))
    rows = script.client().export("main")
    assert [next(rows).born, next(rows).born] == [1, 1]
    with pytest.raises(ApiUnavailable, match="broke off: reset"):
        next(rows)
    assert len(script.requests) == 1


def test_events_go_on_after_a_break(pauses: list[float]) -> None:
    """The client connects again when a stream ends or breaks off; known events are not yielded twice."""

    def progress(version: int) -> bytes:
        numbers = '"orthos": 0, "waiting_texts": 0, "open_work": 0, "failed_work": 0'
        return b'event: progress\ndata: {"corpus": "main", "version": %d, %s}\n\n' % (version, numbers.encode())

    script = Script(
        httpx.Response(200, stream=Cut(b"retry: 70\n\n", progress(1)[:30], progress(1)[30:], b": still here\n\n")),
        httpx.Response(200, content=b"retry: 70\n\n" + progress(1) + progress(2) + b"event: end\ndata: {}\n\n"),
        httpx.Response(200, content=progress(2) + b'event: new\ndata: 1\n\nevent: gone\ndata: {"corpus": "main"}\n\n'),
    )
    events = list(script.client().events("main"))
    assert [event.version for event in events if isinstance(event, Progress)] == [1, 2]
    assert events[-1] == Gone(corpus="main")
    assert (len(script.requests), pauses) == (3, [0.07, 0.07])
    away = Script(httpx.ConnectError("refused"))
    with pytest.raises(ApiUnavailable):
        next(away.client(tries=2).events())
