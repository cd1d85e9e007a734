"""A second factor on the page; what somebody could try who has stolen the key of an administrator."""

from __future__ import annotations

import re
import time
from typing import Any

import pyotp
import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

import web
from crochet_tasks.access import keys, second_factor
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.db import second_factors
from crochet_tasks.settings import Settings
from tests.support import api as apis
from tests.support import steps
from tests.support.api import SETTINGS, Api, security_log
from tests.support.pages import HTML, Visitor, code

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock stands, unless a test moves it."""
    at = [time.time() // 30 * 30 + 1]
    monkeypatch.setattr(second_factor, "time", type("Clock", (), {"time": staticmethod(lambda: at[0])}))
    return at


def second_factor_time() -> int:
    return int(vars(second_factor)["time"].time())


def typed(client: FlaskClient, path: str, **form: str) -> TestResponse:
    """The form is loaded, filled in and sent."""
    return sent(client, client.get(path, headers=HTML), path, **form)


def sent(client: FlaskClient, page: TestResponse, path: str, **form: str) -> TestResponse:
    """The form of a page that was loaded."""
    token = re.search('name="csrf_token" value="([^"]*)"', page.text)
    assert token is not None
    return client.post(path, data={**form, "csrf_token": token[1]}, headers=HTML)


def secret_of(page: TestResponse) -> str:
    """What a page shows for the phone."""
    found = re.search("<code>([A-Z2-7]{32})</code>", page.text)
    assert found is not None, page.text
    return found[1]


def right(secret: str) -> str:
    return pyotp.TOTP(secret).at(second_factor_time())


def with_key(api: Api, key: str, again: Api | None = None) -> FlaskClient:
    """A browser in which the key was typed."""
    client = (again or api).app.test_client()
    typed(client, "/log-in", key=key)
    return client


def inside(client: FlaskClient) -> bool:
    return client.get("/corpora", headers=HTML).status_code == 200


def enrolled(api: Api, key: str = "admin") -> tuple[pyotp.TOTP, list[str]]:
    """Turned on by its holder: the phone, and the recovery codes."""
    visitor = Visitor(api, key)
    phone = pyotp.TOTP(secret_of(visitor.get("/second-factor")))
    assert code(visitor.post("/second-factor", {"code": "000000"})) == ""
    shown = visitor.post("/second-factor", {"code": phone.at(second_factor_time())})
    codes = re.findall("<code>([a-z2-7]{16})</code>", shown.text)
    assert len(codes) == second_factor.RECOVERY_CODES
    assert shown.headers["Cache-Control"] == "no-store"
    return phone, codes


def test_the_key_alone_opens_nothing(api: Api, now: list[float]) -> None:
    """No page, whatever is asked; the next code of the phone does."""
    phone, _ = enrolled(api)
    client = with_key(api, api.keys["admin"])
    for path in ("/corpora", "/console", "/console/keys", "/second-factor"):
        assert client.get(path, headers=HTML).status_code == 303, path
    assert typed(client, "/log-in/code", code="123456").status_code == 403
    assert not inside(client)
    now[0] += 30
    assert typed(client, "/log-in/code", code=phone.at(now[0])).status_code == 303
    assert inside(client)
    assert ("second_factor.enabled",) in steps.sql(api.process, "SELECT what FROM audit")


def test_a_code_counts_once_in_its_window(api: Api, now: list[float]) -> None:
    """Seen over somebody's shoulder: neither it nor one before it counts a second time."""
    phone, _ = enrolled(api)
    now[0] += 60
    late, used = phone.at(now[0] - 30), phone.at(now[0])
    assert typed(with_key(api, api.keys["admin"]), "/log-in/code", code=used).status_code == 303
    thief = with_key(api, api.keys["admin"])
    for seen in (used, late):
        assert typed(thief, "/log-in/code", code=seen).status_code == 403
    now[0] += 30
    assert typed(thief, "/log-in/code", code=used).status_code == 403
    assert not inside(thief)


def test_codes_cannot_be_guessed(api: Api, now: list[float]) -> None:
    """After a few wrong ones, from whichever browser, not even the right one counts, until some time is over."""
    phone, recovery = enrolled(api)
    now[0] += 30
    for guess in range(second_factors.FAILURES):
        assert typed(with_key(api, api.keys["admin"]), "/log-in/code", code=f"{guess:06}").status_code == 403
    right = phone.at(now[0])
    for attempt in (right, recovery[0]):
        answer = typed(with_key(api, api.keys["admin"]), "/log-in/code", code=attempt)
        assert (answer.status_code, "too many" in answer.text) == (403, True)
    assert ("second_factor.locked",) in [line[:1] for line in security_log(api)]
    with api.process.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE second_factors SET locked_until = clock_timestamp()")
    client = with_key(api, api.keys["admin"])
    assert typed(client, "/log-in/code", code=right).status_code == 303


def test_recovery_codes_count_once_and_are_not_stored(api: Api) -> None:
    _, recovery = enrolled(api)
    dump = str(steps.sql(api.process, "SELECT * FROM second_factors"))
    assert not any(each in dump for each in recovery)
    client = with_key(api, api.keys["admin"])
    assert typed(client, "/log-in/code", code=recovery[3].upper()).status_code == 303
    assert inside(client)
    again = with_key(api, api.keys["admin"])
    assert typed(again, "/log-in/code", code=recovery[3]).status_code == 403
    assert typed(again, "/log-in/code", code=recovery[4]).status_code == 303


def test_the_secret_is_encrypted_and_another_ones_code_is_none(api: Api, now: list[float]) -> None:
    """Neither the database alone nor one's own phone opens another key."""
    phone, _ = enrolled(api)
    assert phone.secret not in str(steps.sql(api.process, "SELECT convert_from(secret, 'UTF8') FROM second_factors"))
    enrolled(api, "stranger")
    now[0] += 30
    client = with_key(api, api.keys["stranger"])
    assert typed(client, "/log-in/code", code=phone.at(now[0])).status_code == 403


def test_the_step_between_is_bound_to_the_key(api: Api, now: list[float]) -> None:
    """Without a key first, and with one that is revoked meanwhile, a code is of no use."""
    phone, _ = enrolled(api)
    now[0] += 30
    nobody = api.app.test_client()
    assert nobody.get("/log-in/code", headers=HTML).status_code == 303
    client = with_key(api, api.keys["admin"])
    token = re.search('name="csrf_token" value="([^"]*)"', client.get("/log-in/code", headers=HTML).text)
    keys.revoke(api.process.database, api.keys["admin"])
    assert token is not None
    form = {"code": phone.at(now[0]), "csrf_token": token[1]}
    assert client.post("/log-in/code", data=form, headers=HTML).headers["Location"].startswith("/log-in")
    assert not inside(client)


def test_it_is_turned_off_with_a_code_only(api: Api, now: list[float]) -> None:
    """A session that was left open is not enough; an administrator of the tenant can, for who lost the phone."""
    phone, recovery = enrolled(api)
    client = with_key(api, api.keys["admin"])
    assert typed(client, "/log-in/code", code=recovery[0]).status_code == 303
    assert typed(client, "/second-factor", act="off", code="000000").status_code == 403
    now[0] += 30
    assert typed(client, "/second-factor", act="off", code=phone.at(now[0])).status_code == 303
    assert inside(with_key(api, api.keys["admin"]))
    enrolled(api)
    prefix = api.keys["admin"].split("_")[1]
    api.problem(api.stranger.delete(f"/v1/keys/{prefix}/second-factor"), "key_unknown", 404)
    api.problem(api.write.delete(f"/v1/keys/{prefix}/second-factor"), "forbidden", 403)
    assert api.admin.delete(f"/v1/keys/{prefix}/second-factor").status_code == 200
    assert inside(with_key(api, api.keys["admin"]))
    disabled = steps.sql(api.process, "SELECT by->>'via' FROM audit WHERE what = 'second_factor.disabled' ORDER BY id")
    assert disabled == [("page",), ("api",)]


def test_a_rotated_key_keeps_it(api: Api, now: list[float]) -> None:
    """Its phone and its recovery codes: the key that comes after it does not open the page alone. A code of the phone
    that was used does not count for it, either. What was not confirmed is left behind.
    """
    phone, recovery = enrolled(api)
    with_key(api, api.keys["stranger"]).get("/second-factor", headers=HTML)
    used = phone.at(now[0])
    key = keys.rotate(api.process.database, api.keys["admin"], grace=60.0).key
    client = with_key(api, key)
    assert not inside(client)
    assert typed(client, "/log-in/code", code=used).status_code == 403
    now[0] += 30
    assert typed(client, "/log-in/code", code=phone.at(now[0])).status_code == 303
    assert inside(client)
    assert typed(with_key(api, key), "/log-in/code", code=recovery[0]).status_code == 303
    assert not inside(with_key(api, api.keys["admin"]))
    audit = f"SELECT count(*) FROM audit WHERE what = 'second_factor.enabled' AND subject = 'key {key.split('_')[1]}'"
    assert steps.sql(api.process, audit) == [(1,)]
    assert inside(with_key(api, keys.rotate(api.process.database, api.keys["stranger"]).key))


def test_administrators_need_one_where_the_setting_says_so(api: Api) -> None:
    """Who has none turns one on before anything else; who may only read needs none."""
    strict = apis.made_again(api.process, Settings(**{**SETTINGS, "second_factor": True}), web.create_app)
    client = with_key(api, api.keys["admin"], strict)
    assert not inside(client)
    page = client.get("/log-in/code", headers=HTML)
    wrong = sent(client, page, "/log-in/code", code="000000")
    assert (wrong.status_code, secret_of(wrong)) == (403, secret_of(page))
    assert not inside(client)
    assert "Recovery codes" in sent(client, wrong, "/log-in/code", code=right(secret_of(page))).text
    assert inside(client)
    assert inside(with_key(api, api.keys["read"], strict))


def test_two_with_the_key_are_never_shown_one_secret(api: Api) -> None:
    """The thief has looked at the page before its owner turns it on, and meanwhile: with it they would have the codes
    of the owner's phone. Their session ends with it, too.
    """
    thief, owner = (with_key(api, api.keys["admin"]) for _ in range(2))
    first, page = (client.get("/second-factor", headers=HTML) for client in (thief, owner))
    assert secret_of(first) != secret_of(page)
    seen = sent(thief, first, "/second-factor", code="000000")
    assert secret_of(seen) not in (secret_of(first), secret_of(page))
    page = sent(owner, page, "/second-factor", code=right(secret_of(page)))
    assert (page.status_code, secret_of(page) != secret_of(seen)) == (403, True)
    assert "Recovery codes" in sent(owner, page, "/second-factor", code=right(secret_of(page))).text
    assert (inside(thief), inside(owner)) == (False, True)


@pytest.mark.parametrize("path", ["/second-factor", "/log-in/code"])
def test_a_secret_that_cannot_be_read_any_more_is_replaced(api: Api, path: str) -> None:
    """CROCHET_JWT_SECRET was changed after somebody had looked at the page."""
    with_key(api, api.keys["admin"]).get("/second-factor", headers=HTML)
    settings: dict[str, Any] = {**SETTINGS, "jwt_secret": SecretStr("another secret, which is as long as it must be")}
    settings["second_factor"] = path == "/log-in/code"
    client = with_key(api, api.keys["admin"], apis.made_again(api.process, Settings(**settings), web.create_app))
    page = client.get(path, headers=HTML)
    assert page.status_code == 200
    assert "Recovery codes" in sent(client, page, path, code=right(secret_of(page))).text


def test_after_another_secret_recovery_codes_still_count(api: Api, now: list[float]) -> None:
    phone, recovery = enrolled(api)
    now[0] += 30
    settings: dict[str, Any] = {**SETTINGS, "jwt_secret": SecretStr("another secret, which is as long as it must be")}
    other = apis.made_again(api.process, Settings(**settings), web.create_app)
    client = with_key(api, api.keys["admin"], other)
    assert typed(client, "/log-in/code", code=phone.at(now[0])).status_code == 403
    assert typed(client, "/log-in/code", code=recovery[0]).status_code == 303


def test_programs_need_none(api: Api) -> None:
    """Keys of programs are as they were: the API knows no second factor."""
    enrolled(api)
    assert api.admin.get("/v1/keys").status_code == 200
    made = keys.create(api.process.database, KeySpec("other", ("admin",)))
    assert inside(with_key(api, made.key))
