"""deploy/scripts/rollout-kubernetes, with a kubectl that only writes down how it is called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.integration

SCRIPTS = ROOT / "deploy" / "scripts"
KUBECTL = """#!/bin/sh
shift 2 # --namespace crochet
echo "$*" >> "$CALLS"
case "$*" in
  *jsonpath*) printf %s "$PAUSED" ;;
  *smoke) cat > "$CALLS.key" ;;
esac
"""
ALL = ("relay", "ingest", "search", "orthos", "api", "flower")
Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the script; the calls of kubectl that changed something."""
    kubectl, calls = tmp_path / "kubectl", tmp_path / "calls"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)

    def called(*arguments: str, paused: bool = False) -> list[str]:
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",  # noqa: TID251 - for a program
            "CALLS": str(calls),
            "PAUSED": "true" if paused else "",
            "CROCHET_KEY": "a key",
        }
        subprocess.run([SCRIPTS / "rollout-kubernetes", *arguments], env=environment, check=True, capture_output=True)
        assert (tmp_path / "calls.key").read_text() == "a key"
        return [line for line in calls.read_text().splitlines() if not line.startswith("get ")]

    return called


def test_update_waits_for_the_migration_and_every_service(run: Run) -> None:
    done = run("update", "deploy/kubernetes/overlays/production")
    assert done[:3] == [
        "delete job migrate --ignore-not-found",
        "apply --kustomize deploy/kubernetes/overlays/production",
        "wait --for=condition=complete job/migrate --timeout=15m",
    ]
    assert done[3:-1] == [f"rollout status deployment/{name} --timeout=15m" for name in ALL]
    assert done[-1].endswith("smoke")


def test_a_canary_is_a_rollout_that_pauses_after_its_first_pod(run: Run) -> None:
    done = run("canary", "crochet-tasks:next")
    assert done[:-1] == [
        call.format(name)
        for name in ("api", "search")
        for call in ("set image deployment/{} *=crochet-tasks:next", "rollout pause deployment/{}")
    ]


def test_back_undoes_the_update_of_every_service(run: Run) -> None:
    assert run("back")[: len(ALL)] == [f"rollout undo deployment/{name}" for name in ALL]


def test_back_undoes_a_canary_only(run: Run) -> None:
    assert run("back", paused=True)[:5] == [
        *(f"rollout resume deployment/{name}" for name in ("api", "search")),
        *(f"rollout undo deployment/{name}" for name in ("api", "search")),
        "rollout status deployment/relay --timeout=15m",
    ]


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir()))
def test_a_wrong_call_shows_how_it_is_called(script: str) -> None:
    done = subprocess.run([SCRIPTS / script, "upgrade"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{script} update " in done.stderr
    assert f"{script} back " in done.stderr
