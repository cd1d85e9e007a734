"""Errors are reported to what speaks Sentry's protocol: with what they are about, and with no values."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
import sentry_sdk
from pydantic import SecretStr

from crochet_tasks import telemetry
from crochet_tasks.db.process import Process
from crochet_tasks.errors import DatabaseUnavailable
from crochet_tasks.settings import Settings, version
from crochet_tasks.telemetry.error_reports import ErrorReports
from tests.support.api import Api
from tests.support.collectors import Collector
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

log = logging.getLogger("crochet_tasks.tests")


class Server(Collector):
    """Keeps reports as a Sentry or GlitchTip gets them."""

    @property
    def dsn(self) -> SecretStr:
        return SecretStr(self.url.replace("://", "://akey@") + "/1")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The items of the envelopes: after a line about the envelope, a line about each and the item itself."""
        lines = [line for post in self.posts for line in post.body.splitlines()[1:]]
        return [
            json.loads(item)
            for head, item in zip(lines[::2], lines[1::2], strict=True)
            if json.loads(head)["type"] == "event"
        ]


@pytest.fixture
def sentry() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def reports(sentry: Server) -> Iterator[Server]:
    running = ErrorReports("api", Settings(sentry_dsn=sentry.dsn))
    yield sentry
    running.stop()


def raises(error: Exception) -> NoReturn:
    local = "tnes reven"[::-1]
    assert local
    raise error


def report(error: Exception, **extra: object) -> None:
    try:
        raises(error)
    except type(error):
        log.exception("something_failed", extra=extra)


def test_a_bug_behind_a_request_is_reported(reports: Server, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the request's id, release, environment and traceback; without its body, key or any variable."""
    monkeypatch.setattr("api.texts.resources.admission", lambda: raises(ValueError("a bug")))
    word = "secret" + "ive"  # a report shows lines of source
    sent = {"title": "t", "body": f"{word} words"}
    answer = api.write.post("/v1/corpora/genesis/texts", json=sent, headers={"X-Request-ID": "request-seven"})
    assert answer.status_code == 500
    eventually(lambda: len(reports.events) == 1)
    (event,) = reports.events
    assert (event["release"], event["environment"]) == (f"crochet-tasks@{version()}", "production")
    assert (event["tags"]["service"], event["tags"]["request"], event["tags"]["code"]) == (
        "api",
        "request-seven",
        "internal",
    )
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "a bug")
    assert error["stacktrace"]["frames"][-1]["function"] == "raises"
    whole = json.dumps(event)
    assert not [each for each in (word, "never " + "sent", api.keys["write"][15:]) if each in whole]


def test_reports_are_grouped_by_code(reports: Server) -> None:
    """Wherever they come from and whatever their message; bugs by where they are."""
    for reason in ("one", "two"):
        report(DatabaseUnavailable(reason=reason))
    report(ValueError("three"), code="internal", task="search.part")
    log.error("not_recorded", extra={"code": "disk_full"})
    eventually(lambda: len(reports.events) == 4)
    assert [event["fingerprint"] for event in reports.events] == [
        ["database_unavailable"],
        ["database_unavailable"],
        ["{{ default }}"],
        ["disk_full"],
    ]
    assert reports.events[2]["tags"]["task"] == "search.part"


def test_what_is_no_error_and_what_is_secret_is_not_reported(reports: Server) -> None:
    log.warning("not_so_bad")
    report(ValueError("postgresql://user:hunter2@db/x is wrong\nDETAIL:  the words of a text"))
    eventually(lambda: len(reports.events) == 1)
    whole = json.dumps(reports.events)
    assert not [word for word in ("not_so_bad", "hunter2", "the words") if word in whole]


def test_nothing_is_reported_after_the_end(sentry: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to the addresses that the library finds in the environment, either."""
    monkeypatch.setenv("SENTRY_DSN", sentry.dsn.get_secret_value())
    monkeypatch.setenv("SENTRY_SPOTLIGHT", f"{sentry.url}/stream")
    ErrorReports("api", Settings(sentry_dsn=sentry.dsn)).stop()
    integrations = set(sentry_sdk.get_client().integrations)
    report(ValueError("late"))
    sentry_sdk.flush()
    assert (sentry.posts, integrations) == ([], set())


def test_reports_go_to_the_address_of_the_settings_only(sentry: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as other:
        monkeypatch.setenv("SENTRY_SPOTLIGHT", f"{other.url}/stream")
        running = ErrorReports("api", Settings(sentry_dsn=sentry.dsn))
        report(ValueError("a bug"))
        running.stop()
        assert (len(sentry.events), other.posts) == (1, [])


def test_it_is_off_without_an_address_and_survives_a_server_that_is_away(process: Process, sentry: Server) -> None:
    telemetry.begin("api", Settings())
    report(ValueError("unseen"))
    telemetry.end()
    assert sentry.posts == []
    gone = Server()
    with gone:
        pass
    telemetry.begin("api", Settings(sentry_dsn=gone.dsn))
    report(ValueError("lost"))
    telemetry.end()
