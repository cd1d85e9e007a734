"""The distributed run: whatever is killed, stopped or delivered again, the closure comes out exact."""

from __future__ import annotations

import pytest

from crochet_tasks.engine.geometry import Limits
from tests.acceptance.conftest import Deploy
from tests.support import steps
from tests.support.cluster import accept, check, corpus_of, until_closed

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]


@pytest.mark.parametrize("searchers", [1, 2, 4])
def test_any_number_of_workers(deploy: Deploy, searchers: int) -> None:
    """One, two or four search workers find the same set: the oracle's."""
    deployment = deploy()
    with deployment.process() as process:
        corpus = corpus_of(process, Limits())
        deployment.start_whole(searchers)
        accept(process, corpus, steps.TEXTS)
        until_closed(process, corpus, deployment)
        check(process, corpus, steps.expected(steps.TEXTS))
