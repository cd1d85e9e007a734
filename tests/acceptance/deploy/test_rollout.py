"""deploy/scripts/rollout on docker-compose.yml in a real engine, while clients post and read: `make test-deploy`.

Both versions are this commit under two tags: that two releases work side by side is shown by test_update.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import oracle
from tests.support.compose import Deployment, polled
from tests.support.fleet import Load
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.slow,
    pytest.mark.deploy,
    pytest.mark.timeout(3000),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # as in test_containers.py
]

ROLLOUT = ROOT / "deploy" / "scripts" / "rollout"


class Rollout:
    """The script, with the settings of a deployment in a file."""

    def __init__(self, deployment: Deployment, folder: Path, key: str) -> None:
        self._file = folder / "env"
        self._file.write_text("".join(f"{name}={value}\n" for name, value in deployment.variables.items()))
        self._environment = {
            **os.environ,  # noqa: TID251 - for a program
            "ENV_FILE": str(self._file),
            "COMPOSE_PROJECT_NAME": deployment.name,
            "CROCHET_KEY": key,
        }

    def __call__(self, *arguments: str) -> None:
        command = [str(ROLLOUT), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"


@pytest.fixture
def deployment(docker_client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("keys"))
    try:
        deployment.up()
        yield deployment
    finally:
        deployment.compose("--profile", "canary", "down", "--volumes", "--remove-orphans", seconds=300)


def versions(docker_client: Any, deployment: Deployment) -> set[str]:
    """The images of all that runs of the program."""
    containers = docker_client.containers.list(filters={"label": f"com.docker.compose.project={deployment.name}"})
    images = {str(container.attrs["Config"]["Image"]) for container in containers}
    return {image for image in images if image.startswith("crochet-tasks:")}


def test_update_canary_and_back(deployment: Deployment, docker_client: Any, tmp_path: Path) -> None:
    image = docker_client.images.get("crochet-tasks:0.1.0")
    image.tag("crochet-tasks", "next")
    key = deployment.crochet("keys", "create", "clients", "--scope", "admin", "--tier", "high").strip()
    rollout, load = Rollout(deployment, tmp_path, key), Load(deployment.api)
    load.key = key
    deployment.crochet("corpora", "create", "main")
    with load.running():
        rollout("canary", "next", "50")
        assert versions(docker_client, deployment) == {"crochet-tasks:0.1.0", "crochet-tasks:next"}
        rollout("back")
        assert versions(docker_client, deployment) == {"crochet-tasks:0.1.0"}
        rollout("update", "next")
        assert versions(docker_client, deployment) == {"crochet-tasks:next"}
        rollout("back")
        assert versions(docker_client, deployment) == {"crochet-tasks:0.1.0"}
    assert load.failures == []
    assert len(load.posted) > 0
    status = polled(lambda: next((each for each in deployment.status() if each.closed), None))
    assert (status.version, status.total) == (len(load.posted), len(oracle.closure(load.posted)))
