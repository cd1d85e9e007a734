"""People who log in: what becomes of them here when the provider says something else of them, or something odd."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from crochet_tasks.access import keys, people, tenants
from crochet_tasks.db.access import Entry
from crochet_tasks.db.process import Process
from crochet_tasks.schemas.access import KeyLine
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.api import Api, security_log
from tests.support.oidc_provider import Running
from tests.support.people import back, exchanged, log_in, page, sent_away, served

pytestmark = pytest.mark.integration
Known = Callable[..., None]


@pytest.fixture
def api(process: Process, elsewhere: Running) -> Api:
    return served(process, elsewhere.issuer, oidc_tenant_claim="org")


@pytest.fixture
def known(elsewhere: Running) -> Known:
    """Has the provider say this of the person: of tenant `other`, unless it says another one."""
    number = iter(range(1, 100))

    def say(**claims: object) -> None:
        elsewhere.next(claims={"org": "other", "jti": str(next(number)), **claims})

    say()
    return say


def tenant(api: Api, name: str, **changes: Any) -> None:
    tenants.add(api.process.database, name, Entry("tenant.created"))
    if changes:
        tenants.change(api.process.database, Settings(), name, changes, Entry("tenant.changed"))


def logged_in(api: Api, elsewhere: Running) -> FlaskClient:
    """A program with the tokens of the person."""
    made = exchanged(api, elsewhere.id_token())
    assert made.status_code == 201, made.text
    return api.with_key(made.get_json()["access_token"])


def persons(api: Api) -> list[KeyLine]:
    return [each for each in keys.listed(api.process.database) if each.person]


# ── what has changed at the provider ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("claims", [{"roles": []}, {"roles": ["guest"]}, {"org": None}, {"org": "nowhere"}])
def test_who_loses_role_or_tenant_loses_their_sessions(
    api: Api, elsewhere: Running, known: Known, claims: dict[str, Any]
) -> None:
    """With the log-in that is refused. The security log says so once."""
    program = logged_in(api, elsewhere)
    browser, _ = log_in(api, elsewhere)
    assert page(browser).status_code == program.get("/v1/corpora").status_code == 200
    for _ in range(2):
        known(**claims)
        api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    api.problem(program.get("/v1/corpora"), "unauthorized", 401)
    assert page(browser).headers["Location"] == "/log-in?to=/corpora"
    ended = [line for line in security_log(api) if line[0] == "session.ended"]
    assert [(name, details["session"]) for _, name, _, details in ended] == [(persons(api)[0].key, "all")]  # type: ignore[index]
    known()
    assert logged_in(api, elsewhere).get("/v1/corpora").status_code == 200


def test_who_moves_to_a_suspended_tenant_loses_their_sessions(api: Api, elsewhere: Running, known: Known) -> None:
    tenant(api, "stopped", suspended=True)
    program = logged_in(api, elsewhere)
    known(org="stopped")
    api.problem(exchanged(api, elsewhere.id_token()), "tenant_suspended", 403)
    api.problem(program.get("/v1/corpora"), "unauthorized", 401)
    assert [each.tenant for each in persons(api)] == ["stopped"]
    assert [line[0] for line in security_log(api)].count("person.changed") == 1
    browser = api.app.test_client()
    assert back(browser, elsewhere.visited(sent_away(browser))).status_code == 403
    assert browser.get_cookie("crochet_log_in", path="/log-in/oidc") is None


def test_a_first_log_in_to_a_suspended_tenant_leaves_nothing(api: Api, elsewhere: Running, known: Known) -> None:
    tenant(api, "stopped", suspended=True)
    known(org="stopped")
    api.problem(exchanged(api, elsewhere.id_token()), "tenant_suspended", 403)
    assert persons(api) == []


@pytest.mark.parametrize(("named", "org"), [("None", None), ("7", 7), ("True", True), ("other", ["other"])])
def test_a_tenant_is_named_by_text_only(api: Api, elsewhere: Running, known: Known, named: str, org: object) -> None:
    if named != "other":
        tenant(api, named)
    known(org=org)
    api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    assert persons(api) == []


# ── at the same time ────────────────────────────────────────────────────────────────────────────


def admitted(api: Api, elsewhere: Running) -> dict[str, Any]:
    """The arguments of people.admitted for what the provider says."""
    settings = api.app.extensions["crochet.settings"]
    claims = {"iss": elsewhere.issuer, "sub": "ada", "email": "ada@example.org", "roles": ["reader"], "org": "other"}
    return {"settings": settings, "claims": claims, "entry": Entry("person")}


def test_a_tenant_is_not_deleted_while_somebody_logs_in_to_it(api: Api, elsewhere: Running, known: Known) -> None:
    """Or there would be a person in a tenant that is gone, with a key that was not revoked with the others."""
    free = "SELECT name FROM tenants WHERE name = 'other' FOR NO KEY UPDATE SKIP LOCKED"
    with api.process.database.transaction() as connection:
        people.admitted(connection, **admitted(api, elsewhere))
        assert steps.sql(api.process, free) == []
    assert steps.sql(api.process, free) == [("other",)]


def test_two_first_log_ins_at_once_both_succeed(api: Api, elsewhere: Running, known: Known) -> None:
    with ThreadPoolExecutor(1) as pool:
        with api.process.database.transaction() as connection:
            people.admitted(connection, **admitted(api, elsewhere))
            second = pool.submit(exchanged, api, elsewhere.id_token())
            steps.until_blocked(api.process)
        assert second.result().status_code == 201, second.result().text
    assert len(persons(api)) == 1


# ── what a provider should not say ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "a\0b"},
        {"sub": "\ud800"},
        {"sub": ""},
        {"sub": "x" * 2000},
        {"sub": 7},
        {"sub": ["ada"]},
        {"org": "a\0b"},
        {"org": "\ud800"},
    ],
)
def test_odd_subjects_and_tenants_are_refused(
    api: Api, elsewhere: Running, known: Known, claims: dict[str, Any]
) -> None:
    known(**claims)
    api.problem(exchanged(api, elsewhere.id_token()), "log_in_refused", 403)
    assert log_in(api, elsewhere)[1].status_code == 403
    assert persons(api) == []


def test_odd_names_are_made_readable(api: Api, elsewhere: Running, known: Known) -> None:
    known(email="\ud800a\0b\n")
    logged_in(api, elsewhere)
    assert [each.name for each in persons(api)] == ["?a?b?"]
