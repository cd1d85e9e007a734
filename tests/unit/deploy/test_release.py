"""A release: one version, and requirements that every pip can resolve."""

from __future__ import annotations

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_the_newest_of_the_changelog_and_the_tag_of_the_image() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(PROJECT['version'])} \(\d{{4}}-\d\d-\d\d\)", sections[1])
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert services["api"]["image"] == f"crochet-tasks:${{VERSION:-{PROJECT['version']}}}"


def test_opentelemetry_is_pinned_to_one_release() -> None:
    """Its pre-releases require each other exactly, which pip 23.2 cannot resolve from ranges."""
    pins = {
        requirement.name: str(requirement.specifier)
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.name.startswith("opentelemetry-")
    }
    assert len(pins) > 1
    found = {re.fullmatch(r"==[01]\.(\d+)(?:\.|b)(\d+)", pin) for pin in pins.values()}
    assert None not in found, pins
    stable = {pin for name, pin in pins.items() if "instrumentation" not in name}
    unstable = {pin for name, pin in pins.items() if "instrumentation" in name}
    assert (len(stable), len(unstable)) == (1, 1), pins


def test_the_lock_file_has_the_pinned_release() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for requirement in map(Requirement, PROJECT["dependencies"]):
        if requirement.name.startswith("opentelemetry-"):
            assert f"\n{requirement.name}{requirement.specifier} " in lock
