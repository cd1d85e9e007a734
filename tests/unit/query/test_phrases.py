"""Which phrases ids can begin with: found by a scan where few are asked for, else by a table."""

from __future__ import annotations

import numpy as np
import pytest

from crochet_tasks.engine.tree import Tree
from crochet_tasks.query.store import SCANS, Phrases
from tests.support.closures import indexed

TEXT = "the seas and land. the land and the seas"


@pytest.fixture
def phrases() -> Phrases:
    index = indexed([TEXT], 4)
    return Phrases(index, Tree.of(index, index.version))


@pytest.mark.parametrize("number", [1, SCANS + 1], ids=["by a scan", "by a table"])
def test_phrases_are_found_by_their_hashes(phrases: Phrases, number: int) -> None:
    """Each by its own, wherever it stands among hashes that are no phrase's."""
    hashes, absent = phrases.tree.hashes, np.uint64(1)
    assert absent not in hashes
    for phrase in range(phrases.tree.size):
        asked = np.array([absent] * (number - 1) + [hashes[phrase]], np.uint64)
        assert phrases.with_hashes(asked) == [[]] * (number - 1) + [[phrase]]


def test_many_are_asked_for_at_once(phrases: Phrases) -> None:
    hashes = phrases.tree.hashes
    assert len(hashes) > SCANS
    assert phrases.with_hashes(hashes) == [[phrase] for phrase in range(len(hashes))]
    assert phrases.with_hashes(np.empty(0, np.uint64)) == []
