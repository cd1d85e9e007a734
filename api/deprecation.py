"""Routes that will go: they say so in each answer, and until when they work (docs/api.md, Versions)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any, NamedTuple, ParamSpec, TypeVar

from flask import Flask, Response, current_app, request

P = ParamSpec("P")
R = TypeVar("R")

NOTICE = dt.timedelta(days=180)
"""between the day on which a route is marked and the day on which it goes, at the least"""
_MARK = "_crochet_deprecated"


class Deprecated(NamedTuple):
    """Since when, until when, and where in docs/api.md to read what takes its place."""

    since: dt.date
    sunset: dt.date
    see: str

    def headers(self) -> dict[str, str]:
        """Deprecation by RFC 9745, Sunset by RFC 8594."""
        since, sunset = (dt.datetime.combine(day, dt.time(), dt.UTC) for day in (self.since, self.sunset))
        return {
            "Deprecation": f"@{int(since.timestamp())}",
            "Sunset": format_datetime(sunset, usegmt=True),
            "Link": f'<{self.see}>; rel="deprecation"; type="text/html"',
        }


def deprecated(since: dt.date, sunset: dt.date, see: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a route. Stands beside `security.requires`; raises ValueError where that leaves less than NOTICE."""
    if sunset - since < NOTICE:
        raise ValueError(f"a route works for {NOTICE.days} days more at the least")

    def marked(route: Callable[P, R]) -> Callable[P, R]:
        setattr(route, _MARK, Deprecated(since, sunset, see))
        return route

    return marked


def of(view: Callable[..., Any] | None) -> Deprecated | None:
    found: Deprecated | None = getattr(view, _MARK, None)
    return found


def install(app: Flask) -> None:
    app.after_request(_announce)


def _announce(response: Response) -> Response:
    found = of(current_app.view_functions.get(request.endpoint or ""))
    if found is not None:
        response.headers.update(found.headers())
    return response


def describe(app: Flask, spec: dict[str, Any]) -> None:
    """Mark these routes in the OpenAPI document, too."""
    for rule in app.url_map.iter_rules():
        if of(app.view_functions[rule.endpoint]) is not None:
            path = spec["paths"].get(_as_in_spec(rule.rule), {})
            for method in (rule.methods or set()) & {each.upper() for each in path}:
                path[method.lower()]["deprecated"] = True


def _as_in_spec(rule: str) -> str:
    """`/v1/<kind:name>` as `/v1/{name}`."""
    return "/".join(
        f"{{{part[1:-1].rpartition(':')[2]}}}" if part.startswith("<") else part for part in rule.split("/")
    )
