"""People who log in at an OpenID provider: an API that knows one, and what a browser and a program do there."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

import web
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support.api import SETTINGS, Api
from tests.support.oidc_provider import CLIENT, SECRET, Running


def served(process: Process, issuer: str, **more: Any) -> Api:
    own = {"oidc_issuer": issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SecretStr(SECRET)}
    return apis.made(process, Settings(**{**SETTINGS, **own, **more}), web.create_app)


def sent_away(browser: FlaskClient, to: str = "/corpora") -> str:
    """The address at the provider that a browser is sent to."""
    return str(browser.get("/log-in/oidc", query_string={"to": to}).headers["Location"])


def back(browser: FlaskClient, address: str) -> TestResponse:
    """The provider's redirect, followed: on this machine only path and query count."""
    parts = urlsplit(address)
    return browser.get(f"{parts.path}?{parts.query}", headers={"Accept": "text/html"})


def log_in(api: Api, elsewhere: Running) -> tuple[FlaskClient, TestResponse]:
    browser = api.app.test_client()
    return browser, back(browser, elsewhere.visited(sent_away(browser)))


def page(browser: FlaskClient, path: str = "/corpora") -> TestResponse:
    return browser.get(path, headers={"Accept": "text/html"})


def exchanged(api: Api, token: str) -> TestResponse:
    return api.anonymous.post("/v1/tokens/oidc", json={"id_token": token})


def refused(answer: TestResponse, reason: str) -> bool:
    return answer.status_code == 403 and reason in answer.text
