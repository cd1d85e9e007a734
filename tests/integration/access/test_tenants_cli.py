"""`crochet tenants`, as it is typed: what it changes is what the keys and corpora of a tenant see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.access.conftest import Typed

pytestmark = pytest.mark.integration


def shown(typed: Typed, *arguments: str) -> dict[str, Any]:
    status, out, err = typed("tenants", *arguments, "--json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def listed(typed: Typed) -> list[str]:
    """The names, newest first."""
    return [json.loads(line)["name"] for line in typed("tenants", "list", "--json")[1].splitlines()]


def test_the_life_of_a_tenant(typed: Typed) -> None:
    """Made, limited, renamed, suspended, resumed, deleted; each is in the security log."""
    assert shown(typed, "create", "north")["max_corpora"] is None
    typed("keys", "create", "pages", "--tenant", "north")
    changed = shown(typed, "set", "north", "--rename", "south", "--max-corpora", "3", "--rate", "7")
    assert (changed["name"], changed["max_corpora"], changed["rate"], changed["keys"]) == ("south", 3, 7, 1)
    assert typed("tenants", "list")[1].splitlines()[0] == "south  good  0 corpora (most 3)  1 keys (rate 7)"
    assert shown(typed, "set", "south", "--rate", "default")["rate"] is None
    assert (shown(typed, "set", "south", "--weight", "3", "--max-searches", "4"))["weight"] == 3
    assert typed("tenants", "list")[1].splitlines()[0].endswith("(rate default)  weight 3  4 searches at once")
    assert shown(typed, "set", "south", "--max-orthos", "5000", "--max-texts", "9")["max_orthos"] == 5000
    assert typed("tenants", "show", "south")[1].splitlines()[1:] == [
        "number: 2, in metrics and the audit",
        *("orthos: 0 of 5,000", "texts: 0 of 9", "bytes of texts: 0 bytes"),
    ]
    assert shown(typed, "show", "south")["texts"] == 0
    assert shown(typed, "suspend", "south")["suspended"] is True
    assert typed("tenants", "list")[1].startswith("south  suspended  ")
    assert shown(typed, "resume", "south")["suspended"] is False

    status, out, err = typed("tenants", "delete", "south")
    assert (status, out, "[tenant_not_confirmed]" in err, listed(typed)) == (2, "", True, ["south", "default"])
    assert typed("tenants", "delete", "south", "--confirm", "south")[0] == 0
    assert listed(typed) == ["default"]
    log = json.loads(typed("keys", "log", "--json")[1])["lines"]
    assert [line["what"] for line in log if line["what"].startswith("tenant.")] == [
        "tenant.created",
        *["tenant.changed"] * 6,
        "tenant.deleted",
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "a b"], "invalid_request"),
        (["create", "default"], "tenant_exists"),
        (["set", "nobody", "--rate", "7"], "tenant_unknown"),
        (["set", "default", "--rename", "other"], "tenant_needed"),
        (["set", "default", "--max-corpora", "many"], "usage"),
        (["set", "default", "--rate", "0"], "usage"),
        (["set", "default", "--weight", "0"], "usage"),
        (["set", "default", "--weight", "101"], "usage"),
        (["set", "default", "--max-orthos", "0"], "usage"),
        (["set", "default", "--max-bytes", "1 MB"], "usage"),
        (["show", "nobody"], "tenant_unknown"),
        (["suspend", "default"], "tenant_needed"),
        (["resume", "nobody"], "tenant_unknown"),
        (["delete", "default", "--confirm", "default"], "tenant_needed"),
    ],
)
def test_what_is_wrong_is_said(typed: Typed, arguments: list[str], code: str) -> None:
    """In one line with its code; and nothing is changed."""
    before = typed("tenants", "list")
    status, out, err = typed("tenants", *arguments)
    assert (out, err.count("\n"), f"[{code}]" in err) == ("", 1, True)
    assert status in (2, 3)
    assert typed("tenants", "list") == before
