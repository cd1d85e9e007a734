"""Text to closure through the real tasks on a real Postgres: whatever happens in between, the closure is exact."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crochet_tasks import orthos, search
from crochet_tasks import publish as work
from crochet_tasks.broker.messages import SearchCall, SearchResult
from crochet_tasks.db import batches, outbox
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine import growth, seeds
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import oracle, steps
from tests.support.oracle import Ortho, Phrase
from tests.support.steps import TEXTS, Broker
from tests.support.strategies import Limits, corpora, examples, limits

pytestmark = pytest.mark.integration

SIZES = {
    "default": {},
    "batches of 1": {"batch_orthos": 1},
    "batches of 2": {"batch_orthos": 2},
    "batches of 7": {"batch_orthos": 7},
    "left-overs": {"batch_orthos": 7, "result_bytes": 1},
    "handed back": {"batch_orthos": 1, "result_bytes": 1},
    "texts in parts": {"part_words": 1},
}
sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
MOST_ORTHOS = 100  # of an example: with batches of 1 each of them is a search


@pytest.fixture(autouse=True)
def first_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search looks whether its result is large enough after one ortho already: else none here would be cut."""
    monkeypatch.setattr(growth, "FIRST_ROWS", 1)
    monkeypatch.setattr(seeds, "FIRST_PAIRS", 1)


def small_closure(texts: Sequence[str], limit: Limits) -> Counter[Ortho]:
    """What must be stored, of an example that is not too large."""
    assume(texts)
    wanted = steps.expected(texts, limit)
    assume(len(wanted) <= MOST_ORTHOS)
    return wanted


def check(process: Process, corpus: Corpus, wanted: Counter[Ortho]) -> None:
    """The corpus holds each of these orthos once and nothing else, and the fsck agrees."""
    assert steps.stored(process, corpus) == wanted
    assert verify(process, corpus, closure=True) == []


@sizes
def test_closure_is_exact(database: str, sizes: dict[str, int]) -> None:
    """Whatever the batch sizes, texts one at a time or all at once: exactly the oracle's orthos, each once."""
    with open_process(Settings.load(**sizes), database) as process:

        @examples(20)
        @given(corpora(max_words=40), limits())
        def run(texts: list[str], limit: Limits) -> None:
            texts = steps.usable(texts)
            wanted = small_closure(texts, limit)
            for at_once in (False, True):
                corpus = steps.new_corpus(process, limit)
                steps.ingest_all(corpus, texts, at_once=at_once)
                check(process, corpus, wanted)

        run()


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7, "result_bytes": 1, "part_words": 3}])
def test_any_order_of_messages(database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages may come late, in any order and more than once, while texts are accepted: the closure is exact."""
    with open_process(Settings.load(**sizes), database) as process:

        @examples(12)
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


def test_left_overs_and_groups_occur(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of the tests above do force what they are meant to: cut batches, rewritten groups, handed back work."""
    results: list[SearchResult] = []
    publish = orthos.store.publish

    def kept(payload: dict[str, object]) -> None:
        results.append(SearchResult.model_validate(payload))
        publish(payload)

    monkeypatch.setattr(orthos.store, "publish", kept)
    for sizes in SIZES.values():
        with open_process(Settings.load(**sizes), database) as process:
            assert steps.closure_of(process, TEXTS) == steps.expected(TEXTS)
    searched = [done for result in results for done in result.searched]
    assert any(result.seed_left_over for result in results)
    assert any(result.handed_back for result in results)
    assert any(done.left_over for done in searched)
    assert any(len(done.work) > 1 for done in searched)
    assert any(done.rewritten is None for done in searched)
    assert any(found.consulted is not None for result in results for found in result.found)


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


# ── incremental is real ─────────────────────────────────────────────────────────────────────────


def waits(process: Process, corpus: Corpus) -> dict[int, set[Phrase]]:
    """What the searched batches wait on, in words."""
    with process.database.snapshot() as connection:
        index = process.index(connection, corpus.id, steps.version(process, corpus))
        return {
            batch.id: {index.phrase(phrase) for phrase in batch.phrases.tolist()}
            for batch in batches.every(connection, corpus.id)
            if batch.phrases is not None
        }


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7}])
def test_a_later_text_plays_what_is_due(database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version has those batches searched again that wait on a phrase it continued, and no others."""
    with open_process(Settings.load(**sizes), database) as process:
        corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
        steps.accept(corpus, TEXTS[0])
        broker.deliver_all(corpus)
        seen = set()
        for version in (2, 3):
            born = oracle.phrases(TEXTS[:version], corpus.limits.max_side)
            continued = {phrase[:-1] for phrase, birth in born.items() if birth == version}
            due = {batch for batch, phrases in waits(process, corpus).items() if phrases & continued}
            seen |= {bool(due), due == waits(process, corpus).keys()}
            steps.accept(corpus, TEXTS[version - 1])
            broker.deliver_all(corpus, "search.grow", "search.seed")
            grows = (
                "SELECT subject FROM work WHERE corpus = :corpus AND kind = 'grow' AND since > 0 AND version = :version"
            )
            rows = steps.sql(process, grows, corpus=corpus.id, version=version)
            assert {subject for (subject,) in rows} == due
            broker.deliver_all(corpus)
            assert len(steps.sql(process, grows, corpus=corpus.id, version=version)) == len(due)
        assert True in seen  # something was due
        check(process, corpus, steps.expected(TEXTS))


def test_without_remediations_orthos_are_missed(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remediations are needed: where they are left out, orthos are missing, and the fsck says so."""
    monkeypatch.setattr(batches, "due", lambda *_: iter(()))
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, TEXTS)
    assert steps.stored(process, corpus) < steps.expected(TEXTS)
    problems = verify(process, corpus, closure=True)
    assert any("is due and has no open work" in problem for problem in problems)
    assert any("missing: " in problem for problem in problems)


# ── races and redelivery ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7}, {"result_bytes": 1}])
def test_version_race(database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed at one version and is stored at the next misses nothing (2-pipeline, rule 4)."""
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
        raced = steps.sql(process, "SELECT FROM work WHERE kind = 'grow' AND since > 0 AND state = 'done'")
        assert raced
        check(process, corpus, steps.expected(TEXTS))


@pytest.mark.parametrize("sizes", [{}, {"batch_orthos": 1}, {"batch_orthos": 7, "result_bytes": 1}])
def test_redelivery(database: str, sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_result_that_comes_too_late(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of which a part is done already is dropped, and the rest of its work is published again."""
    with open_process(Settings(batch_orthos=2), database) as process:
        corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
        steps.accept(corpus, TEXTS[0], TEXTS[1])
        broker.deliver_all(corpus, "search.grow")
        broker.deliver(broker.named("search.grow")[0])
        (late,) = broker.named("orthos.store")
        group = broker.messages[late][1].items
        assert len(group) > 1
        search.grow.apply_async(args=[SearchCall(corpus=corpus.id, work=group[:1]).payload()])
        broker.deliver(broker.named("orthos.store")[-1])
        before = steps.stored(process, corpus)
        broker.deliver(late)
        assert steps.stored(process, corpus) == before
        again = "SELECT id FROM work WHERE state = 'open' AND published_at IS NULL"
        assert {item for (item,) in steps.sql(process, again)} >= set(group[1:])
        broker.deliver_all(corpus)
        check(process, corpus, steps.expected(TEXTS[:2]))


def test_remediations_in_the_wrong_order(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of the later version may come first; it waits: a batch is due since the first that continued it."""
    corpus, broker = steps.new_corpus(process), Broker(monkeypatch)
    steps.accept(corpus, TEXTS[0])
    broker.deliver_all(corpus)
    steps.accept(corpus, *TEXTS[1:])
    broker.deliver_all(corpus, "remediations.due")
    assert len(broker.named("remediations.due")) == 2
    broker.deliver(-1)
    query = "SELECT DISTINCT version FROM work WHERE kind = 'grow' AND since > 0"
    assert steps.sql(process, query) == []
    broker.deliver(broker.named("remediations.due")[0])
    assert steps.sql(process, query) == [(2,)]
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
    items = steps.sql(process, "SELECT id, subject, since, version, sides, size FROM work WHERE kind = 'grow'")
    for number, subject, since, version, sides, size in items:
        assert isinstance(sides, list)
        again = outbox.grow(corpus.id, int(str(subject)), tuple(sides), 0, since=int(str(since)), version=9)
        assert (again.id, size, version) == (number, size, version)
