"""What holds for every address of the page: strangers, readers, forms of other sites, and what nobody would type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support import library
from tests.support.api import Api
from tests.support.browser import session
from web import create_app

pytestmark = pytest.mark.integration
HTML = {"Accept": "text/html"}
OPEN = {"page.home", "page.log_in", "page.log_in_with_key", "page.log_out", "page.choose_theme"}
OPEN |= {f"page.{name}" for name in ("log_in_elsewhere", "log_in_came_back", "log_in_code", "log_in_with_code")}
"""what nobody needs a session for"""
FORMS = ("/log-in", "/log-in/code", "/log-out", "/theme")
"""of these"""
FILLED: dict[str, Any] = {
    "name": library.HARBOUR,
    "id": {"page.ortho": library.ORTHO, "page.ortho_file": library.ORTHO, None: "text-1"},
    "job": "best-1",
    "number": "1",
}
ODD = ("\0", "-1", "9" * 5000, "٣", "1e9", "' OR 1=1 --", "\u202e", "../..", "%s%n{{7*7}}", " ", "\ud7ff\uffff")

PARAMETERS = {
    "page.corpora": ("after",),
    "page.corpus": ("estimate",),
    "page.texts_of": ("after",),
    "page.text": ("from",),
    "page.context": ("words", "around"),
    "page.gallery": (
        "contains",
        "starts_with",
        "shape",
        "min_volume",
        "shares_line_with",
        "cursor",
        "density",
        "across",
    ),
    "page.complete": ("q",),
    "page.ortho": ("across",),
    "page.ortho_file": ("across",),
    "page.phrase": ("words", "sort"),
    "page.added_texts": ("text",),
    "page.work": ("state", "kind"),
}
PARTS = {
    "name": ("page.corpus", "page.gallery", "page.best", "page.work"),
    "id": ("page.ortho", "page.ortho_file", "page.text", "page.context", "page.piece"),
    "job": ("page.best_job", "page.best_certificate"),
    "number": ("page.context",),
}
"""pages that read such a part of their address"""


class Address(NamedTuple):
    endpoint: str
    method: str
    path: str

    def ask(self, client: FlaskClient, **form: str) -> TestResponse:
        """With a form, where it takes one, and the words that a phrase needs."""
        if self.method == "GET":
            return client.get(self.path, headers=HTML, query_string={"words": "the"})
        kind = "multipart/form-data" if self.endpoint == "page.take" else "application/x-www-form-urlencoded"
        return client.post(self.path, headers=HTML, data=form, content_type=kind)


def addresses(app: Flask, **instead: str) -> Iterator[Address]:
    """Every address of the page, of things that are there."""
    urls = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("page.") and rule.endpoint not in OPEN:
            values = {name: instead.get(name) or _value(rule, name) for name in rule.arguments}
            for method in sorted({"GET", "POST"} & (rule.methods or set())):
                yield Address(rule.endpoint, method, urls.build(rule.endpoint, values))


def _value(rule: Rule, name: str) -> str:
    one_of = re.search(rf"<any\(([^,)]+)[^>]*:{name}>", rule.rule)
    value = one_of[1] if one_of else FILLED.get(name, "1")
    return str(value.get(rule.endpoint, value[None]) if isinstance(value, dict) else value)


@pytest.fixture(scope="module")
def every() -> list[Address]:
    found = list(addresses(create_app(Settings(**apis.SETTINGS))))
    assert {each.endpoint for each in found} >= {"page.ortho", "page.ask_best", "page.add_texts", "page.corpora"}
    return found


def test_nobody_reads_without_a_session(api: Api, every: list[Address]) -> None:
    for each in every:
        if each.method == "GET":
            answer = each.ask(api.anonymous)
            assert answer.headers.get("Location", "").startswith("/log-in?to="), each


def test_other_tenants_find_nothing(api: Api, every: list[Address]) -> None:
    """Whatever their key may do: what is not theirs is not there, and nothing of it is in the answer."""
    client, token = session(api, "stranger")
    for each in every:
        if library.HARBOUR in each.path:
            answer = each.ask(client, csrf_token=token)
            assert answer.status_code in (404, 409, 422), each
            assert library.WORDS[-1] * 3 not in answer.text


def test_readers_change_nothing(api: Api, every: list[Address]) -> None:
    """But the second factor of their own key."""
    client, token = session(api, "read")
    for each in every:
        if each.method == "POST" and each.endpoint != "page.change_second_factor":
            answer = each.ask(client, csrf_token=token)
            assert (answer.status_code, "forbidden" in answer.text) == (403, True), each


def test_no_form_takes_a_nul(api: Api, every: list[Address]) -> None:
    """Postgres stores none. It is refused before anything is done, but for a text, which is refused as a file is."""
    client, token = session(api, "admin")
    for each in [*every, *(Address("", "POST", path) for path in FORMS)]:
        for sent in ({"name": "a\0b"}, {"a\0b": "name"}):
            if each.method == "POST":
                answer = each.ask(client, csrf_token=token, **sent)
                assert (answer.status_code, "NUL character" in answer.text) == (422, True), each
    answer = Address("page.take", "POST", f"/corpora/{library.HARBOUR}/add").ask(client, csrf_token=token, body="a\0b")
    assert (answer.status_code, "the pasted text" in answer.text.lower()) == (422, True)


def test_no_form_of_another_site_is_taken(api: Api, every: list[Address]) -> None:
    client, _ = session(api, "admin")
    for each in every:
        if each.method == "POST":
            for sent in (dict[str, str](), {"csrf_token": "made up"}):
                answer = each.ask(client, **sent)
                assert (answer.status_code, "form_refused" in answer.text) == (403, True), each


def test_what_nobody_types_breaks_nothing(api: Api, every: list[Address]) -> None:
    """In each part of an address, and in each parameter that a page has: an answer, never a failure of the server."""
    client, _ = session(api, "admin")
    read = {each.endpoint: each.path for each in every if each.method == "GET" and each.endpoint != "page.events"}
    assert PARAMETERS.keys() <= read.keys()
    app = create_app(Settings(**apis.SETTINGS))
    for odd in ODD:
        asked = [(read[endpoint], {name: odd}) for endpoint, names in PARAMETERS.items() for name in names]
        for part in ("name", "id", "job", "number"):
            asked += [(each.path, {}) for each in addresses(app, **{part: odd}) if each.endpoint in PARTS[part]]
        for path, query in asked:
            answer = client.get(path, query_string=query, headers=HTML)
            assert answer.status_code < 500, (path, query, answer.text[-1000:])
