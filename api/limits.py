"""Rate limits: per key, and per address (of IPv6: per /64) for requests without a valid key.

All processes of a deployment share the counters, in Redis or else in the database (docs/adr/0019). While Redis is
down each process counts for itself and allows a quarter; Flask-Limiter tries Redis again after up to 32 s.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import deque
from typing import Any

import redis
from cachetools import LRUCache
from flask import Flask, Response, current_app, g, request
from flask_limiter import Limiter, RequestLimit
from limits.storage import SlidingWindowCounterSupport, Storage
from redis.backoff import NoBackoff
from redis.retry import Retry

from api import process, security
from api.security_log import network
from crochet_tasks.db import access
from crochet_tasks.errors import RateLimited, Unavailable
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

REDIS_SECONDS = 0.25
ALONE = 4
"""by which limits are divided while Redis is down"""


def install(app: Flask) -> None:
    settings: Settings = app.extensions["crochet.settings"]
    url = (
        None
        if settings.redis_url is None
        else settings.redis_url.get_secret_value().replace("unix://", "redis+unix://", 1)
    )
    options: dict[str, Any] = {
        "socket_timeout": REDIS_SECONDS,
        "socket_connect_timeout": REDIS_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    limiter = Limiter(
        key_func=_who,
        app=app,
        application_limits=[_limit],
        strategy="sliding-window-counter",
        storage_uri=url or f"{DatabaseStorage.STORAGE_SCHEME[0]}://",
        storage_options=options if url else {},
        in_memory_fallback=[_limit_alone] if url else [],  # type: ignore[list-item]  # callables do, too
        in_memory_fallback_enabled=url is not None,
        on_breach=_refuse,
        headers_enabled=False,
        key_prefix=prefix(settings),
    )
    limiter.request_filter(_free)
    app.after_request(_headers)
    app.extensions["crochet.limiter"] = limiter


def prefix(settings: Settings) -> str:
    """A prefix of the counters: deployments may share one Redis, and their keys may have the same names."""
    url = b"" if settings.database_url is None else settings.database_url.get_secret_value().encode()
    return f"crochet-{hashlib.sha256(b'limits of ' + url).hexdigest()[:12]}"


def _free() -> bool:
    """Health checks without a key, the documentation, the files of pages and preflight requests are not counted.

    Nor are requests whose caller could not be identified because the database is down: it may have a valid key.
    """
    unknown = isinstance(g.get("refusal"), Unavailable)
    without_key = "Authorization" not in request.headers
    free = request.blueprint in ("docs", "files") or (request.blueprint == "health" and without_key)
    return unknown or request.method == "OPTIONS" or free


def _who() -> str:
    caller = g.get("caller")
    return f"address:{network()}" if caller is None else f"key:{caller.key}"


def _rate() -> int:
    settings, caller = process.settings(), g.get("caller")
    if caller is None:
        return settings.api_rate_anonymous
    if caller.rate is not None:
        return int(caller.rate)
    return settings.api_rate_high if caller.tier == "high" else settings.api_rate


def _limit() -> str:
    return f"{_rate()} per 1 minute"


def _limit_alone() -> str:
    metrics.REDIS_FAILURES.add(use="rate_limits")
    return f"{max(1, _rate() // ALONE)} per 1 minute"


def _refuse(breached: RequestLimit) -> Response:
    """The answer to a request over the limit, recorded in the security log."""
    limit = breached.limit
    error = RateLimited(limit=f"{limit.amount} requests in {limit.get_expiry()} s", seconds=_left(breached))
    return security.refused(error)


def _left(limit: RequestLimit) -> int:
    return min(limit.limit.get_expiry(), max(1, math.ceil(limit.reset_at - time.time())))


def _headers(response: Response) -> Response:
    """The headers of the IETF draft: the policy, what is left of it, and for how many seconds."""
    found = current_app.extensions["crochet.limiter"].current_limit
    if found is not None:
        try:
            left = f'"requests";r={max(0, found.remaining)};t={_left(found)}'
        except (redis.RedisError, OSError):  # it went down after the request was counted
            metrics.REDIS_FAILURES.add(use="rate_limits")
            return response
        response.headers["RateLimit-Policy"] = f'"requests";q={found.limit.amount};w={found.limit.get_expiry()}'
        response.headers["RateLimit"] = left
    return response


# ── counting in the database ────────────────────────────────────────────────────────────────────

MOST_CLIENTS = 10_000
"""whose counts a process keeps in memory; of others it asks the database again"""
BLOCK_SHARE = 16
"""a process reserves one request, and one more for each so many that were counted"""


class _Counted:
    """What a process knows of a client's requests in one window."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.total = 0
        """counted by all processes, when this one asked last"""
        self.before = 0
        """of the window before"""
        self.reserved: deque[int] = deque()
        """numbers of requests that this process may still let through"""


class DatabaseStorage(Storage, SlidingWindowCounterSupport):
    """A sliding window per client that all processes share. Each request has a number in its window; a process
    reserves numbers in blocks, so it writes to the database for a few per cent of the requests, and for none that it
    refuses. While the database is down it counts for itself.
    """

    STORAGE_SCHEME = ["crochet-database"]  # noqa: RUF012 - the base class declares it
    base_exceptions = Unavailable

    def __init__(self, uri: str | None = None, **options: Any) -> None:
        super().__init__(uri, **options)
        self._lock = threading.Lock()
        self._clients: LRUCache[str, _Counted] = LRUCache(MOST_CLIENTS)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:  # noqa: ARG002
        now = time.time()
        slot = int(now / expiry)
        with self._lock:
            counted = self._client(key, slot)
            number = counted.reserved[0] if counted.reserved else counted.total + 1
            if number + _weighed(counted, now, expiry) > limit:
                return False
            if counted.reserved:
                counted.reserved.popleft()
                return True
            block = 1 + counted.total // BLOCK_SHARE
        try:
            with process.current().database.transaction() as connection:
                total, before = access.count_requests(connection, key, slot, block)
        except Unavailable:
            total, before = counted.total + block, counted.before
        with self._lock:
            counted.total, counted.before = max(total, counted.total), before
            counted.reserved.extend(range(total - block + 1, total + 1))
            if counted.reserved[0] + _weighed(counted, now, expiry) > limit:
                return False
            counted.reserved.popleft()
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now = time.time()
        with self._lock:
            counted = self._client(key, int(now / expiry))
            left = expiry - now % expiry
            used = counted.reserved[0] - 1 if counted.reserved else counted.total
            return counted.before, left if counted.before else 0.0, used, left + expiry

    def _client(self, key: str, slot: int) -> _Counted:
        counted = self._clients.get(key)
        if counted is None or counted.slot != slot:
            counted = self._clients[key] = _Counted(slot)
        return counted

    # What Storage and SlidingWindowCounterSupport ask for beside these, for other strategies.

    def check(self) -> bool:
        return True

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError

    def get(self, key: str) -> int:
        raise NotImplementedError

    def get_expiry(self, key: str) -> float:
        raise NotImplementedError

    def clear(self, key: str) -> None:
        raise NotImplementedError

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        raise NotImplementedError

    def reset(self) -> int | None:
        raise NotImplementedError


def _weighed(counted: _Counted, now: float, expiry: int) -> int:
    """Requests of the window before, by the share of it that the last `expiry` seconds still cover."""
    return math.floor(counted.before * (1 - now % expiry / expiry))
