"""`crochet keys`, as it is typed: a key is shown once, replaces another one, and ends when it is revoked."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from pydantic import SecretStr

from api import create_app
from crochet_tasks.cli import program
from crochet_tasks.db import access
from crochet_tasks.db.access import Entry
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.integration.access.conftest import Typed

pytestmark = pytest.mark.integration


def listed(typed: Typed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(typed("keys", "list", "--json")[1])["keys"]
    return found


def test_the_life_of_a_key(typed: Typed, distributed_database: str) -> None:
    """Made, used, rotated with grace, revoked: what the list says is what the API does with it."""
    app = create_app(Settings(database_url=SecretStr(distributed_database)))

    def answer(key: str) -> int:
        return app.test_client().get("/v1/corpora", headers={"Authorization": f"Bearer {key}"}).status_code

    try:
        status, out, err = typed(
            "keys", "create", "pages", "--scope", "write", "--tenant", "north", "--new-tenant", "--days", "2"
        )
        first = out.strip()
        prefix = first.split("_")[1]
        assert status == 0
        assert prefix in err
        assert first not in err
        assert answer(first) == 200
        status, out, _ = typed("keys", "list", "--tenant", "north")
        assert (status, first in out) == (0, False)
        assert out.startswith(f"{prefix}  good  north  write  standard  used ")

        second = typed("keys", "rotate", prefix, "--grace", "60")[1].strip()
        assert (answer(first), answer(second)) == (200, 200)
        old, new = listed(typed)
        assert (old["state"], new["state"], new["scopes"], new["tenant"]) == ("good", "good", ["write"], "north")
        assert old["expires_at"] < new["expires_at"]

        assert json.loads(typed("keys", "revoke", second.split("_")[1], "--json")[1])["state"] == "revoked"
        assert (answer(first), answer(second)) == (200, 401)
    finally:
        from api import process

        process.close(app)


def test_the_log_can_be_read(typed: Typed, distributed_database: str) -> None:
    """Oldest first, the newest of them; of a key, of a tenant, since a moment. Values from requests are escaped."""
    north, south = (
        typed("keys", "create", name, "--tenant", name, "--new-tenant")[1].strip() for name in ("north", "south")
    )
    typed("keys", "revoke", south)
    made_up = {"path": "/\x1b[2J", "claimed": north.split("_")[1]}
    with contextlib.closing(Database(distributed_database, Settings())) as database, database.transaction() as opened:
        access.add_log_entry(opened, Entry("refused.unauthorized", address="10.0.0.1", details=made_up))

    def log_lines(*options: str) -> list[tuple[str, str | None]]:
        lines = json.loads(typed("keys", "log", "--json", *options)[1])["lines"]
        return [(line["what"], line["tenant"]) for line in lines]

    refused = ("refused.unauthorized", None)
    made = [("tenant.created", None), ("key.created", "north"), ("tenant.created", None), ("key.created", "south")]
    assert log_lines() == [*made, ("key.revoked", "south"), refused]
    assert log_lines("--limit", "2") == [("key.revoked", "south"), refused]
    assert log_lines("--key", north) == [("key.created", "north"), refused]
    assert log_lines("--tenant", "south") == [("key.created", "south"), ("key.revoked", "south")]
    assert log_lines("--since", "2999-01-01") == []
    assert log_lines("--since", "2020-01-01", "--limit", "1") == [refused]
    out = typed("keys", "log", "--limit", "1")[1]
    assert "  refused.unauthorized  -  -  " in out
    assert r'address="10.0.0.1" path="/\u001b[2J"' in out


def test_a_tenant_that_is_made_with_its_key_is_in_the_log_once(typed: Typed) -> None:
    """As one that `crochet tenants create` makes; a second key makes none."""
    for name in ("first", "second"):
        assert typed("keys", "create", name, "--tenant", "north", "--new-tenant")[0] == 0
    lines = json.loads(typed("keys", "log", "--json")[1])["lines"]
    assert [line["details"] for line in lines if line["what"] == "tenant.created"] == [{"name": "north"}]


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        (["create", "x", "--tenant", "nobody"], "tenant_unknown", 2),
        (["log", "--tenant", "nobody"], "tenant_unknown", 2),
        (["log", "--since", "once"], "usage", 2),
        (["create", "a\nb"], "invalid_request", 2),
        (["create", "x", "--tenant", "a b", "--new-tenant"], "invalid_request", 2),
        (["create", "x", "--scope", "all"], "usage", 2),
        (["revoke", "aaaaaaaaaa"], "key_unknown", 2),
        (["rotate", "crk_aaaaaaaaaa_" + 43 * "s"], "key_unknown", 2),
    ],
)
def test_what_is_wrong_is_said(typed: Typed, arguments: list[str], code: str, status: int) -> None:
    """In one line, with its code and without a secret that was given in the wrong place; and nothing is made."""
    found, out, err = typed("keys", *arguments)
    assert (found, out) == (status, "")
    assert f"[{code}]" in err
    assert 43 * "s" not in err
    assert listed(typed) == []


def test_keys_are_kept_with_the_deployment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its database there is nothing to make keys in, and a private one would be no use."""
    monkeypatch.delenv("CROCHET_DATABASE_URL", raising=False)
    assert program.outcome(["keys", "list"], debug=False) == 2
    assert "[setting_missing]" in capsys.readouterr().err
