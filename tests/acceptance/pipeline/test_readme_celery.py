"""README, "With Celery's own tools": every line of it is run."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Deploy
from tests.support.cluster import Cluster, until
from tests.support.paths import ROOT
from tests.support.waiting import SECONDS, eventually

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

MODULES = {".venv/bin/celery": "celery", ".venv/bin/crochet": "crochet_tasks"}


def blocks() -> list[str]:
    """The indented blocks of the section."""
    text = (ROOT / "README.md").read_text().partition("## With Celery's own tools\n")[2].partition("\n## ")[0]
    parts = itertools.groupby(text.splitlines(), lambda line: not line or line.startswith("    "))
    return ["\n".join(line[4:] for line in lines).strip("\n") for indented, lines in parts if indented]


def test_every_line_of_the_section(deploy: Deploy, tmp_path: Path) -> None:
    """Services become ready, commands end with 0, the program gets its answer, and the test passes."""
    deployment = deploy()
    found = [block for block in blocks() if block]
    commands = [line for block in found if block.startswith(".venv/bin/") for line in block.splitlines()]
    program, test = (block for block in found if not block.startswith(".venv/bin/"))
    assert len(commands) == 6
    for command in commands:
        path, *arguments = command.split()
        module = (sys.executable, "-m", MODULES[path])
        if {"worker", "relay"} & set(arguments):
            name = deployment.start(*arguments, program=module)
            until(lambda name=name: deployment.ready(name), deployment)  # type: ignore[misc]
        else:  # asks the workers, and gives them a second to answer, which may be too little here
            eventually(lambda run=(*module, *arguments): _run(deployment, tmp_path, *run).returncode == 0)  # type: ignore[misc]
    assert _output(deployment, tmp_path, sys.executable, "-c", program).startswith("text-")
    (tmp_path / "test_ours.py").write_text(test)
    own = ["-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    assert "1 passed" in _output(
        deployment, tmp_path, sys.executable, "-m", "pytest", *own, str(tmp_path / "test_ours.py")
    )


def _output(deployment: Cluster, folder: Path, *command: str) -> str:
    """What a command prints; it succeeds."""
    ran = _run(deployment, folder, *command)
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def _run(deployment: Cluster, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, somewhere else than in the repository."""
    return subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**deployment.environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
