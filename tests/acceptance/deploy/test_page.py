"""docs/deployment.md, command by command, in a copy of the checkout and a real engine: `make test-deploy`."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crochet_tasks.schemas.reports import OrthoLine
from tests.support import oracle
from tests.support.deployment_page import commands, not_run
from tests.support.paths import ROOT
from tests.support.server import take_port

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.deploy,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # as in test_containers.py
]

LOGS = "docker compose logs --no-log-prefix"
IN_PLACE_OF = {
    "logs --follow --tail 50": "logs --tail 50",
    f'{LOGS} | grep \'"request": "01JB3Z9Q4T8W2K7N5M6P0R1S2X"\'': (
        "curl --silent http://127.0.0.1:8080/v1/corpora; "
        f'until FOUND=$({LOGS} | grep -o \'"request": "[^"]*"\' | tail -n 1); do sleep 1; done; '
        f'{LOGS} | grep "$FOUND"'
    ),
}
"""what does not end, and an id of a request that was made there"""
EXPORT = "docker compose exec --no-TTY api crochet export --corpus harbour"
COMPARED = ("Upgrade", "Back up", "Change a password")
"""sections after which the corpus is as it was"""


class Machine:
    """A checkout of its own, in which one works as docs/deployment.md says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name, self._api = folder, f"crochet-page-{uuid.uuid4().hex[:8]}", take_port()
        kept = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG")
        self._environment = {name: os.environ[name] for name in kept if name in os.environ}  # noqa: TID251 - for programs
        # What is set here wins over .env and docker-compose.yml, so that no deployment of this machine is touched.
        self._environment |= {"COMPOSE_PROJECT_NAME": self.name, "API_PORT": str(self._api)}
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).split("\0"):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def bash(self, script: str, seconds: float = 3000) -> str:
        """What it prints; raises AssertionError with that where a command fails."""
        script = script.replace("http://127.0.0.1:8080/v1", f"http://127.0.0.1:{self._api}/v1")
        script = script.replace("crochet-tasks_", f"{self.name}_")  # volumes
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        return done.stdout


@pytest.fixture
def machine(docker_client: Any, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    except BaseException:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            print(machine.bash("docker compose ps --all; docker compose logs --tail 60", 120))  # noqa: T201 - pytest shows it
        raise
    finally:
        machine.bash("COMPOSE_PROFILES=backup,restore,canary docker compose down --volumes --remove-orphans", 300)


def walk() -> str:
    """All commands of the page in one script, each after a line that names it."""
    steps: list[str] = []
    for section, lines in itertools.groupby(commands(), lambda line: line.section):
        for line in lines:
            text = line.text
            for shown, instead in IN_PLACE_OF.items():
                text = text.replace(shown, instead)
            if line.text not in not_run() or text != line.text:
                steps += [f"printf '\\n── %s\\n' {shlex.quote(line.text)}", text]
        if section in COMPARED:
            steps.append(f"{EXPORT} > '{section}.jsonl'")
    return "\n".join(steps)


def variables(machine: Machine) -> dict[str, str]:
    """Those of .env."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", (machine.folder / ".env").read_text(), re.MULTILINE))


def exported(path: Path) -> dict[tuple[tuple[int, ...], tuple[str, ...]], int]:
    lines = [OrthoLine.model_validate_json(line) for line in path.read_text().splitlines()]
    return {(tuple(line.shape), tuple(line.words)): line.born for line in lines}


def test_the_page_is_true(machine: Machine) -> None:
    """Every command succeeds, from nothing to the end; all is there after an update, a restore and new passwords."""
    assert len(commands()) > 35
    print(machine.bash(walk()))  # noqa: T201 - pytest shows it
    secrets = {name: value for name, value in variables(machine).items() if re.search("PASSWORD|SECRET|AUTH", name)}
    assert len(secrets) == 10
    assert all(secrets.values())
    whole = oracle.closure([(ROOT / "examples" / "harbour.txt").read_text()])
    exports = {path.stem: exported(path) for path in machine.folder.glob("*.jsonl")}
    assert exports == dict.fromkeys(("harbour", *COMPARED), whole)
    assert list((machine.folder / "backups").glob("*/backup.json"))
