"""The security log: each change in the transaction that makes it, each refusal once in a while, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from crochet_tasks.db import access
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import SETTINGS, Api, made
from tests.support.failing_work import with_bug

pytestmark = pytest.mark.integration

MERGE = {"Content-Type": "application/merge-patch+json", "If-Match": "*"}


def logged(api: Api, what: str) -> list[tuple[object, ...]]:
    about = "SELECT what, tenant, details->>'corpus', request, address FROM security_log WHERE what LIKE :what"
    return steps.sql(api.process, f"{about} ORDER BY id", what=what)


def test_what_is_done_is_in_the_log_with_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is not done; what is done is written down once, and by whose request."""

    def full(*_: object) -> None:
        raise RuntimeError("no room")

    def text(verb: str) -> Callable[[], TestResponse]:
        return lambda: api.admin.post(f"/v1/corpora/b/work/text-1/{verb}")

    api.read.get("/v1/corpora")
    api.write.get("/v1/corpora")
    api.admin.get("/v1/corpora")  # so no first use is recorded below
    changes: list[tuple[str, Callable[[], TestResponse], str]] = [
        ("corpus.created", lambda: api.write.post("/v1/corpora", json={"name": "a"}), "SELECT FROM corpora"),
        (
            "corpus.changed",
            lambda: api.write.patch("/v1/corpora/a", data='{"name": "b"}', headers=MERGE),
            "SELECT FROM corpora WHERE name = 'b'",
        ),
        ("work.cancelled", text("cancel"), "SELECT FROM texts WHERE state = 'cancelled'"),
        ("work.retried", text("retry"), "SELECT FROM texts WHERE state = 'accepted'"),
        (
            "corpus.deleted",
            lambda: api.admin.delete("/v1/corpora/b?confirm=b"),
            "SELECT FROM corpora WHERE removed_at IS NOT NULL",
        ),
    ]
    for what, do, is_done in changes:
        with monkeypatch.context() as patch:
            patch.setattr(access, "add_log_entry", full)
            api.problem(do(), "internal", 500)
        assert (steps.sql(api.process, is_done), logged(api, what)) == ([], []), what
        answer = do()
        assert answer.status_code < 300, answer.data
        assert steps.sql(api.process, is_done) == [()]
        ((_, tenant, _, request, address),) = logged(api, what)
        assert (tenant, request, address) == (1, answer.headers["X-Request-ID"], "127.0.0.1")
        if what == "corpus.changed":
            assert api.write.post("/v1/corpora/b/texts", json={"title": "t", "body": "a b"}).status_code == 202
    assert len(logged(api, "corpus.%")) == 3


def test_failed_work_is_retried_with_its_line(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of searches, too; of a corpus that is deleted meanwhile nothing is opened again."""
    corpus = steps.new_corpus(api.process, name="genesis")
    with_bug(corpus, monkeypatch, "search.part")
    ((failed,),) = steps.sql(api.process, "SELECT id::text FROM work WHERE state = 'failed'")
    steps.sql(api.process, "UPDATE corpora SET removed_at = clock_timestamp()")
    monkeypatch.setattr("crochet_tasks.operate.tenant_work.check", lambda *_: None)  # as if it had come before
    retry = f"/v1/corpora/genesis/work/{failed}/retry"
    api.problem(api.admin.post(retry), "not_found", 404)
    assert logged(api, "work.%") == []
    steps.sql(api.process, "UPDATE corpora SET removed_at = NULL")
    assert api.admin.post(retry).status_code == 200
    assert [row[:3] for row in logged(api, "work.%")] == [("work.retried", 1, "genesis")]


def test_the_first_use_of_a_key(api: Api) -> None:
    """It is recorded, and no later one."""
    answers = [api.read.get("/v1/corpora") for _ in range(2)]
    steps.sql(api.process, "UPDATE keys SET last_used_at = last_used_at - interval '61 s'")
    api.read.get("/v1/corpora")
    ((_, tenant, _, request, _),) = logged(api, "key.first_used")
    assert (tenant, request) == (1, answers[0].headers["X-Request-ID"])


def test_every_refusal_is_noted(api: Api) -> None:
    """Also what a route itself refuses: a scope too many, a token for a token, a refresh token that is none."""
    token = api.read.post("/v1/tokens", json={}).get_json()["access_token"]
    api.problem(api.read.post("/v1/tokens", json={"scopes": ["admin"]}), "forbidden", 403)
    api.problem(api.with_key(token).post("/v1/tokens", json={}), "key_needed", 403)
    api.problem(
        api.anonymous.post("/v1/tokens/refresh", json={"refresh_token": "crr_" + "A" * 43}), "unauthorized", 401
    )
    assert [row[:2] for row in logged(api, "refused.%")] == [
        ("refused.forbidden", 1),
        ("refused.key_needed", 1),
        ("refused.unauthorized", None),
    ]


def test_a_refused_exchange_hides_no_session(api: Api) -> None:
    """One that is refused begins none: the next one that does is in the log."""
    api.problem(api.read.post("/v1/tokens", json={"scopes": ["admin"]}), "forbidden", 403)
    assert api.read.post("/v1/tokens", json={}).status_code == 201
    assert [row[:2] for row in logged(api, "session.%")] == [("session.begun", 1)]


@pytest.mark.usefixtures("start_of_a_window")
def test_who_asks_too_often_is_noted(process: Process) -> None:
    """Once in a while, as with other refusals; strangers, too."""
    limited = made(process, Settings(**{**SETTINGS, "api_rate": 1, "api_rate_anonymous": 1}))
    for client in (limited.read, limited.anonymous):
        assert [client.get("/v1/corpora").status_code for _ in range(3)][1:] == [429, 429]
    assert [row[:2] for row in logged(limited, "refused.rate_limited")] == [
        ("refused.rate_limited", 1),
        ("refused.rate_limited", None),
    ]


def test_the_log_cannot_be_filled(api: Api) -> None:
    """Neither with prefixes that are made up, nor with addresses of one network, nor with sessions begun and ended."""
    for number, letter in enumerate("abcdef"):
        made_up = {"Authorization": f"Bearer crk_{letter * 10}_{'A' * 43}"}
        for address in ("10.0.0.1", f"2001:db8:0:1::{number + 1}"):
            api.anonymous.get("/v1/corpora", headers=made_up, environ_base={"REMOTE_ADDR": address})
        api.read.post("/v1/tokens", json={})
        api.read.delete("/v1/tokens")
    with api.process.database.snapshot() as connection:
        lines = access.log_entries(connection)[::-1]
    refused = [(line.key, line.address, (line.details or {})["claimed"]) for line in lines if "refused" in line.what]
    assert refused == [(None, "10.0.0.1", "a" * 10), (None, "2001:db8:0:1::1", "a" * 10)]
    assert [line.what for line in lines if "session" in line.what] == ["session.begun", "session.ended"]
