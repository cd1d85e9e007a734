"""However many texts come, few runs cover the same range; merging changes no ortho, whatever happens meanwhile."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks import merging
from crochet_tasks.db import batches, tally
from crochet_tasks.db.batches import Span, Stored
from crochet_tasks.db.corpora import Corpus, Lock, take_lock
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.embedded import pipeline
from crochet_tasks.errors import StoreCorrupt
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import steps
from tests.support.steps import Broker
from tests.support.strategies import examples

pytestmark = pytest.mark.integration

MOST = 3
WORDS = "abcdef"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few runs may overlap, and a search finds a few orthos only: there is much to merge."""
    monkeypatch.setattr(merging, "MOST", MOST)
    steps.cut_small(monkeypatch)


def many_texts(number: int, chance: random.Random) -> list[str]:
    """Texts of pairs of few words, each with some that the ones before it lack."""
    pairs = [f"{one} {other}" for one in WORDS for other in WORDS if one != other]
    chance.shuffle(pairs)
    size = len(pairs) // number
    return [", ".join(pairs[size * each : size * (each + 1)]) for each in range(number)]


def heads(process: Process, corpus: Corpus) -> list[list[Stored]]:
    """Per shape its batches by their first ortho."""
    with process.database.snapshot() as connection:
        shapes = tally.counted(connection, corpus.id)
        return batches.covering(connection, corpus.id, [*map(Span, shapes)])


def deepest(every: list[Stored]) -> int:
    """How many batches cover the same place, at the most."""
    return max(sum(other.first <= batch.first <= other.last for other in every) for batch in every)


def in_a_row(every: list[Stored], size: int) -> int:
    """How many batches follow on each other that one batch of this size could hold, at the most."""
    spans = [
        (end - begin, sum(b.count for b in every[begin:end])) for end in range(len(every) + 1) for begin in range(end)
    ]
    return max((length for length, orthos in spans if orthos <= size), default=0)


@pytest.mark.parametrize("size", [1, 5, 40, 32_768])
def test_few_runs_cover_a_range_however_many_texts_came(database: str, size: int) -> None:
    """The orthos stay as they were, the fsck agrees, and nothing is left to merge."""
    texts = many_texts(6, random.Random(size))
    with open_process(Settings(batch_orthos=size), database) as process:
        corpus = steps.new_corpus(process, (2, 3, 9))
        steps.ingest_all(corpus, texts)
        before = steps.stored(process, corpus)
        assert max(map(len, heads(process, corpus))) > MOST
        merging.merge_all(corpus.id)
        for every in heads(process, corpus):
            assert deepest(every) <= MOST
            assert in_a_row(every, size // merging.SMALL_SHARE) <= MOST
        with process.database.snapshot() as connection:
            assert batches.crowded(connection, merging.MOST, size // merging.SMALL_SHARE) == []
        assert steps.stored(process, corpus) == before == steps.expected(texts, (2, 3, 9))
        assert verify(process, corpus, closure=True) == []


def test_a_later_text_goes_on_from_merged_batches(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they wait on is there, in the numbering of another version."""
    monkeypatch.setattr("crochet_tasks.engine.search.ENUMERATE_FROM", 2.0)
    texts = many_texts(6, random.Random(3))
    with open_process(Settings(batch_orthos=5), database) as process:
        corpus = steps.new_corpus(process, (2, 3, 9))
        for body in texts:
            steps.ingest_all(corpus, [body])
            merging.merge_all(corpus.id)
    with open_process(Settings(batch_orthos=5), database) as process:  # which has read no remediation before
        steps.ingest_all(corpus, ["a b c d e f"])
        assert steps.stored(process, corpus) == steps.expected([*texts, "a b c d e f"], (2, 3, 9))
        assert verify(process, corpus, closure=True) == []


def test_a_run_merges_at_its_end(database: str) -> None:
    """Where there is no relay."""
    texts = many_texts(6, random.Random(5))
    with open_process(Settings(batch_orthos=5), database) as process:
        corpus = steps.new_corpus(process, (2, 3, 9))
        for body in texts:
            steps.accept(corpus, body)
            pipeline.close(process, corpus)
        assert max(map(deepest, heads(process, corpus))) <= MOST


def test_the_relay_has_workers_merge(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every corpus; while another one merges, or where nothing is to be merged, a task does nothing."""
    texts = many_texts(6, random.Random(7))
    two = [steps.new_corpus(process, (2, 3, 9)) for _ in range(2)]
    for corpus in two:
        steps.ingest_all(corpus, texts)
    sent: list[tuple[int, list[int]]] = []
    monkeypatch.setattr(merging.merge, "apply_async", lambda arguments, **_: sent.append(arguments))
    assert merging.publish_merges() == len(sent) > 0
    assert {corpus for corpus, _ in sent} == {corpus.id for corpus in two}
    before = [heads(process, corpus) for corpus in two]
    with process.database.transaction() as connection:
        for corpus in two:
            take_lock(connection, corpus.id, Lock.MERGE)
        for arguments in sent:
            merging.merge(*arguments)
    assert [heads(process, corpus) for corpus in two] == before
    for arguments in sent:
        merging.merge(*arguments)
    assert merging.publish_merges() == 0


def test_a_damaged_batch_is_named_and_nothing_is_lost(process: Process, caplog: pytest.LogCaptureFixture) -> None:
    """The batches stay as they were; the task ends with a line in the log, as the relay will call again."""
    corpus = steps.new_corpus(process, (2, 2, 4))
    steps.ingest_all(corpus, many_texts(6, random.Random(9)))
    steps.sql(process, "UPDATE batches SET packed = substr(packed, 1, 20)")
    ((before,),) = steps.sql(process, "SELECT count(*) FROM batches")
    with pytest.raises(StoreCorrupt, match=r"batch \d+ is damaged .*crochet verify"):
        merging.merge_all(corpus.id)
    merging.merge(corpus.id, [2, 2])
    assert steps.sql(process, "SELECT count(*) FROM batches") == [(before,)]
    assert [record.code for record in caplog.records if record.msg == "merge_failed"] == ["store_corrupt"]  # type: ignore[attr-defined]


def test_merging_while_searches_are_stored(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two deliveries, in any order: the closure is exact."""
    with open_process(Settings(batch_orthos=4), database) as process:

        @examples(4)
        @given(st.integers(0, 1 << 32))
        def run(seed: int) -> None:
            chance = random.Random(seed)
            texts = many_texts(5, chance)
            corpus, broker = steps.new_corpus(process, (2, 2, 4)), Broker(monkeypatch)
            waiting = list(texts)
            while waiting or broker.messages:
                if waiting and (not broker.messages or chance.random() < 0.2):
                    steps.accept(corpus, waiting.pop(0))
                broker.publish(corpus)
                if broker.messages:
                    broker.deliver(chance.randrange(len(broker.messages)))
                if chance.random() < 0.2:
                    merging.merge_some(corpus.id, (2, 2))
                broker.publish(corpus)
            assert steps.stored(process, corpus) == Counter(steps.expected(texts, (2, 2, 4)))
            assert verify(process, corpus, closure=True) == []

        run()
