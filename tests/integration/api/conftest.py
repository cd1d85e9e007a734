"""Fixtures: `corpus`, the empty corpus `genesis` of `api`; `elsewhere`, an OpenID provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crochet_tasks.db.corpora import Corpus
from tests.support.api import Api, corpus_of
from tests.support.oidc_provider import Running, provider
from tests.support.server import take_port


@pytest.fixture
def corpus(api: Api) -> Corpus:
    return corpus_of(api)


@pytest.fixture(scope="package")
def running() -> Iterator[Running]:
    with provider(take_port()) as running:
        yield running


@pytest.fixture
def elsewhere(running: Running) -> Running:
    running.next()
    return running
