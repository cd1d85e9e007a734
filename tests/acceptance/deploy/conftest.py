"""Fixtures of the container tests: a Docker engine, which they fail without, and the images of docker-compose.yml."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import Any

import docker  # type: ignore[import-untyped] # it ships no types
import pytest
import yaml
from docker.errors import DockerException  # type: ignore[import-untyped]

from tests.support import engine
from tests.support.compose import COMPOSE
from tests.support.paths import ROOT
from tests.support.server import Missing

IMAGES = {name: service["image"] for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items()}
USED = ("postgres", "rabbitmq", "redis", "proxy")

_stand_ins = pytest.StashKey[list[str]]()


def base_images() -> list[str]:
    """What the Dockerfiles begin with."""
    texts = [(ROOT / path / "Dockerfile").read_text() for path in (".", "deploy/bastion")]
    return sorted({base for text in texts for base in re.findall(r"^FROM ([\w./-]+:\S+)", text, re.MULTILINE)})


@pytest.fixture(scope="session")
def docker_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The engine that answers, or a private one. All fixtures of pytest-celery that start something ask for it."""
    running = answering()
    if running is not None:
        yield running
        running.close()
        return
    folder = tmp_path_factory.mktemp("engine")
    try:
        private = engine.Engine(folder)
    except Missing as missing:
        pytest.fail(
            f"no Docker engine answers, and none can be started: {missing}; run `make test-deploy`", pytrace=False
        )
    try:
        private.start()
        client = private.client()
        request.config.stash[_stand_ins] = engine.provide_stand_ins(
            client, [*base_images(), *(IMAGES[name] for name in USED)], folder
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", private.url)
            patch.setenv("DOCKER_CONFIG", str(engine.STORE))  # Compose is a plug-in of the client, found there
            yield client
        client.close()
    finally:
        private.stop()
    shutil.rmtree(folder)


def answering() -> Any:
    try:
        client = docker.from_env(timeout=engine.BUILD_SECONDS)
    except DockerException:
        return None
    try:
        client.ping()
    except DockerException:
        client.close()
        return None
    return client


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what a pass is worth."""
    if made := config.stash.get(_stand_ins, []):
        terminalreporter.section("STAND-INS", yellow=True)
        terminalreporter.line(
            f"Docker's registry could not be reached: {', '.join(made)} were stand-ins made of Debian's packages.\n"
            "A pass on stand-ins is no pass on the upstream images."
        )
