"""How often one may ask: per key, and per address (of IPv6: per /64) where no good key was given.

Counted in Redis, so for all processes together. While Redis is away each process counts for itself, and allows a
quarter; Flask-Limiter looks for Redis again less and less often, every 32 s at last.
"""

from __future__ import annotations

import hashlib
import math
import time
from typing import Any

import redis
from flask import Flask, Response, current_app, g, request
from flask_limiter import Limiter, RequestLimit
from redis.backoff import NoBackoff
from redis.retry import Retry

from api import process, security
from api.security_log import network
from crochet_tasks.errors import RateLimited, Unavailable
from crochet_tasks.settings import Settings

REDIS_SECONDS = 0.25
ALONE = 4
"""by which limits are divided where each process counts for itself"""


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
        storage_uri=url or "memory://",
        storage_options=options if url else {},
        in_memory_fallback=[_limit_alone] if url else [],  # type: ignore[list-item]  # callables do, too
        in_memory_fallback_enabled=url is not None,
        on_breach=_refuse,
        headers_enabled=False,
        key_prefix=_prefix(settings),
    )
    limiter.request_filter(_free)
    app.after_request(_headers)
    app.extensions["crochet.limiter"] = limiter


def _prefix(settings: Settings) -> str:
    """Of what is counted: deployments with databases of their own may share one Redis, and number their keys alike."""
    url = b"" if settings.database_url is None else settings.database_url.get_secret_value().encode()
    return f"crochet-{hashlib.sha256(b'limits of ' + url).hexdigest()[:12]}"


def _free() -> bool:
    """Probes and the pages of the documentation are not counted, nor is a browser's question whether it may ask.

    Nor is a request of which nobody could find out whose it is, the database being away: that is no stranger's.
    """
    unknown = isinstance(g.get("refusal"), Unavailable)
    return unknown or request.method == "OPTIONS" or request.blueprint in ("health", "docs")


def _who() -> str:
    caller = g.get("caller")
    return f"address:{network()}" if caller is None else f"key:{caller.key}"


def _rate() -> int:
    settings, caller = process.settings(), g.get("caller")
    if caller is None:
        return settings.api_rate_anonymous
    return settings.api_rate_high if caller.tier == "high" else settings.api_rate


def _limit() -> str:
    return f"{_rate()} per 1 minute"


def _limit_alone() -> str:
    return f"{max(1, _rate() // ALONE)} per 1 minute"


def _refuse(breached: RequestLimit) -> Response:
    """It is in the security log, as others that are refused."""
    limit = breached.limit
    error = RateLimited(limit=f"{limit.amount} requests in {limit.get_expiry()} s", seconds=_left(breached))
    return security.refused(error)


def _left(limit: RequestLimit) -> int:
    return min(limit.limit.get_expiry(), max(1, math.ceil(limit.reset_at - time.time())))


def _headers(response: Response) -> Response:
    """As the IETF's draft has them: the policy, and what is left of it for how many seconds."""
    found = current_app.extensions["crochet.limiter"].current_limit
    if found is not None:
        try:
            left = f'"requests";r={max(0, found.remaining)};t={_left(found)}'
        except (redis.RedisError, OSError):  # it went away since the request was counted
            return response
        response.headers["RateLimit-Policy"] = f'"requests";q={found.limit.amount};w={found.limit.get_expiry()}'
        response.headers["RateLimit"] = left
    return response
