"""The Dockerfile: what it builds, and from what. tests/acceptance/deploy builds it."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.integration.deploy.test_compose import DOCKERFILE, PINNED
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration


def test_the_image_runs_the_program_as_an_ordinary_user() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases[-1] == "scratch"
    assert all(PINNED.fullmatch(base) for base in bases[:-1])
    final = lines[len(lines) - lines[::-1].index(f"FROM {bases[-1]}") :]
    assert {"USER 10001:10001", 'ENTRYPOINT ["crochet"]', "STOPSIGNAL SIGTERM"} <= set(final)
    assert "PYTHONUNBUFFERED=1" in " ".join(final)
    assert not [line for line in final if line.startswith("RUN ")]
    assert "--require-hashes" in " ".join(lines)


def test_the_builder_gets_what_the_image_is_made_of() -> None:
    """What is copied exists and is not ignored, and what the wheel takes is copied."""
    copies = re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    copied = {name for line in copies for name in line.split()}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)
    assert "**/*.so" in ignored  # the image's kernel is compiled for its Python
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["only-include"], "hatch_build.py"} <= {name.rstrip("/") for name in copied}
