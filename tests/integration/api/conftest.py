"""Fixtures: `corpus`, the empty corpus `genesis` of `api`."""

from __future__ import annotations

import pytest

from crochet_tasks.db.corpora import Corpus
from tests.support.api import Api, corpus_of


@pytest.fixture
def corpus(api: Api) -> Corpus:
    return corpus_of(api)
