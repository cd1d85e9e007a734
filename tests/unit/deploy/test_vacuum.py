"""Postgres is started with the same autovacuum everywhere: by the program, in containers, as the document says."""

from __future__ import annotations

import re

import pytest

from crochet_tasks.embedded.server import SETTINGS
from tests.support.paths import ROOT

OVERLAYS = "deploy/kubernetes/overlays"
PLACES = [
    "docker-compose.yml",
    f"{OVERLAYS}/single-node/postgres.yaml",
    f"{OVERLAYS}/production/postgres.yaml",
    "docs/deployment.md",
]


@pytest.mark.parametrize("place", PLACES)
def test_autovacuum_is_that_of_the_private_server(place: str) -> None:
    named = re.findall(r'\b(autovacuum_\w+)(?:=|: )"?([\w.]+)', (ROOT / place).read_text())
    ours = {name: value for name, value in SETTINGS.items() if name.startswith("autovacuum_")}
    assert len(ours) == len(named) == 3
    assert dict(named) == ours
