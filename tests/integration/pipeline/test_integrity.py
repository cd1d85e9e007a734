"""Everything or nothing: a failure at any statement of any stage leaves a sound store, and work goes on from there."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import celery
import psycopg
import pytest
from sqlalchemy import text

from crochet_tasks import app, merging, publish
from crochet_tasks import failures as retries
from crochet_tasks.db import attempts, outbox
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import Process, here, open_process
from crochet_tasks.embedded import pipeline
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.phrases import Additions, PhraseIndex
from crochet_tasks.errors import (
    DatabaseConflict,
    DatabaseRefused,
    DatabaseUnavailable,
    DiskNearlyFull,
    ProcessExhausted,
    StoreCorrupt,
    TextWithoutWords,
    WorkerLost,
)
from crochet_tasks.operate.best_jobs import Wanted
from crochet_tasks.retry import Policy
from crochet_tasks.schemas.progress import EndReason
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import best, steps

pytestmark = pytest.mark.integration

# Two texts that make versions and, between them, one that cannot. Small batches and results: every kind of work occurs.
TEXTS = [
    "a b c, d e f, a d, b e, c f",
    "1 2 3",
    "a b c x, d e f y, x y, b d, e a",
]
SIZES = Settings(batch_orthos=2, result_orthos=1, part_words=9, best_part_visits=1)
STAGES = [
    "accept",
    "relay",
    "ingest.text",
    "context.version",
    "remediations.due",
    "search.part",
    "orthos.store",
    "best.part",
]


class Killed(BaseException):
    """The process is gone: no handler of errors runs."""


class Place(NamedTuple):
    """The `number`th time that a stage sends a statement (or "COMMIT")."""

    stage: str
    statement: str
    number: int


class Saboteur:
    """Sees every statement that goes to the server, in `seen`; at `place` it fails, before or after it was done."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[Place] = []
        self.place: Place | None = None
        self.after = False
        self.failure: type[BaseException] = psycopg.OperationalError
        self._times: Counter[tuple[str, str]] = Counter()
        for owner in (psycopg.Cursor, psycopg.ServerCursor):
            for name in ("execute", "executemany"):
                patch.setattr(owner, name, self._watched(getattr(owner, name)))
        patch.setattr(psycopg.Connection, "commit", self._watched(psycopg.Connection.commit))

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(owner: object, *args: Any, **kwargs: Any) -> Any:
            task = celery.current_task
            statement = " ".join(str(args[0]).split()) if args else "COMMIT"
            statement = re.sub(r"%\(\w+\)\w+(::[\w\[\]]+)?|\d+", "?", statement)[:90]
            if statement in ("?", ";", "SELECT ?") or statement.startswith(("SELECT pg_catalog.version", "show ")):
                return method(owner, *args, **kwargs)  # the pool's, not ours
            stage = task.name if task else "relay" if self.accepted else "accept"
            self._times[stage, statement] += 1
            place = Place(stage, statement, self._times[stage, statement])
            self.seen.append(place)
            if place == self.place and not self.after:
                raise self.failure("injected")
            result = method(owner, *args, **kwargs)
            if place == self.place:
                raise self.failure("injected")
            return result

        return watched

    accepted = False
    """whether the texts are accepted: what runs outside a task is the relay from then on"""

    def reset(self, place: Place | None, *, after: bool = False, failure: type[BaseException] = Killed) -> None:
        self.place, self.after, self.failure, self.accepted = place, after, failure, False
        self.seen.clear()
        self._times.clear()


@pytest.fixture
def saboteur(monkeypatch: pytest.MonkeyPatch) -> Saboteur:
    steps.cut_small(monkeypatch)
    monkeypatch.setattr(merging, "MOST", 2)
    return Saboteur(monkeypatch)


def attempt(corpus: Corpus, saboteur: Saboteur) -> None:
    """What a command does: take up what is left over, accept the texts, do the work, merge; then ask for the best."""
    saboteur.accepted = False
    publish.release_unfinished(corpus.id)
    steps.accept(corpus, *TEXTS)
    saboteur.accepted = True
    work(corpus)
    merging.merge_all(corpus.id)
    best.ask(here(), corpus, FOUR)
    work(corpus)


FOUR = Wanted({}, 4)


def work(corpus: Corpus) -> None:
    while True:
        try:
            if not publish.publish_next(corpus.id):
                break
        except TextWithoutWords:
            pass  # that of the second text; the others go on


def places(seen: list[Place]) -> list[Place]:
    """Of every distinct statement of a stage the last time that it is sent, and the first and last commit."""
    last = {place.statement: place for place in seen}
    return sorted({*last.values(), *(place for place in seen if (place.statement, place.number) == ("COMMIT", 1))})


BEFORE, AFTER = False, True
ERROR = psycopg.OperationalError
WAYS = [[(BEFORE, Killed), (AFTER, ERROR)], [(BEFORE, ERROR), (AFTER, Killed)]]


@pytest.mark.parametrize("stage", STAGES)
def test_everything_or_nothing(database: str, saboteur: Saboteur, stage: str) -> None:
    """Killed before or after any statement, and at any error of the database: the store is sound and work goes on."""
    wanted = steps.expected([TEXTS[0], TEXTS[2]])
    with open_process(SIZES, database) as process:
        corpus = steps.new_corpus(process)
        saboteur.reset(None)
        attempt(corpus, saboteur)
        seen = list(saboteur.seen)
        assert {place.stage for place in seen} == set(STAGES)
        assert steps.stored(process, corpus) == wanted
    for number, place in enumerate(places([place for place in seen if place.stage == stage])):
        # Killed before the statement, or an error of the database after it, or the other way round; at commits both.
        for after, failure in WAYS[0] + WAYS[1] if place.statement == "COMMIT" else WAYS[number % 2]:
            with open_process(SIZES, database) as process:
                corpus = steps.new_corpus(process)
                saboteur.reset(place, after=after, failure=failure)
                with pytest.raises(Killed if failure is Killed else DatabaseUnavailable):
                    attempt(corpus, saboteur)
                assert verify(process, corpus, closure=False) == [], (place, after, failure)
                if failure is not Killed:  # it lives on, with all that it remembers
                    finish(process, corpus, saboteur, wanted)
            if failure is Killed:
                with open_process(SIZES, database) as process:
                    finish(process, corpus, saboteur, wanted)


def finish(process: Process, corpus: Corpus, saboteur: Saboteur, wanted: object) -> None:
    attempt(corpus, saboteur)
    assert steps.stored(process, corpus) == wanted
    assert verify(process, corpus, closure=True) == []
    found = best.read(process, corpus)
    assert (found.state, best.orthos(found)) == ("proven", best.expected([TEXTS[0], TEXTS[2]], Scope(), 4))
    assert steps.sql(process, "SELECT FROM best_faces") == []
    # The one that fails may have been given again, and so stand at the end of the line.
    states = "SELECT state, error->>'code' FROM texts WHERE corpus = :corpus ORDER BY state, seq"
    assert steps.sql(process, states, corpus=corpus.id) == [
        ("current", None),
        ("current", None),
        ("failed", "text_without_words"),
    ]


class Poison(Exception):
    pass


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the word "poison" is a bug in the program."""
    additions = PhraseIndex.additions

    def spoiled(index: PhraseIndex, sentences: list[list[str]], max_side: int) -> Additions:
        if any("poison" in sentence for sentence in sentences):
            raise Poison("cannot be swallowed")
        return additions(index, sentences, max_side)

    monkeypatch.setattr(PhraseIndex, "additions", spoiled)


def test_a_poisonous_text(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that fails half-way is marked with its error, its phrases are gone, and the next one gets its turn."""
    spoil(monkeypatch)
    good = steps.TEXTS
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, good[0], "new words here. and old a b c. then poison", good[1])
        failures = []
        for _ in range(1000):
            try:
                if not publish.publish_next(corpus.id):
                    break
            except Poison as error:
                failures.append(error)
                assert steps.sql(process, "SELECT state, error->>'message' FROM texts WHERE seq = 2") == [
                    ("failed", "cannot be swallowed")
                ]
                assert steps.sql(process, "SELECT FROM words WHERE word = 'here'") == []
                assert verify(process, corpus, closure=False) == []
        assert len(failures) == 1
        assert steps.version(process, corpus) == 2
        steps.ingest_all(corpus, good[2:])
        assert steps.stored(process, corpus) == steps.expected(good)
        monkeypatch.undo()
        assert verify(process, corpus, closure=True) == []


def test_half_made_phrases_are_waited_for(database: str) -> None:
    """While a text is being ingested nothing of it is searched, and the fsck has nothing to say."""
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        steps.accept(corpus, steps.TEXTS[1])
        publish.publish_next(corpus.id)
        assert steps.version(process, corpus) == 1
        assert verify(process, corpus, closure=False) == []
        notes: list[str] = []
        assert verify(process, corpus, closure=True, progress=notes.append) == []
        assert any("cannot be compared yet" in note for note in notes)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def test_others_forget_a_failed_text(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has seen the phrases of a text that then failed elsewhere does not keep them."""
    spoil(monkeypatch)
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        steps.accept(corpus, "new words here. then poison")
        publish.publish_next(corpus.id)
        index, pending = process.indexes.get(corpus.id), dict(process.pending)
        assert pending
        assert index is not None
        with pytest.raises(Poison):
            steps.run(corpus)
        # This process is now a worker that did not see the failure.
        process.indexes.put(corpus.id, index, index.bytes)
        process.pending = pending
        steps.ingest_all(corpus, steps.TEXTS[1:])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_a_text_fails_for_two_workers(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers that fail on one text, the second after the first gave it up, leave the next text alone."""
    spoil(monkeypatch)
    record = retries.record

    def twice(*args: Any, **where: Any) -> list[Item]:
        record(*args, **where)
        return record(*args, **where)

    monkeypatch.setattr(retries, "record", twice)
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, "words and then poison", steps.TEXTS[0])
        with pytest.raises(Poison):
            steps.run(corpus)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_a_failure_is_that_texts_alone(database: str) -> None:
    """A text whose message comes before its turn waits, whatever becomes of the one before it."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, "1 2 3", steps.TEXTS[0])
        steps.sql(process, "UPDATE work SET published_at = now() WHERE subject = (SELECT id FROM texts WHERE seq = 1)")
        assert len(steps.run(corpus)) == 1  # the second one's message, which finds that it is not its turn
        assert steps.sql(process, "SELECT DISTINCT state FROM texts") == [("accepted",)]
        publish.release_unfinished(corpus.id)
        with pytest.raises(TextWithoutWords):
            publish.publish_next(corpus.id)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])


def test_a_text_that_is_given_again_begins_anew(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ingested a part of a text before it failed goes by what others have made of the corpus since."""
    with open_process(Settings(part_words=3), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, steps.TEXTS[0])
        publish.publish_next(corpus.id)
        kept = dict(process.pending)
        assert kept
        first = outbox.ingest(corpus.id, 1)
        assert retries.record(process.database, process.settings, corpus.id, [first.id], ValueError("a bug"))
        process.pending = {}
        steps.ingest_all(corpus, steps.TEXTS[1:])
        steps.accept(corpus, steps.TEXTS[0])
        publish.publish_next(corpus.id)
        process.pending = {**process.pending, **kept}
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_no_version_is_made_of_less_than_was_ingested(process: Process) -> None:
    """Where phrases of an ingested text were deleted the text fails: no version lacks them unnoticed."""
    corpus = steps.new_corpus(process)
    steps.accept(corpus, *steps.TEXTS[:2])
    publish.publish_next(corpus.id)
    steps.sql(process, "DELETE FROM phrases")
    with pytest.raises(StoreCorrupt, match="left 22 phrases, and there are 1"):
        publish.publish_next(corpus.id)
    steps.run(corpus)
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[1:2])


def test_an_error_of_a_later_text_is_not_the_first_ones(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of a message that comes before its text's turn, the text before keeps what it has brought."""
    with open_process(Settings(part_words=3, max_attempts=1), database) as process:
        corpus, broker = steps.new_corpus(process), steps.Broker(monkeypatch)
        steps.accept(corpus, *steps.TEXTS[:2])
        broker.publish(corpus)
        early = broker.messages[broker.named("ingest.text")[1]][1]
        broker.deliver(broker.named("ingest.text")[0])  # one part of the first text
        for error in (WorkerLost(times=4), ValueError("a bug")):
            assert retries.record(process.database, process.settings, corpus.id, early.items, error) == []
        broker.deliver_all(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def test_a_text_that_cannot_become_a_version(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the making of a version fails the text, not the corpus; the text can be given again."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, steps.TEXTS[0], steps.TEXTS[1])
        with monkeypatch.context() as patch:
            patch.setattr(app.app.tasks["context.version"], "run", raises(ValueError("a bug")))
            assert publish.publish_next(corpus.id)
            with pytest.raises(ValueError, match="a bug"):
                publish.publish_next(corpus.id)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[1:2])
        steps.ingest_all(corpus, steps.TEXTS[:1])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:2])


def test_a_version_waits_for_the_remediations_of_the_one_before(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where finding what is due has failed, later versions wait with theirs: else windows of searches were wrong."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(app.app.tasks["remediations.due"], "run", raises(ValueError("a bug")))
            steps.accept(corpus, steps.TEXTS[1])
            with pytest.raises(ValueError, match="a bug"):
                steps.run(corpus)
        steps.ingest_all(corpus, steps.TEXTS[2:])
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS[:1])
        assert pipeline.close(process, corpus).ended is EndReason.WAITING
        with process.database.transaction() as connection:
            assert attempts.reopen_failed(connection, corpus.id) == 1
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def raises(error: Exception) -> Callable[..., NoReturn]:
    def bug(*args: object, **kwargs: object) -> NoReturn:
        raise type(error)(*error.args)  # a new one each time

    return bug


@pytest.mark.parametrize("stage", ["remediations.due", "search.part", "orthos.store"])
def test_a_bug_is_visible_and_can_be_retried(database: str, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Work that hits a bug is kept as failed, with its error; opened again after the repair it is done."""
    with open_process(Settings(batch_orthos=1), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(app.app.tasks[stage], "run", raises(ValueError("a bug")))
            failed = 0
            for _ in range(1000):
                try:
                    if not publish.publish_next(corpus.id):
                        break
                except ValueError:
                    failed += 1
        errors = steps.sql(process, "SELECT DISTINCT error->>'message' FROM work WHERE state = 'failed'")
        assert errors == [("a bug",)]
        assert failed
        assert verify(process, corpus, closure=False) == []
        with process.database.transaction() as connection:
            assert attempts.reopen_failed(connection, corpus.id)
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_a_failed_text_may_be_given_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given again after the cause is gone, a text that failed is ingested, at the end of the line."""
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        with monkeypatch.context() as patch:
            patch.setattr(PhraseIndex, "additions", _poisoned)
            steps.accept(corpus, steps.TEXTS[0])
            with pytest.raises(Poison):
                steps.run(corpus)
        steps.accept(corpus, steps.TEXTS[1], steps.TEXTS[0])
        steps.run(corpus)
        assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[1], steps.TEXTS[0]])
        assert verify(process, corpus, closure=True) == []


def _poisoned(*_: object) -> NoReturn:
    raise Poison


def test_trouble_that_stays_is_reported(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may succeed later is tried a few times, by both threads together, and then raised."""
    tries: list[None] = []

    def unavailable(*_: object) -> NoReturn:
        tries.append(None)
        raise DatabaseConflict(reason="a test")

    monkeypatch.setattr(PhraseIndex, "additions", unavailable)
    monkeypatch.setattr(pipeline, "OUTAGE", Policy(first=0.001, attempts=6))
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with pytest.raises(DatabaseConflict):
            pipeline.close(process, corpus)
        assert 6 <= len(tries) <= 6 + pipeline.WORKERS
        monkeypatch.undo()
        pipeline.close(process, corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_the_death_of_a_thread_ends_the_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's pool loses the piece of a thread that dies outside of it, for want of memory say: nothing waits for it.

    The next run does the piece again.
    """
    monkeypatch.setattr(pipeline, "ALIVE_SECONDS", 0.05)
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(Future, "set_result", _out_of_memory)
            with pytest.raises(ProcessExhausted, match="nothing is lost"):
                pipeline.close(process, corpus)
        pipeline.close(process, corpus)
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


def test_a_disk_that_fills_stops_the_run_before_postgres_fails(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept and can be read; with room again the next run closes the corpus."""
    settings = Settings(state_dir=state)
    free = iter([1 << 40, 1 << 40])
    with pipeline.opened(settings) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "free_bytes", lambda folder: next(free, 5 << 20))
            outcome = pipeline.close(process, corpus)
            assert outcome.ended is EndReason.DISK
            assert isinstance(outcome.failure, DiskNearlyFull)
            says = r"5 MB are free at .*state, and 64 MB are kept in reserve.*make room.*run it again.*nothing is lost"
            assert re.search(says, str(outcome.failure))
        assert steps.stored(process, corpus) != steps.expected(steps.TEXTS)
        assert pipeline.close(process, corpus).ended is EndReason.CLOSED
        assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


@pytest.fixture
def state(ready_state: Path, tmp_path: Path) -> Path:
    return tmp_path / "state"


def _out_of_memory(*_: object) -> NoReturn:
    raise MemoryError


def test_a_thread_that_cannot_be_started_ends_the_run(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_process(Settings(), database) as process:
        corpus = steps.new_corpus(process)
        steps.accept(corpus, *steps.TEXTS)
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(ProcessExhausted):
            pipeline.close(process, corpus)


def _no_thread(*_: object) -> NoReturn:
    raise RuntimeError("can't start new thread")


def test_words_of_any_length(process: Process) -> None:
    """A word longer than what an index entry may hold is a word like others."""
    long = "".join(chr(ord("a") + i * i * 7919 % 26) for i in range(20_000))
    corpus = steps.new_corpus(process)
    text = f"the sea {long} the land, the land {long}, land and, sea and, the sea, the land"
    steps.ingest_all(corpus, [text])
    assert steps.stored(process, corpus) == steps.expected([text])


def test_a_refusal_is_no_reason_to_try_again(process: Process) -> None:
    """Missing rights and read-only servers have errors of their own, which are not retried."""

    def write() -> None:
        with process.database.transaction() as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            connection.execute(text("DELETE FROM corpora"))

    with pytest.raises(DatabaseRefused, match="read-only"):
        write()
