"""Tenants and corpora share the workers: a busy one does not make another wait for all of its work.

How much each gets is decided when work is published. What is published first is done first here, as in a queue.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from crochet_tasks.access import tenancy
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
WINDOW = """
WITH made AS (
    INSERT INTO texts (corpus, seq, title, body, sha256, state, version, phrases)
    VALUES (:corpus, :version, 't', 't', sha256(CAST(CAST(:version AS text) AS bytea)), 'current', :version, 1)
)
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority)
SELECT gen_random_uuid(), 'search', :corpus, 1, int4range(number, number + 1), :version - 1, :version, 0
  FROM generate_series(1, :number) AS number
"""
INGESTION = """
INSERT INTO work (id, kind, corpus, subject, since, version, priority)
VALUES (gen_random_uuid(), 'ingest', :corpus, 1, 0, 0, 3000000)
"""
DONE = "UPDATE work SET state = 'done', finished_at = now() WHERE id = :id"
LIMIT = 12


class Queue:
    """What is published and not done; `order`: of which corpora something was done, one after the other."""

    def __init__(self, process: Process, limit: int = LIMIT) -> None:
        self._process, self._limit = process, limit
        self.running: deque[tuple[str, int]] = deque()
        self.order: list[int] = []

    def publish(self) -> Counter[int]:
        """Publish all that there is room for; how much of which corpus is published now."""
        with self._process.database.transaction() as connection:
            connection.execute(text("SELECT setseed(:seed)"), {"seed": len(self.order) % 1000 / 1000})
            while taken := publishing.take_next(connection, None, self._limit):
                self.running.append((str(taken.item.id), taken.item.corpus))
        return Counter(of for _, of in self.running)

    def work(self, number: int = 1_000_000) -> Counter[int]:
        """Do so much work, or all that there is, and publish other work each time; how much was done of which."""
        self.publish()
        began = len(self.order)
        while self.running and len(self.order) < began + number:
            item, of = self.running.popleft()
            self.order.append(of)
            steps.sql(self._process, DONE, id=item)
            self.publish()
        return Counter(self.order[began:])


@pytest.fixture
def queue(process: Process) -> Queue:
    return Queue(process)


@pytest.fixture
def corpus_of(process: Process) -> Callable[..., int]:
    """Makes a tenant, with these columns, and a corpus of it that has so many searches."""

    def made(name: str, searches: int, **values: Any) -> int:
        with process.database.transaction() as connection:
            tenant = tenants.add(connection, name)
            assert tenant is not None
            if values:
                tenants.change(connection, tenant, values)
            corpus = corpora.get_or_create(connection, name, Limits()._asdict(), tenant)
        steps.sql(process, SEARCHES, corpus=corpus.id, number=searches, priority=0)
        return corpus.id

    return made


def test_a_busy_tenant_does_not_starve_another(process: Process, queue: Queue, corpus_of: Callable[..., int]) -> None:
    """One tenant has 200 urgent searches of two corpora, the other 30 of one, which come later. While both have some,
    each has half of the room, and of the first tenant each corpus a quarter: so all of the other's are done in twice
    the time that they take alone, not after 200 others.
    """
    first, second = (steps.new_corpus(process).id for _ in range(2))
    for corpus in (first, second):
        steps.sql(process, SEARCHES, corpus=corpus, number=100, priority=1)
    assert queue.publish() == {first: LIMIT // 2, second: LIMIT // 2}
    late = corpus_of("other", 30)
    queue.work(2 * LIMIT)
    assert queue.publish() == {late: 6, first: 3, second: 3}
    queue.work()
    last = max(place for place, each in enumerate(queue.order) if each == late)
    assert last <= LIMIT + 2 * 30 + LIMIT
    assert len(queue.order) == 230


def test_a_tenant_with_three_times_the_weight_gets_three_times_as_much(
    queue: Queue, corpus_of: Callable[..., int]
) -> None:
    """Exactly, while both have work; then the one that has some gets all."""
    light, heavy = corpus_of("light", 200), corpus_of("heavy", 200, weight=3)
    assert queue.publish() == {light: 3, heavy: 9}
    assert queue.work(36) == {light: 9, heavy: 27}
    assert queue.work(84) == {light: 21, heavy: 63}
    assert queue.work() == {light: 170, heavy: 110}
    assert set(queue.order[-120:]) == {light}


def test_each_step_of_priority_doubles_what_a_corpus_gets(process: Process) -> None:
    """Of what its tenant gets; and a corpus with the lowest priority has its share, too."""
    queue = Queue(process, 14)
    ids = []
    for priority in (1, 0, -1):
        corpus = steps.new_corpus(process)
        steps.sql(process, SEARCHES, corpus=corpus.id, number=100, priority=0)
        tenancy.change(process, corpus.tenant, corpus.name, None, {"priority": priority})
        ids.append(corpus.id)
    assert queue.publish() == dict(zip(ids, (8, 4, 2), strict=True))
    assert queue.work(70) == dict(zip(ids, (40, 20, 10), strict=True))


def test_a_texts_priority_is_that_of_its_corpus_until_it_is_searched(process: Process) -> None:
    """It inherits it to the texts before it, which it cannot pass: while it waits, and while its window, or one before
    it, is searched. Then the corpus has its own again.
    """
    queue = Queue(process, 15)
    hurried, other = (steps.new_corpus(process) for _ in range(2))
    for corpus in (hurried, other):
        for window in (1, 2, 3):
            steps.sql(process, WINDOW, corpus=corpus.id, version=window, number=60)
    waiting = "INSERT INTO texts (corpus, seq, title, body, sha256) VALUES (:corpus, :seq, 't', 't', sha256(:body))"
    steps.sql(process, waiting, corpus=hurried.id, seq=9, body=b"other")
    assert queue.publish()[other.id] in (7, 8)
    urgent = "UPDATE texts SET priority = 2 WHERE corpus = :corpus AND seq = :seq"
    steps.sql(process, urgent, corpus=hurried.id, seq=2)
    assert queue.work(90)[hurried.id] > 60  # of window 1, too: text 2 waits for it
    queue.work(75)  # then windows 1 and 2 of it are published, or done
    assert queue.publish()[other.id] in (7, 8)
    steps.sql(process, urgent, corpus=hurried.id, seq=9)
    queue.work(15)
    assert queue.publish() == {hurried.id: 12, other.id: 3}
    steps.sql(process, "UPDATE texts SET state = 'cancelled', finished_at = now() WHERE seq = 9")
    queue.work(15)
    assert queue.publish()[other.id] in (7, 8)


def test_none_starves_where_more_wait_than_may_be_published(process: Process, corpus_of: Callable[..., int]) -> None:
    """Twelve tenants, whose searches came one after the other, and room for three of them."""
    ids = {corpus_of(f"tenant-{number}", 40) for number in range(12)}
    assert Queue(process, 3).work(150).keys() == ids


def test_a_tenant_with_many_corpora_does_not_starve_another_tenants_text(
    process: Process, queue: Queue, corpus_of: Callable[..., int]
) -> None:
    """The stages that go text by text, too: what is published of a kind is bounded, and shared."""
    many = [steps.new_corpus(process).id for _ in range(3 * LIMIT)]
    for corpus in many:
        steps.sql(process, INGESTION, corpus=corpus)
    assert queue.publish().total() == LIMIT
    other = corpus_of("other", 0)
    steps.sql(process, INGESTION, corpus=other)
    queue.work(1)
    assert queue.running[-1][1] == other
    assert set(queue.work()) == {*many, other} - set(queue.order[:1])


def test_a_paused_corpus_takes_no_room(process: Process, queue: Queue, corpus_of: Callable[..., int]) -> None:
    """Its messages are left by the workers: what is published of it would block others until its lease ends."""
    paused = steps.new_corpus(process)
    steps.sql(process, SEARCHES, corpus=paused.id, number=100, priority=0)
    assert queue.publish() == {paused.id: LIMIT}
    tenancy.change(process, paused.tenant, paused.name, None, {"paused": True})
    other = corpus_of("other", 20)
    assert queue.publish() == {paused.id: LIMIT, other: LIMIT}


def test_a_tenant_has_no_more_searches_at_once_than_it_may(queue: Queue, corpus_of: Callable[..., int]) -> None:
    """The room that it leaves is there for others; without others it stays empty."""
    bounded, other = corpus_of("bounded", 30, max_searches=2, weight=100), corpus_of("other", 15)
    assert queue.publish() == {bounded: 2, other: LIMIT - 2}
    queue.work(LIMIT + 10)
    assert queue.publish() == {bounded: 2}
    queue.work()
    assert Counter(queue.order)[bounded] == 30
