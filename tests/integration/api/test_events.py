"""Events: progress as it happens, for few listeners at a time, from one poll a second."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection

from api.events import events as sent
from crochet_tasks.access import keys
from crochet_tasks.db import tally
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.query import events as following
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, made
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

Event = tuple[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crochet_tasks.query.events.POLL_SECONDS", 0.05)


@pytest.fixture
def api(process: Process) -> Api:
    return made(process, Settings(**SETTINGS, api_listeners=3, api_events_seconds=20))


def events(answer: Any) -> Iterator[Event]:
    """The events of a stream, as a browser would see them."""
    for part in answer.iter_encoded():
        for block in part.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in fields:
                yield fields["event"], json.loads(fields["data"])


def follow(api: Api, query: str = "?corpus=genesis") -> Any:
    answer = api.read.get(f"/v1/events{query}", buffered=False)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream"), answer.data
    return answer


def until(stream: Iterator[Event], wanted: Callable[[Event], bool]) -> list[Event]:
    seen = []
    for event in stream:
        seen.append(event)
        if wanted(event):
            return seen
    raise AssertionError(seen)


def test_progress_is_told_as_it_happens(api: Api, corpus: Corpus) -> None:
    """First how far it is, then what changes, until it is deleted."""
    answer = follow(api)
    stream = events(answer)
    assert next(stream) == (
        "progress",
        {"corpus": "genesis", "version": 0, "orthos": 0, "waiting_texts": 0, "open_work": 0, "failed_work": 0},
    )
    steps.accept(corpus, *steps.TEXTS)
    waits = until(stream, lambda event: event[1]["waiting_texts"] == 3)
    assert waits[-1][1]["open_work"] == 3
    steps.run(corpus)
    done = until(stream, lambda event: event[1]["version"] == 3 and not event[1]["open_work"])
    assert done[-1][1]["orthos"] == sum(steps.expected(steps.TEXTS).values())
    api.admin.delete("/v1/corpora/genesis?confirm=genesis")
    assert next(stream) == ("gone", {"corpus": "genesis"})
    answer.close()


def test_a_stream_ends_after_a_while(process: Process) -> None:
    """It says so, and that one may come back; while nothing happens, something is sent all the same."""
    api = made(process, Settings(**SETTINGS, api_events_seconds=10))
    api.write.post("/v1/corpora", json={"name": "genesis"})
    seconds = itertools.count()  # each time that the clock is read another one is over
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.events.time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
        patch.setattr("api.events.HEARTBEAT_SECONDS", 1.0)
        patch.setattr("api.events.POLL_SECONDS", 0.05)
        text = follow(api).data.decode()
    assert text.startswith("retry: 1000\n\n")
    assert ": still here\n\n" in text
    assert text.endswith("event: end\ndata: {}\n\n")


def test_a_stream_ends_with_its_key(api: Api, corpus: Corpus) -> None:
    """Or with the session of its token: at the next poll, and no more events are sent."""
    token = api.read.post("/v1/tokens", json={}).get_json()["access_token"]
    for key, end in ((token, lambda: api.with_key(token).delete("/v1/tokens")), (api.keys["read"], lambda: None)):
        answer = api.with_key(key).get("/v1/events", buffered=False)
        stream = events(answer)
        assert next(stream)[0] == "progress"
        end()
        if key == api.keys["read"]:
            keys.revoke(api.process.database, key)
        steps.accept(corpus, "something new")
        assert [event for event, _ in stream] == ["end"]
        answer.close()


def test_few_may_listen(api: Api, corpus: Corpus) -> None:
    """One too many is refused, of a tenant already half as many; who leaves, having read or not, makes room."""
    for _ in range(3):
        streams = [follow(api), follow(api, "")]
        refused = api.read.get("/v1/events")
        streams.append(api.stranger.get("/v1/events", buffered=False))
        assert streams[-1].status_code == 200
        api.problem(api.stranger.get("/v1/events"), "too_busy", 503)
        api.problem(refused, "too_busy", 503)
        assert int(refused.headers["Retry-After"]) > 0
        next(streams[0].iter_encoded())
        for stream in streams:
            stream.close()


def test_everybody_is_told_only_of_their_own(api: Api, corpus: Corpus) -> None:
    """Listeners of two tenants at the same time."""
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    ours, theirs = follow(api, ""), api.stranger.get("/v1/events", buffered=False)
    assert next(events(ours))[1]["corpus"] == "genesis"
    assert next(events(theirs))[1]["corpus"] == "theirs"
    ours.close()
    theirs.close()


def test_one_poll_is_for_all(api: Api, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many listen; and there are no polls without listeners."""
    eventually(lambda: not polling())  # of earlier tests
    polls: list[list[int]] = []
    progress = tally.progress

    def counted(connection: Connection, tenants: list[int], most: int) -> list[tally.Progress]:
        polls.append(tenants)
        return progress(connection, tenants, most)

    monkeypatch.setattr(tally, "progress", counted)
    monkeypatch.setattr(following, "POLL_SECONDS", 3600)
    streams = [follow(api), follow(api)]
    for stream in streams:
        next(events(stream))
    assert len(polls) == 1
    for stream in streams:
        stream.close()
    eventually(lambda: not polling())
    assert len(polls) == 1


def test_streams_end_before_the_process_does(process: Process) -> None:
    """Where it closes its database, no stream asks any more who may read."""
    watch = following.Watch(process, 5)
    corpus = steps.new_corpus(process)
    stream = sent(watch.join(corpus.tenant), 3600, lambda: not watch.closed or pytest.fail("it asks too late"))
    assert [next(stream).partition(":")[0] for _ in range(2)] == ["retry", "event"]
    closing = threading.Thread(target=watch.close)
    closing.start()
    eventually(lambda: watch.closed)
    assert list(stream)[-1:] == ["event: end\ndata: {}\n\n"]
    closing.join()
    assert not polling()


def polling() -> bool:
    return "watch" in {thread.name for thread in threading.enumerate()}
