"""Server-sent events: the progress of corpora as it happens."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator

from flask import Response

from api import process, resources, security
from api.openapi import errors
from api.parameters import EventsQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.db.tally import Progress
from crochet_tasks.errors import TooBusy, Unavailable
from crochet_tasks.query.events import Listener

HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 1.0
RECONNECT_MILLISECONDS = 1000

api = Routes("events", "/v1/events")
_STREAM = {
    "description": "Events `progress` (how far a corpus is), `gone` (it was deleted) and, last, `end`.",
    "content": {
        "text/event-stream": {
            "schema": {
                "description": "one event of the stream; what `data` holds is JSON",
                "type": "object",
                "required": ["data", "event"],
                "properties": {
                    "event": {"type": "string", "enum": ["progress", "gone", "end"]},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                },
            },
            "example": 'event: progress\ndata: {"corpus": "genesis", "version": 1, "orthos": 324}\n\n',
        }
    },
}


@api.get("", responses={200: _STREAM, **errors(TooBusy)}, operation_id="followEvents")
@security.requires("read", filters=True)
def follow(query: EventsQuery) -> Answered:
    """Follow the progress of one corpus or of all: first the state of each, then every change, within about a second.

    The stream ends after a while, or with the key; a new one begins with the state of each again. A page reads it with
    `fetch`: the browser's `EventSource` sends no `Authorization`.
    """
    caller, database, only = security.caller(), process.current().database, security.caller().corpora
    if query.corpus is not None:
        with resources.open_corpus(query.corpus) as (_, corpus):
            only = frozenset([corpus.id])
    listener = resources.watch().join(caller.tenant, only)
    seconds, may = (
        process.settings().api_events_seconds,
        functools.partial(security.is_still_admitted, database, caller),
    )
    response = Response(events(listener, seconds, may), mimetype="text/event-stream")
    response.call_on_close(listener.close)  # also where the client has disconnected before
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def events(listener: Listener, seconds: float, may: Callable[[], bool]) -> Iterator[str]:
    """The stream, for so many seconds and while `may()`; something is sent every HEARTBEAT_SECONDS, to notice clients
    that are gone.
    """
    try:
        yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
        yield from _progress(listener, seconds, may)
        yield _event("end", {})
    finally:
        listener.close()


def _progress(listener: Listener, seconds: float, may: Callable[[], bool]) -> Iterator[str]:
    began = sent = time.monotonic()
    while time.monotonic() - began < seconds:
        changed, gone = listener.news(min(POLL_SECONDS, seconds))
        if not listener.open:
            return
        try:
            if not may():
                return
        except Unavailable:  # then there are no events, either
            continue
        sent_now = [_event("progress", _data(each)) for each in changed]
        sent_now += [_event("gone", {"corpus": name}) for name in gone]
        if not sent_now and time.monotonic() - sent >= HEARTBEAT_SECONDS:
            sent_now = [": still here\n\n"]
        if sent_now:
            sent = time.monotonic()
            yield "".join(sent_now)


def _event(kind: str, data: dict[str, object]) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _data(progress: Progress) -> dict[str, object]:
    return {name: value for name, value in progress._asdict().items() if name not in ("id", "tenant")}
