"""Health checks: the process lives, it can answer requests, and which services do not answer.

They need no key, so they report only the state of each service; to operators, who send one, what the process uses, too.
Why a service does not answer is logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

from flask import current_app

from api import problems, process, resources, responses, security
from api.details import details
from api.responses import Answered
from api.routes import Routes
from crochet_tasks import readiness
from crochet_tasks.broker.queues import WORK
from crochet_tasks.errors import QueueMissing
from crochet_tasks.schemas.answers import Component, Live, Ready, Started, State
from crochet_tasks.settings import Settings

log = logging.getLogger(__name__)

api = Routes("health", "/health", open_to_all=True)

TIMEOUT_SECONDS = 0.8
"""for a service to answer"""
CACHED_SECONDS = 1.0


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


class Outcome(NamedTuple):
    at: float
    state: State


class Check:
    """Checks one service: once a second at the most, and never twice at a time. So a service that hangs blocks one
    thread and no request.
    """

    def __init__(self, check: Callable[[], State], name: str) -> None:
        self._check, self._name = check, name
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"health-{name}")
        self._running: Future[Outcome] | None = None
        self._last: Outcome | None = None

    def begin(self) -> None:
        with self._lock:
            fresh = self._last is not None and time.monotonic() - self._last.at < CACHED_SECONDS
            if self._running is None and not fresh:
                self._running = self._executor.submit(self._run)

    def outcome(self, until: float) -> State:
        """The state of the service; `away` where it does not answer until then."""
        running = self._running
        if running is not None:
            try:
                return running.result(max(0.0, until - time.monotonic())).state
            except TimeoutError:
                return "away"
        assert self._last is not None
        return self._last.state

    def _run(self) -> Outcome:
        try:
            state, problem = self._check(), ""
        except Exception as error:  # noqa: BLE001 - whatever it is, the service is not in order
            state, problem = "away", str(error)
        before = "ok" if self._last is None else self._last.state
        if state != before and state in ("away", "degraded"):
            log.warning("health_check_failed", extra={"service": self._name, "state": state, "error": problem})
        outcome = Outcome(time.monotonic(), state)
        with self._lock:
            self._last, self._running = outcome, None
        return outcome


class Checks:
    """The checks of all services that an application needs."""

    def __init__(self, settings: Settings, app: object) -> None:
        self._settings = settings
        self._app = app
        self.started = False
        checks: dict[str, Callable[[], State]] = {
            "database": self._database,
            "broker": self._broker,
            "queues": self._queues,
            "redis": self._redis,
        }
        self._checks = {name: Check(check, name) for name, check in checks.items()}

    def outcomes(self, *names: str) -> dict[str, State]:
        chosen = {name: check for name, check in self._checks.items() if not names or name in names}
        for check in chosen.values():
            check.begin()
        until = time.monotonic() + TIMEOUT_SECONDS
        found = {name: check.outcome(until) for name, check in chosen.items()}
        self.started |= found["database"] == "ok"
        return found

    def _database(self) -> State:
        with self._app.app_context():  # type: ignore[attr-defined]
            readiness.check_database(process.current().database)
        return "ok"

    def _broker(self) -> State:
        if self._settings.broker_url is None:
            return "none"
        readiness.check_broker(self._settings)
        return "ok"

    def _queues(self) -> State:
        if self._settings.broker_url is None:
            return "none"
        found = readiness.check_queues(self._settings)
        if missing := [name for name, depth in found.items() if depth is None]:
            raise QueueMissing(queue=missing[0])
        return "ok" if all(depth.consumers for name, depth in found.items() if depth and name in WORK) else "degraded"

    def _redis(self) -> State:
        if self._settings.redis_url is None:
            return "none"
        readiness.check_redis(self._settings)
        return "ok"


def checks() -> Checks:
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's own way
    return resources.once("crochet.health", lambda: Checks(process.settings(), app))


# ── routes ──────────────────────────────────────────────────────────────────────────────────────


@api.get("/live", responses={200: Live}, operation_id="getLive")
def live() -> Answered:
    """The process answers; the services that it needs are not checked."""
    return responses.json(Live())


@api.get("/ready", responses={200: Ready, 503: Ready}, operation_id="getReady")
def ready() -> Answered:
    """Whether requests can be answered: they can while the database is well. Other services that are down are named.

    Each service has 0.8 s to answer; its state is cached for a second. With the key of an operator there are `details`:
    what the process uses, its caches, its problems of the last minutes. Another key changes nothing, but requests with
    one count, by address.
    """
    found = checks().outcomes()
    failing = [name for name, state in found.items() if state in ("away", "degraded")]
    status: Literal["ready", "degraded", "away"] = "degraded" if failing else "ready"
    if "database" in failing:
        status = "away"
    components = {name: Component(state=state) for name, state in found.items()}
    headers = {"Retry-After": str(problems.RETRY_SECONDS)} if status == "away" else None
    answer = Ready(status=status, degraded=failing, components=components)
    if status != "away" and security.asked_by_operator():
        answer.details = details()
    return responses.json(answer, 503 if status == "away" else 200, headers)


@api.get("/startup", responses={200: Started, 503: Started}, operation_id="getStartup")
def started() -> Answered:
    """Whether this process has ever reached a database that it can work with."""
    found = checks()
    if not found.started:
        found.outcomes("database")
    return responses.json(Started(status="started" if found.started else "starting"), 200 if found.started else 503)
