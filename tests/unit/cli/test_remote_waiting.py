"""Waiting for texts on an API: polls its status when an event reports a change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import httpx
import pytest

from crochet_tasks.cli import accepting, remote_ingest
from crochet_tasks.client import Client
from crochet_tasks.errors import ApiUnavailable, TooBusy

EARLY, WITHOUT = remote_ingest.FIRST_POLLS, remote_ingest.POLLS_WITHOUT_EVENTS
EVENT = b'event: progress\ndata: {"corpus": "main"}\n\n'
STREAM = b"retry: 70\n\n" + EVENT + b": still here\n\n" + EVENT + b"event: end\ndata: {}\n\n"


class Api(httpx.BaseTransport):
    """One whose events are asked for so often, with these answers; nothing else is."""

    def __init__(self, *answers: Callable[[], httpx.Response]) -> None:
        self.asked = 0
        self._answers = iter(answers)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert (request.url.path, request.url.query) == ("/v1/events", b"corpus=main")
        self.asked += 1
        return next(self._answers)()

    def client(self) -> Client:
        return Client("https://api.example", transport=self)


def streamed() -> httpx.Response:
    return httpx.Response(200, content=STREAM, headers={"Content-Type": "text/event-stream"})


def refused() -> httpx.Response:
    problem = {"type": "/problems/too_busy", "title": "", "status": 503, "code": "too_busy", "detail": "many listen"}
    headers = {"Content-Type": "application/problem+json", "Retry-After": "10"}
    return httpx.Response(503, json=problem, headers=headers)


def away() -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those between polls, which take no time; the client makes none."""
    made: list[float] = []
    monkeypatch.setattr("crochet_tasks.cli.accepting.time.sleep", made.append)
    return made


def test_what_takes_longer_is_looked_at_when_it_changes(pauses: list[float]) -> None:
    """After some polls for what is soon done the API says when, also now and then where nothing has changed."""
    api = Api(streamed, streamed)
    moments = remote_ingest.moments(api.client(), "main")
    for _ in islice(moments, EARLY):
        assert api.asked == 0
    assert len(pauses) == EARLY - 1
    assert pauses[-1] < accepting.LONGEST_PAUSE_SECONDS
    for _ in islice(moments, 4):  # two events, a sign of life, and the end
        assert (api.asked, len(pauses)) == (1, EARLY - 1)
    next(moments)  # between two streams
    assert (api.asked, pauses[-1]) == (1, accepting.LONGEST_PAUSE_SECONDS)
    next(moments)
    assert (api.asked, len(pauses)) == (2, EARLY)


@pytest.mark.parametrize("answer", [refused, away])
def test_without_events_it_is_looked_at_all_the_same(answer: Callable[[], httpx.Response], pauses: list[float]) -> None:
    """They are asked for once each while, and followed when there are some."""
    api = Api(answer, streamed)
    moments = remote_ingest.moments(api.client(), "main")
    for _ in islice(moments, EARLY + WITHOUT):
        assert api.asked <= 1
    assert (api.asked, len(pauses)) == (1, EARLY + WITHOUT - 1)
    next(moments)
    assert (api.asked, len(pauses)) == (2, EARLY + WITHOUT - 1)


def test_changes_are_asked_for_once() -> None:
    """What can do without them does not wait."""
    for answer, error in ((refused, TooBusy), (away, ApiUnavailable)):
        api = Api(answer)
        with pytest.raises(error):
            next(api.client().changes("main"))
        assert api.asked == 1


def test_a_look_ends_the_waiting(pauses: list[float]) -> None:
    """No listener is left then."""
    closed: list[None] = []

    def moments() -> Iterator[None]:
        try:
            while True:
                yield
        finally:
            closed.append(None)

    left = iter([True, True, False])
    accepting.until_nothing_left(lambda: (None, next(left)), lambda seen: None, print, moments)  # type: ignore[arg-type, return-value]
    assert (list(left), closed) == ([], [None])
