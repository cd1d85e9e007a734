"""The distributed run: whatever is killed, stopped or delivered again, the closure comes out exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crochet_tasks.engine.geometry import Limits
from tests.acceptance.cluster import Cluster, accept, check, cluster, corpus_of, until_closed
from tests.integration import steps

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.fixture
def deployment(tmp_path: Path, distributed_database: str, vhost: str, redis_url: str) -> Iterator[Cluster]:
    with cluster(
        tmp_path, CROCHET_DATABASE_URL=distributed_database, CROCHET_BROKER_URL=vhost, CROCHET_REDIS_URL=redis_url
    ) as made:
        yield made


@pytest.mark.parametrize("searchers", [1, 2, 4])
def test_any_number_of_workers(deployment: Cluster, searchers: int) -> None:
    """One, two or four search workers find the same set: the oracle's."""
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start_whole(searchers)
        accept(process, corpus, steps.TEXTS)
        until_closed(process, corpus, deployment, 60)
        check(process, corpus, steps.expected(steps.TEXTS))
