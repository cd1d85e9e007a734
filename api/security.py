"""Who asks, and what they may: API keys, short-lived tokens, scopes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

from flask import g

Scope = Literal["read", "write", "admin"]
P = ParamSpec("P")
R = TypeVar("R")

SCHEMES: dict[str, Any] = {"key": {"type": "http", "scheme": "bearer"}}
NEEDS_KEY: list[dict[str, list[str]]] = [{"key": []}]
"""`security=` of every route that is not open to all"""


class Caller(NamedTuple):
    """Who made the request. A corpus of another tenant does not exist for them."""

    tenant: int
    scopes: frozenset[Scope]
    key: str
    """prefix of the key, for logs"""


def caller() -> Caller:
    """Who made this request; only within a route that `requires` a scope."""
    found = g.caller
    assert isinstance(found, Caller)
    return found


def requires(scope: Scope) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a route answer only callers with that scope; `admin` includes `write`, which includes `read`."""

    def guard(route: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(route)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            authenticate(scope)
            return route(*args, **kwargs)

        return guarded

    return guard


def authenticate(scope: Scope) -> None:
    """Find out who asks; raises Unauthorized or Forbidden."""
    raise NotImplementedError
