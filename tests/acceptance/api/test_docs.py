"""docs/api.md, word for word, against real processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crochet_tasks.access import keys
from crochet_tasks.access.keys import KeySpec
from crochet_tasks.schemas.statistics import StatisticsNow, StatusFile
from tests.support.cluster import Cluster, cluster, until
from tests.support.commands import EVERYTHING, RELAY
from tests.support.paths import ROOT
from tests.support.server import take_port
from tests.support.waiting import SECONDS

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]

PAGE = ROOT / "docs" / "api.md"


class Command(NamedTuple):
    """A command of the page and what it prints there."""

    line: str
    prints: str


def commands(page: str) -> list[Command]:
    """What stands in its console blocks."""
    found: list[Command] = []
    inside = False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Command(line[2:], ""))
        elif inside:
            found[-1] = found[-1]._replace(prints=f"{found[-1].prints}{line}\n")
    return found


@pytest.fixture
def deployment(tmp_path: Path, distributed_database: str, vhost: str, redis_url: str) -> Iterator[Cluster]:
    port = take_port()
    with cluster(
        tmp_path,
        True,
        CROCHET_DATABASE_URL=distributed_database,
        CROCHET_BROKER_URL=vhost,
        CROCHET_REDIS_URL=redis_url,
        CROCHET_API_PORT=str(port),
        CROCHET_STATUS_FILE=str(tmp_path / "status.json"),
        CROCHET_STATUS_FILE_EVERY="0.2",
    ) as made:
        yield made


def test_the_page_is_true(deployment: Cluster) -> None:
    """Every command prints what the page says, in one shell, from the first to the last."""
    with deployment.process() as process:
        key = keys.create(process.database, KeySpec("walk", ("admin",))).key
    services = [deployment.start("api"), deployment.start(*RELAY), deployment.start(*EVERYTHING)]
    until(lambda: all(map(deployment.ready, services)), deployment)
    walk = commands(PAGE.read_text(encoding="utf-8"))
    assert len(walk) > 15
    mark = "── next ──"
    script = "\n".join(f"{command.line}\necho '{mark}'" for command in walk)
    environment = {
        "URL": f"http://127.0.0.1:{deployment.settings.api_port}",
        "KEY": key,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    ran = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=2 * SECONDS, check=False
    )
    printed = ran.stdout.split(f"{mark}\n")
    assert ran.stderr == "", deployment.logs()
    for command, output in zip(walk, printed, strict=False):
        assert output.rstrip("\n") == command.prints.rstrip("\n"), command.line
    assert len(printed) == len(walk) + 1
    # Meanwhile the worker has reported how busy it is, and the relay has written the status file.
    until(lambda: statistics_of(deployment).workers.processes == 1, deployment)
    assert 0 <= (statistics_of(deployment).workers.busy or 0) <= 1


def statistics_of(deployment: Cluster) -> StatisticsNow:
    assert deployment.settings.status_file is not None
    return StatusFile.model_validate_json(deployment.settings.status_file.read_text()).statistics
