"""Text to closure through the real tasks on a real Postgres: whatever happens in between, the closure is exact."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crochet_tasks import orthos
from crochet_tasks import publish as work
from crochet_tasks.broker.messages import SearchResult
from crochet_tasks.db import outbox
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine import search
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.oracle import Ortho
from tests.support.steps import SIZES, TEXTS, Broker, check, sizes, ways
from tests.support.strategies import Limits, corpora, examples, limits

pytestmark = pytest.mark.integration

MOST_ORTHOS = 100  # of an example


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are cut into parts of a few starts, and a search leaves over what it lengthens next."""
    steps.cut_small(monkeypatch)


def small_closure(texts: Sequence[str], limit: Limits) -> Counter[Ortho]:
    """What must be stored, of an example that is not too large."""
    assume(texts)
    wanted = steps.expected(texts, limit)
    assume(len(wanted) <= MOST_ORTHOS)
    return wanted


@sizes
@ways
def test_closure_is_exact(database: str, sizes: dict[str, int], share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the sizes and the way of searching, texts one at a time or all at once: exactly the oracle's orthos."""
    monkeypatch.setattr(search, "ENUMERATE_FROM", share)
    with open_process(Settings.load(**sizes), database) as process:

        @examples(5)
        @given(corpora(max_words=40), limits())
        def run(texts: list[str], limit: Limits) -> None:
            texts = steps.usable(texts)
            wanted = small_closure(texts, limit)
            for at_once in (False, True):
                corpus = steps.new_corpus(process, limit)
                steps.ingest_all(corpus, texts, at_once=at_once)
                check(process, corpus, wanted)

        run()


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7, "result_orthos": 1, "part_words": 3}])
def test_any_order_of_messages(database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages may come late, in any order and more than once, while texts are accepted: the closure is exact."""
    with open_process(Settings.load(**sizes), database) as process:

        @examples(8)
        @given(corpora(max_words=40), limits(), st.integers(0, 1 << 32))
        def run(texts: list[str], limit: Limits, order: int) -> None:
            chance = random.Random(order)
            texts = steps.usable(texts)
            wanted = small_closure(texts, limit)
            corpus, broker = steps.new_corpus(process, limit), Broker(monkeypatch)
            waiting = list(texts)
            while waiting or broker.messages:
                if waiting and (not broker.messages or chance.random() < 0.2):
                    steps.accept(corpus, waiting.pop(0))
                broker.publish(corpus)
                # Once in a while everything is published again, as by a relay that takes it for overdue.
                if chance.random() < 0.1:
                    work.release_unfinished(corpus.id)
                if broker.messages:
                    broker.deliver(chance.randrange(len(broker.messages)), keep=chance.random() < 0.2)
                broker.publish(corpus)
            check(process, corpus, wanted)

        run()


def test_left_overs_occur(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of the tests above do force what they are meant to: many parts, left-over boxes, cut runs."""
    results: list[SearchResult] = []
    publish = orthos.store.publish

    def kept(result: SearchResult) -> None:
        results.append(result)
        publish(result)

    monkeypatch.setattr(orthos.store, "publish", kept)
    parts, done = [], []
    for bounds in SIZES.values():
        with open_process(Settings.load(**bounds), database) as process:
            assert steps.closure_of(process, TEXTS) == steps.expected(TEXTS)
            parts += steps.sql(process, "SELECT lower(part) FROM work WHERE kind = 'search' AND part IS NOT NULL")
            done += steps.sql(process, "SELECT boxes FROM work WHERE boxes IS NOT NULL")
    assert any(isinstance(left, bytes) for result in results for left in result.left_over)
    assert any(len({found.sides for found in result.found}) < len(result.found) for result in results)
    assert max(parts) > (0,)
    assert set(done) == {(b"",)}  # what is done keeps no boxes


def test_a_text_in_parts(database: str) -> None:
    """A text larger than a part is ingested in several, and is one version."""
    with open_process(Settings(part_words=4), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, TEXTS[0])
        kinds = Counter(item.kind for item in steps.run(corpus))
        assert (kinds["ingest"], kinds["context"]) == (5, 1)
        assert steps.version(process, corpus) == 1
        check(process, corpus, steps.expected(TEXTS[:1]))


def test_the_same_text_twice(process: Process) -> None:
    """A text that is accepted again is the same text: no new version, no new work."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, TEXTS)
    steps.accept(corpus, TEXTS[1])
    assert steps.run(corpus) == []
    assert steps.version(process, corpus) == 3
    check(process, corpus, steps.expected(TEXTS))


# ── races and redelivery ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7}, {"result_orthos": 1}])
def test_results_come_after_later_versions(
    database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found at one version may be stored when there are others: searches do not depend on later ones."""
    with open_process(Settings.load(**sizes), database) as process:
        corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
        for body in TEXTS:
            steps.accept(corpus, body)
            while True:
                broker.deliver_all(corpus, "orthos.store")
                late = broker.named("orthos.store")
                if len(late) < 2:  # the last result of this version stays on its way
                    break
                broker.deliver(late[0])
        assert steps.version(process, corpus) == 3
        broker.deliver_all(corpus)
        assert steps.sql(process, "SELECT FROM batches WHERE born = 3")
        check(process, corpus, steps.expected(TEXTS))


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7, "result_orthos": 1}])
def test_messages_delivered_twice_store_everything_once(
    database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every message delivered twice, the last one first: everything is stored once."""
    with open_process(Settings.load(**sizes), database) as process:
        corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
        steps.accept(corpus, *TEXTS)
        broker.publish(corpus)
        while broker.messages:
            broker.deliver(-1, keep=True)
            broker.deliver(-1)
            broker.publish(corpus)
        check(process, corpus, steps.expected(TEXTS))


def test_a_result_that_comes_too_late(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two results of one search the second is dropped."""
    corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
    steps.accept(corpus, TEXTS[0])
    broker.deliver_all(corpus, "search.part")
    for keep in (True, False):
        broker.deliver(broker.named("search.part")[0], keep=keep)
    first, late = broker.named("orthos.store")
    assert broker.messages[first][1] == broker.messages[late][1]  # a search is a function of its window
    broker.deliver(first)
    before = steps.stored(process, corpus)
    broker.deliver(broker.named("orthos.store")[0])
    assert steps.stored(process, corpus) == before
    broker.deliver_all(corpus)
    check(process, corpus, steps.expected(TEXTS[:1]))


def test_remediations_in_the_wrong_order(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever message of versions that wait together comes first: one window has them all."""
    corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
    steps.accept(corpus, TEXTS[0])
    broker.deliver_all(corpus)
    steps.accept(corpus, *TEXTS[1:])
    broker.deliver_all(corpus, "remediations.due")
    assert len(broker.named("remediations.due")) == 2
    broker.deliver(-1)
    query = "SELECT since, version FROM windows WHERE version > 1"
    assert steps.sql(process, query) == [(1, 3)]
    broker.deliver(broker.named("remediations.due")[0])
    assert steps.sql(process, query) == [(1, 3)]
    broker.deliver_all(corpus)
    check(process, corpus, steps.expected(TEXTS))


def test_two_corpora_do_not_mix(process: Process) -> None:
    """Each corpus has its own closure, also when the work of both is done in one stream."""
    one, other = steps.new_corpus(process), steps.new_corpus(process, Limits(2, 3, 9))
    steps.accept(one, *TEXTS[:2])
    steps.accept(other, *TEXTS[1:])
    while work.publish_next():
        pass
    check(process, one, steps.expected(TEXTS[:2]))
    check(process, other, steps.expected(TEXTS[1:], Limits(2, 3, 9)))


def test_a_text_without_news(process: Process) -> None:
    """A text that brings no new phrase is a version, and makes no search."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, TEXTS)
    steps.accept(corpus, TEXTS[0] + ".")
    assert [item.kind for item in steps.run(corpus)] == ["ingest", "context", "remediations"]
    assert steps.version(process, corpus) == 4
    check(process, corpus, steps.expected(TEXTS))


def test_work_has_one_id(process: Process) -> None:
    """The same corpus made twice has the same work, and ids that only its own fields decide."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, TEXTS)
    query = "SELECT id, since, version, lower(part), upper(part) FROM work WHERE kind = 'search' AND part IS NOT NULL"
    items = steps.sql(process, query)
    assert items
    for number, *fields in items:
        since, version, first, last = map(_int, fields)
        assert outbox.search(corpus.id, since, version, (first, last)).id == number


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
