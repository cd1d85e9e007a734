"""The distributed run through PgBouncer in transaction mode, with fewer connections to Postgres than processes."""

from __future__ import annotations

import pytest

from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.cluster import accept, check, corpus_of, until_closed

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


def test_several_workers_close_a_corpus_through_pgbouncer(deploy: Deploy, pooled_database: str) -> None:
    """Six processes share three sessions of the server, and the oracle's set comes out."""
    deployment = deploy(CROCHET_DATABASE_URL=pooled_database)
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start_whole(3)
        accept(process, corpus, steps.TEXTS)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
