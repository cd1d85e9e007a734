from __future__ import annotations

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from tests.support import steps


@pytest.fixture
def corpus(process: Process) -> Corpus:
    return steps.new_corpus(process)
