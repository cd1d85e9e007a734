"""What the API says of itself."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api import documents
from tests.support.api import Api

pytestmark = pytest.mark.integration


def test_docs_need_no_other_server(api: Api) -> None:
    """The pages take all that they need from this server, and run no script that is in a page."""
    page = api.anonymous.get("/docs")
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
    for part in (
        "/docs/css/swagger-ui.css",
        "/docs/js/swagger-ui-bundle.js",
        "/docs/start.js",
        "/docs/images/swagger.svg",
    ):
        assert part in page.text or part.endswith(("start.js", "svg"))
        with api.anonymous.get(part) as answer:
            assert answer.status_code == 200
    assert "://" not in page.text


def test_openapi_says_all_that_is_answered(api: Api) -> None:
    """Every error of a route is a problem document, and every route that needs a key says so."""
    spec = api.anonymous.get("/openapi.json").get_json()
    assert spec["openapi"].startswith("3.1")
    for path, item in spec["paths"].items():
        for operation in item.values():
            of_the_server = {"414", "431"}
            errors = {
                status: answer
                for status, answer in operation["responses"].items()
                if status >= "400" and status not in of_the_server
            }
            assert of_the_server <= set(operation["responses"])
            if path.startswith("/v1"):
                assert {"400", "429", "500", "503"} <= set(errors), path
                by_body = path in ("/v1/tokens/refresh", "/v1/tokens/oidc")  # what is refused is in the body
                assert ("401" in errors) == ("security" in operation) or by_body
                assert all("application/problem+json" in each["content"] for each in errors.values()), path


def test_openapi_is_written_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask for it at the same time."""
    both, complete, written = threading.Barrier(2), documents.complete, []

    def slow(spec: dict[str, Any]) -> dict[str, Any]:
        written.append(spec)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return complete(spec)

    monkeypatch.setattr(documents, "complete", slow)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: api.anonymous.get("/openapi.json"), range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data
    assert len(written) == 1
