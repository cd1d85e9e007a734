"""A route that will go says so, in its answers and in the OpenAPI document."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable
from typing import Any

import pytest

from api import deprecation
from api.deprecation import deprecated
from tests.support.api import Api

pytestmark = pytest.mark.integration

SINCE, SUNSET = dt.date(2027, 1, 1), dt.date(2027, 7, 1)


def copied(view: Callable[..., Any]) -> Callable[..., Any]:
    """The view, marked; the module's own stays as it is."""

    @functools.wraps(view)
    def again(*arguments: Any, **named: Any) -> Any:
        return view(*arguments, **named)

    return deprecated(SINCE, SUNSET, "/docs#new")(again)


def test_a_route_that_will_go_says_since_when_until_when_and_what_instead(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it answers with a problem; others say nothing."""
    views: dict[str, Callable[..., Any]] = {**api.app.view_functions}
    monkeypatch.setitem(api.app.view_functions, "corpora.every", copied(views["corpora.every"]))
    for answer in (api.read.get("/v1/corpora"), api.read.get("/v1/corpora?limit=0"), api.anonymous.get("/v1/corpora")):
        assert answer.headers["Deprecation"] == "@1798761600"
        assert answer.headers["Sunset"] == "Thu, 01 Jul 2027 00:00:00 GMT"
        assert answer.headers["Link"] == '</docs#new>; rel="deprecation"; type="text/html"'
    assert "Deprecation" not in api.read.get("/v1/status").headers
    paths = api.anonymous.get("/openapi.json").get_json()["paths"]
    assert paths["/v1/corpora"]["get"]["deprecated"] is True
    marked = {path for path, item in paths.items() for each in item.values() if each.get("deprecated")}
    assert marked == {"/v1/corpora"}
    assert "deprecated" not in paths["/v1/corpora"]["post"]


def test_it_works_for_half_a_year_more() -> None:
    with pytest.raises(ValueError, match="180 days"):
        deprecated(SINCE, SINCE + dt.timedelta(days=179), "/docs")


def test_what_has_passed_its_sunset_is_gone(api: Api) -> None:
    """No route of this release is older than it was promised to be."""
    found = [deprecation.of(view) for view in api.app.view_functions.values()]
    assert [each for each in found if each is not None and each.sunset < dt.datetime.now(dt.UTC).date()] == []
