"""Whether it lives, whether it can work, and what of that which it needs is away.

Whoever asks need not say who they are, so nothing is told of the inside: of an error its code, no message.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

from flask import current_app
from flask_openapi import APIBlueprint, Tag
from sqlalchemy.pool import QueuePool

from api import problems, process, resources
from api import responses as answers
from api.responses import Answered
from crochet_tasks import startup
from crochet_tasks.broker import queues
from crochet_tasks.db import schema
from crochet_tasks.errors import CrochetError
from crochet_tasks.schemas.answers import Component, LastError, Live, Pool, Ready, Started, State
from crochet_tasks.settings import Settings

api = APIBlueprint("health", __name__, url_prefix="/health", abp_tags=[Tag(name="health")])

BOX_SECONDS = 0.8
"""how long an answer of a service is waited for"""
CACHED_SECONDS = 1.0


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


class Seen(NamedTuple):
    at: float
    state: State
    latency_ms: float | None


class Check:
    """Looks after one service: not more often than once a second, and never twice at a time, so a service that hangs
    holds one thread and no request.
    """

    def __init__(self, look: Callable[[], State], name: str) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._runner = ThreadPoolExecutor(1, thread_name_prefix=f"health-{name}")
        self._running: Future[Seen] | None = None
        self._seen: Seen | None = None
        self.last_error: LastError | None = None

    def begin(self) -> None:
        with self._lock:
            fresh = self._seen is not None and time.monotonic() - self._seen.at < CACHED_SECONDS
            if self._running is None and not fresh:
                self._running = self._runner.submit(self._timed)

    def outcome(self, until: float) -> Component:
        """What was seen; `away` where it does not answer until then."""
        running = self._running
        if running is not None:
            try:
                seen = running.result(max(0.0, until - time.monotonic()))
            except TimeoutError:
                self.last_error = LastError(code="timed_out", at=dt.datetime.now(dt.UTC))
                return Component(state="away", last_error=self.last_error)
        else:
            assert self._seen is not None
            seen = self._seen
        return Component(state=seen.state, latency_ms=seen.latency_ms, last_error=self.last_error)

    def _timed(self) -> Seen:
        seen = self._looked()
        with self._lock:
            self._seen, self._running = seen, None
        return seen

    def _looked(self) -> Seen:
        began = time.monotonic()
        try:
            state = self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the service is not in order
            code = error.code if isinstance(error, CrochetError) else "internal"
            self.last_error = LastError(code=code, at=dt.datetime.now(dt.UTC))
            return Seen(time.monotonic(), "away", None)
        ended = time.monotonic()
        return Seen(ended, state, None if state == "none" else round(1000 * (ended - began), 2))


class Checks:
    """Of all that an application needs."""

    def __init__(self, settings: Settings, app: object) -> None:
        self._settings = settings
        self._app = app
        self.started = False
        looks: dict[str, Callable[[], State]] = {
            "database": self._database,
            "broker": self._broker,
            "queues": self._queues,
            "redis": self._redis,
        }
        self._checks = {name: Check(look, name) for name, look in looks.items()}

    def outcomes(self, *names: str) -> dict[str, Component]:
        chosen = {name: check for name, check in self._checks.items() if not names or name in names}
        for check in chosen.values():
            check.begin()
        until = time.monotonic() + BOX_SECONDS
        found = {name: check.outcome(until) for name, check in chosen.items()}
        self.started |= found["database"].state == "ok"
        return found

    def _database(self) -> State:
        with self._app.app_context():  # type: ignore[attr-defined]
            schema.check(process.process().database)
        return "ok"

    def _broker(self) -> State:
        if self._settings.broker_url is None:
            return "none"
        with queues.connected(self._settings):
            return "ok"

    def _queues(self) -> State:
        if self._settings.broker_url is None:
            return "none"
        with queues.connected(self._settings) as broker:
            found = queues.depths(broker)
        return "ok" if all(found[name].consumers for name in queues.WORK) else "degraded"

    def _redis(self) -> State:
        if self._settings.redis_url is None:
            return "none"
        startup.check_redis(self._settings)
        return "ok"


def checks() -> Checks:
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's own way
    return resources.once("crochet.health", lambda: Checks(process.settings(), app))


# ── routes ──────────────────────────────────────────────────────────────────────────────────────


@api.get("/live", responses={200: Live}, operation_id="getLive")
def live() -> Answered:
    """The process answers; nothing is said about what it needs."""
    return answers.json(Live())


@api.get("/ready", responses={200: Ready, 503: Ready}, operation_id="getReady")
def ready() -> Answered:
    """Whether requests can be answered: they can while the database is well. What else is away is named.

    Each service has 0.8 s to answer; what it answered counts for a second.
    """
    found = checks().outcomes()
    if found["database"].state == "ok":
        found["database"].pool = _pool()
    lacking = [name for name, each in found.items() if each.state in ("away", "degraded")]
    status: Literal["ready", "degraded", "away"] = "degraded" if lacking else "ready"
    if "database" in lacking:
        status = "away"
    answer = Ready(status=status, degraded=lacking, components=found)
    headers = {"Retry-After": str(problems.RETRY_SECONDS)} if status == "away" else None
    return answers.json(answer, 503 if status == "away" else 200, headers)


@api.get("/startup", responses={200: Started, 503: Started}, operation_id="getStartup")
def started() -> Answered:
    """Whether the process has ever had a database that it can work with."""
    found = checks()
    if not found.started:
        found.outcomes("database")
    return answers.json(Started(status="started" if found.started else "starting"), 200 if found.started else 503)


def _pool() -> Pool | None:
    pool = process.process().database.engine.pool
    return Pool(size=pool.size(), in_use=pool.checkedout()) if isinstance(pool, QueuePool) else None
