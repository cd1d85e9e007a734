"""What alerts follow from: each event is recorded in the security log and counted, once, when it happens."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from crochet_tasks.access import keys, signing
from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER
from crochet_tasks.db import access
from crochet_tasks.db.process import Process
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics
from tests.support import steps
from tests.support.api import SETTINGS, Api, made, security_log

pytestmark = pytest.mark.integration

Counted = Callable[[], list[str]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The events that were counted."""
    found: list[str] = []
    monkeypatch.setattr(metrics.SECURITY, "add", lambda number=1, **labels: found.append(str(labels["event"])))
    return lambda: found


def logged(api: Api, what: str) -> int:
    return sum(line[0] == what for line in security_log(api))


def test_a_key_from_a_new_address(api: Api, counted: Counted) -> None:
    """Its first one is none, and each other one is new once: of IPv6 for the whole network."""
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2"):
        answer = api.read.get("/v1/corpora", environ_overrides={"REMOTE_ADDR": address})
        assert answer.status_code == 200
    assert counted() == ["key.new_address"] * 2
    assert logged(api, "key.new_address") == 2
    stored = steps.sql(api.process, "SELECT addresses FROM keys WHERE name = 'read'")
    assert stored == [(["2001:db8::/64", "192.0.2.2", "192.0.2.1"],)]


def test_only_so_many_addresses_are_remembered(api: Api) -> None:
    for number in range(access.MOST_ADDRESSES + 5):
        api.read.get("/v1/corpora", environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"})
    [(stored,)] = steps.sql(api.process, "SELECT cardinality(addresses) FROM keys WHERE name = 'read'")
    assert stored == access.MOST_ADDRESSES


def test_a_wrong_key_from_anywhere_is_none(api: Api, counted: Counted) -> None:
    wrong = api.keys["read"][:-1] + ("A" if api.keys["read"][-1] != "A" else "B")
    for address in ("192.0.2.1", "192.0.2.2"):
        api.problem(
            api.with_key(wrong).get("/v1/corpora", environ_overrides={"REMOTE_ADDR": address}), "unauthorized", 401
        )
    assert counted() == []


def test_a_refresh_token_that_is_used_twice(api: Api, counted: Counted) -> None:
    """The thief's tokens end as well as those of the one it was stolen from."""
    token = api.read.post("/v1/tokens", json={}).get_json()["refresh_token"]
    first = api.anonymous.post("/v1/tokens/refresh", json={"refresh_token": token})
    assert first.status_code == 200
    assert counted() == []
    again = api.anonymous.post("/v1/tokens/refresh", json={"refresh_token": token})
    api.problem(again, "unauthorized", 401)
    assert counted() == ["session.stolen"]
    api.problem(api.with_key(first.get_json()["access_token"]).get("/v1/corpora"), "unauthorized", 401)


def test_a_signed_request_that_comes_twice(process: Process, counted: Counted) -> None:
    """One that is wrong or late is no replay."""
    api = made(process, Settings(**SETTINGS, signed_admin=True))
    parts = signing.split(api.keys["admin"])
    assert parts is not None
    date = str(time.time())
    signature = signing.signature(parts[1], "GET", "/v1/keys", date, b"")
    headers = {DATE_HEADER: date, SIGNATURE_HEADER: signature}
    assert api.admin.get("/v1/keys", headers=headers).status_code == 200
    api.problem(api.admin.get("/v1/keys?limit=1", headers=headers), "signature_refused", 403)
    assert counted().count("signature.replayed") == 1  # all begin at zero
    api.problem(api.admin.get("/v1/keys", headers=headers), "signature_refused", 403)
    assert counted().count("signature.replayed") == 2
    assert logged(api, "signature.replayed") == 1


def test_a_second_factor_that_is_taken_away(api: Api, counted: Counted) -> None:
    prefix = api.keys["admin"].split("_")[1]
    assert api.admin.delete(f"/v1/keys/{prefix}/second-factor").status_code == 200
    assert counted() == []
    steps.sql(
        api.process,
        "INSERT INTO second_factors (key, secret, confirmed_at)"
        f" SELECT id, 'x', now() FROM keys WHERE prefix = '{prefix}' RETURNING key",
    )
    keys.reset_second_factor(api.process.database, prefix)
    assert counted() == ["second_factor.disabled"]


def test_all_of_them_begin_at_zero(process: Process, counted: Counted) -> None:
    """For Prometheus a counter that begins at 1 has not grown."""
    made(process)
    assert counted() == list(metrics.SECURITY_EVENTS)
