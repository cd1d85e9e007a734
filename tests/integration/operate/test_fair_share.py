"""Tenants and corpora share the workers: a busy one does not make another wait for all of its work."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from crochet_tasks.db import corpora, publishing, tenants
from crochet_tasks.db.process import Process
from crochet_tasks.engine.geometry import Limits
from tests.support import steps

pytestmark = pytest.mark.integration

SEARCHES = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority)
SELECT gen_random_uuid(), 'search', :corpus, 1, int4range(number, number + 1), 0, 1, :priority
  FROM generate_series(1, :number) AS number
"""
DONE = "UPDATE work SET state = 'done', finished_at = now() WHERE id = :id"
LIMIT = 12


def test_a_busy_tenant_does_not_starve_another(process: Process) -> None:
    """One tenant has 200 urgent searches of two corpora, the other 30 of one, which come later. While both have some,
    each has half of the room, and of the first tenant each corpus a quarter: so all of the other's are done in twice
    the time that they take alone, not after 200 others.
    """
    with process.database.transaction() as connection:
        other = tenants.add(connection, "other")
        assert other is not None
        late = corpora.get_or_create(connection, "late", Limits()._asdict(), other)
    first, second = (steps.new_corpus(process) for _ in range(2))
    for corpus in (first, second):
        steps.sql(process, SEARCHES, corpus=corpus.id, number=100, priority=1)
    running: deque[tuple[str, int]] = deque()

    def publish() -> None:
        with process.database.transaction() as connection:
            while item := publishing.take_next(connection, None, LIMIT):
                running.append((str(item.id), item.corpus))

    publish()
    assert Counter(each for _, each in running) == {first.id: LIMIT // 2, second.id: LIMIT // 2}
    steps.sql(process, SEARCHES, corpus=late.id, number=30, priority=0)
    order = []
    while running:  # a queue: what was published first is done first
        item, of = running.popleft()
        order.append(of)
        steps.sql(process, DONE, id=item)
        publish()
        if len(order) == 2 * LIMIT:
            assert Counter(each for _, each in running) == {late.id: 6, first.id: 3, second.id: 3}
    last = max(place for place, each in enumerate(order) if each == late.id)
    assert last <= LIMIT + 2 * 30 + LIMIT
    assert len(order) == 230
