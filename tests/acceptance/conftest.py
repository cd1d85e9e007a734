"""Fixtures: a deployment on the servers of tests/conftest.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.cluster import Cluster, cluster


class Deploy(Protocol):
    """Makes the deployment of a test, with these settings."""

    def __call__(self, **environment: str) -> Cluster: ...


@pytest.fixture
def deploy(tmp_path: Path, distributed_database: str, vhost: str, redis_url: str) -> Iterator[Deploy]:
    with contextlib.ExitStack() as opened:

        def made(**environment: str) -> Cluster:
            servers = {
                "CROCHET_DATABASE_URL": distributed_database,
                "CROCHET_BROKER_URL": vhost,
                "CROCHET_REDIS_URL": redis_url,
            }
            return opened.enter_context(cluster(tmp_path, True, **{**servers, **environment}))

        yield made
