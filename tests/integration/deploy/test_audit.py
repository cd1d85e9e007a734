"""scripts/audit.py: vulnerabilities, licences and secrets are found, and what cannot be looked up is named."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

AUDIT = runpy.run_path(str(ROOT / "scripts" / "audit.py"))


def says(text: str) -> list[str]:
    """A program that prints it, in place of pip-audit."""
    return [sys.executable, "-c", f"print({text!r})"]


def test_what_is_pinned_has_licences_that_were_agreed_to() -> None:
    assert AUDIT["licences"]() == []


def test_another_licence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AUDIT["licences"].__globals__, "AGREED_BY_NAME", {})
    assert AUDIT["licences"](["psycopg", "flask"]) == [
        "psycopg: the licence is 'LGPL-3.0-only', to which nobody has agreed"
    ]


def test_no_secret_is_in_a_file_of_the_repository() -> None:
    assert AUDIT["secrets"]() == []


@pytest.mark.parametrize(
    "secret",
    [
        "crk_" + "abcdefghij" + "_Zk3v9QmX2pLr8sTn5uYw1aBc4dEf7gHj6kMo0iVxQzR",
        "crr_" + "Zk3v9QmX2pLr8sTn5uYw1aBc4dEf7gHj6kMo0iVxQzR",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIE" * 20,
        "AGE-SECRET-KEY-1" + "Q2W3" * 12 + "ER",
    ],
)
def test_a_secret_is_found_by_its_line_and_not_repeated(secret: str) -> None:
    (found,) = AUDIT["secrets"]({"a/file.txt": f"one\ntwo = {secret}\n", "another": "key = crk_abcdefghij_..."})
    assert found.startswith("a/file.txt:2: ")
    assert secret[-20:] not in found


def test_a_vulnerability_is_found() -> None:
    fault = {"id": "CVE-2099-1", "fix_versions": ["2.0"], "aliases": [], "description": ""}
    report = {"dependencies": [{"name": "a", "version": "1.0", "vulns": [fault]}, {"name": "b", "skip_reason": "c"}]}
    assert AUDIT["advisories"](command=says(json.dumps(report))) == ["a 1.0: CVE-2099-1, corrected in 2.0"]


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit('no route to host')"], ["/no/program"]])
def test_without_a_source_of_advisories_it_says_so(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And fails no build: who has no network cannot correct that."""
    assert AUDIT["advisories"](Path("none"), command) == []
    said = capsys.readouterr().out
    assert said.startswith("advisories: not checked, no source of them could be reached (")
    assert "no route to host" in said or "/no/program" in said
