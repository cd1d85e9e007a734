"""What was finished when, in spans of half a minute."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest

from crochet_tasks.db import statistics
from crochet_tasks.db.process import Process
from crochet_tasks.db.statistics import SLOT_SECONDS, SLOTS, Slot
from tests.support import steps

pytestmark = pytest.mark.integration
DONE = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, state, found, finished_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, 'done', number, now() - number * interval '7 s'
  FROM generate_series(1, :number) AS number
"""


def slots(process: Process, tenant: int | None = None, most: int = 1000) -> list[Slot]:
    with process.database.snapshot() as connection:
        return statistics.slots(connection, tenant, most)


def span(at: dt.datetime) -> float:
    """When the span of a moment begins, in seconds since 1970."""
    return at.timestamp() // SLOT_SECONDS * SLOT_SECONDS


def test_each_span_has_what_was_finished_in_it(process: Process) -> None:
    """By its bounds; what was finished before all of them is in none."""
    corpus = steps.new_corpus(process)
    steps.sql(process, DONE, corpus=corpus.id, number=200)
    rows = steps.sql(process, "SELECT finished_at, found FROM work WHERE state = 'done'")
    found = slots(process)
    assert len(found) == SLOTS + 1
    begins = [slot.begins_at.timestamp() for slot in found]
    assert begins == [begins[0] + SLOT_SECONDS * place for place in range(SLOTS + 1)]
    done: Counter[float] = Counter()
    orthos: Counter[float] = Counter()
    for at, number in rows:
        assert isinstance(at, dt.datetime)
        assert isinstance(number, int)
        done[span(at)] += 1
        orthos[span(at)] += number
    assert [(slot.done["search"], slot.orthos, slot.known) for slot in found] == [
        (done[begin], orthos[begin], True) for begin in begins
    ]
    # Another span may have begun since: their beginnings tell them apart.
    of_tenant = {slot.begins_at: slot.done for slot in slots(process, tenant=corpus.tenant)}
    assert of_tenant[found[-2].begins_at] == found[-2].done
    assert not any(slot.done for slot in slots(process, tenant=corpus.tenant + 1))


def test_spans_that_were_not_counted_are_unknown(process: Process) -> None:
    """Where a corpus has more rows than are read, that in which reading ended, and all before it."""
    corpus = steps.new_corpus(process)
    steps.sql(process, DONE, corpus=corpus.id, number=100)
    (oldest,) = steps.sql(process, "SELECT finished_at FROM work ORDER BY finished_at DESC OFFSET 9 LIMIT 1")[0]
    assert isinstance(oldest, dt.datetime)
    for slot in slots(process, most=10):
        assert slot.known == (slot.begins_at.timestamp() > span(oldest))
