"""The page without a browser: a client with a session, which fills in what a form needs.

visitor = Visitor(api, "admin")             # logged in with that key; `stranger` is of another tenant
answer = visitor.get("/console")            # an HTML answer: .status_code, .text
answer = visitor.post("/console/act", {"act": "retry", "work": [id]})
visitor.links("/console/work")              # addresses of its links, by their text
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from werkzeug.test import TestResponse

from tests.support.api import Api

HTML = {"Accept": "text/html"}


class Visitor:
    """Who looks at the page, with a key by its name in `api.keys`, or with the key itself."""

    def __init__(self, api: Api, key: str) -> None:
        self._client = api.app.test_client()
        self._token = _token(self._client.get("/log-in").text)
        self._client.post("/log-in", data={"key": api.keys.get(key, key), "csrf_token": self._token})
        self._token = _token(self.get("/corpora").text)

    def get(self, path: str, **query: Any) -> TestResponse:
        return self._client.get(path, query_string=query or None, headers=HTML)

    def post(self, path: str, data: Mapping[str, Any], *, token: str | None = None) -> TestResponse:
        sent = {**data, "csrf_token": self._token if token is None else token}
        return self._client.post(path, data=sent, headers=HTML)

    def links(self, path: str, **query: Any) -> dict[str, str]:
        found = re.findall(r'<a [^>]*?href="([^"]*)"[^>]*>(.*?)</a>', self.get(path, **query).text, re.DOTALL)
        return {html.unescape(re.sub("<[^>]*>", "", text)).strip(): html.unescape(address) for address, text in found}


def _token(page: str) -> str:
    return page.partition('name="csrf_token" value="')[2].partition('"')[0]


def code(answer: TestResponse) -> str:
    """The code of an error that is shown as a page."""
    return answer.text.partition('class="eyebrow">')[2].partition("<")[0].rpartition(" ")[2]
