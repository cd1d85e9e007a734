"""Look for known vulnerabilities of what is pinned, for licences that nobody has agreed to, and for secrets in files.

python scripts/audit.py [advisories] [licences] [secrets]     by default all; exit status 1 where something was found
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
PIP_AUDIT = "pip-audit==2.10.1"
"""run in an environment of its own: it is no dependency"""
SECONDS = 120
GIT = shutil.which("git") or "git"

# ── advisories ──────────────────────────────────────────────────────────────────────────────────


def advisories(lock: Path = LOCK, command: list[str] | None = None) -> list[str]:
    """Known vulnerabilities of the pinned versions. Without a source of them it says so, and finds none."""
    audit = ["uv", "tool", "run", "--from", PIP_AUDIT, "pip-audit", "--progress-spinner", "off"]
    audit += ["--format", "json", "--disable-pip", "--require-hashes", "--requirement", str(lock)]
    try:
        done = subprocess.run(command or audit, capture_output=True, text=True, timeout=SECONDS, check=False)
        report = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        said = done.stderr.strip().splitlines() if isinstance(error, ValueError) else [str(error)]
        why = said[-1] if said else "it said nothing"
        print(f"advisories: not checked, no source of them could be reached ({why})")
        return []
    found = [(each, fault) for each in report["dependencies"] for fault in each.get("vulns", [])]
    print(f"advisories: {len(report['dependencies'])} packages, {len(found)} vulnerabilities")
    return [f"{each['name']} {each['version']}: {fault['id']}, {_corrected(fault)}" for each, fault in found]


def _corrected(fault: dict[str, Any]) -> str:
    return f"corrected in {', '.join(fault['fix_versions']) or 'no version'}"


# ── licences ────────────────────────────────────────────────────────────────────────────────────

AGREED = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python|MPL|Mozilla Public|Zlib|CC0|0BSD|CNRI|DFSG", re.IGNORECASE)
"""they ask for a notice, or, as MPL does, for changes of their own files"""
AGREED_BY_NAME = {
    "psycopg": "LGPL-3.0-only: used as it is, and may be exchanged",
    "psycopg-binary": "as psycopg",
    "axe-playwright-python": "MIT, by its LICENSE; only for tests",
    "pyrage": "MIT, by its repository; its metadata names none",
}


def licences(names: list[str] | None = None) -> list[str]:
    """Packages that are pinned and installed, and whose licence is none of those above."""
    pinned = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[.*\])?==", LOCK.read_text(), re.MULTILINE)
    found, looked = [], 0
    for name in names or pinned:
        try:
            licence = licence_of(importlib.metadata.metadata(name))
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        looked += 1
        parts = re.split(r"\s+(?:AND|OR)\s+|;", licence)
        if name not in AGREED_BY_NAME and not all(AGREED.search(part) for part in parts):
            found.append(f"{name}: the licence is '{licence}', to which nobody has agreed")
    print(f"licences: {looked} packages, {len(found)} to be agreed to")
    return found


def licence_of(about: importlib.metadata.PackageMetadata) -> str:
    classifiers = [each.split(" :: ") for each in about.get_all("Classifier") or []]
    named = "; ".join(each[-1] for each in classifiers if each[0] == "License" and each[-1] != "OSI Approved")
    return str(about.get("License-Expression") or named or about.get("License") or "").partition("\n")[0]


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────

SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}",
    "an age key": r"AGE-SECRET-KEY-1[0-9A-Z]{50}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})",
    "a token of Slack": r"\bxox[abprs]-[0-9A-Za-z-]{20}",
    "an address of a Slack webhook": r"hooks\.slack\.com/services/T[0-9A-Z]{8}",
    "a key of Google": r"\bAIza[0-9A-Za-z_-]{35}",
    "an API key of ours": r"\bcrk_[a-z2-7]{10}_(?!(.)\1{20})[\w-]{43}\b",
    "a refresh token of ours": r"\bcrr_(?!(.)\1{20})[\w-]{43}\b",
    "an access token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{20,}\.[\w-]{20,}",
}


def secrets(files: dict[str, str] | None = None) -> list[str]:
    """What looks like a secret in the files of the repository, by file and line; never the secret itself."""
    looked = tracked() if files is None else files
    found = [
        f"{name}:{content.count(chr(10), 0, match.start()) + 1}: {what}"
        for name, content in looked.items()
        for what, pattern in SECRETS.items()
        for match in re.finditer(pattern, content)
    ]
    print(f"secrets: {len(looked)} files, {len(found)} found")
    return found


def tracked() -> dict[str, str]:
    """The text files that git knows."""
    names = subprocess.run([GIT, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return dict(_texts(name for name in names.split("\0") if name))


def _texts(names: Iterator[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue


CHECKS: dict[str, Callable[[], list[str]]] = {"advisories": advisories, "licences": licences, "secrets": secrets}


def main() -> None:
    found = [line for name in sys.argv[1:] or CHECKS for line in CHECKS[name]()]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
