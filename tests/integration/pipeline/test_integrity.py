"""Everything or nothing: a failure at any statement of any stage leaves a sound store, and work goes on from there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import celery
import psycopg
import pytest

from crochet_tasks import merging, publish
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, here, open_process
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.errors import (
    DatabaseUnavailable,
    TextWithoutWords,
)
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import best, steps
from tests.support.longer import by_run

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Two texts that make versions and, between them, one that cannot. Small batches and results: every kind of work occurs.
TEXTS = [
    "a b c, d e f, a d, b e, c f",
    "1 2 3",
    "a b c x, d e f y, x y, b d, e a",
]
SIZES = Settings(batch_orthos=2, result_orthos=1, part_words=9, best_part_visits=6)
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
OF_THE_BEST = {"relay", "best.part"}
"""stages that have statements about it"""


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


def attempt(corpus: Corpus, saboteur: Saboteur, *, asks: bool) -> None:
    """What a command does: take up what is left over, accept the texts, do the work, merge.

    `asks`: and when all that is done, ask for the best. No other stage sends a statement then.
    """
    saboteur.accepted = False
    publish.release_unfinished(corpus.id)
    steps.accept(corpus, *TEXTS)
    saboteur.accepted = True
    work(corpus)
    merging.merge_all(corpus.id)
    if asks:
        best.ask(here(), corpus, FOUR)
        work(corpus)


FOUR = JobSpec({}, 4)


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


@pytest.mark.parametrize("first", by_run([0], longer=[1]))
@pytest.mark.parametrize("stage", STAGES)
def test_everything_or_nothing(database: str, saboteur: Saboteur, stage: str, first: int) -> None:
    """Killed before or after every second statement, and at an error there: the store is sound and work goes on."""
    wanted, asks = steps.expected([TEXTS[0], TEXTS[2]]), stage in OF_THE_BEST
    with open_process(SIZES, database) as process:
        corpus = steps.new_corpus(process)
        saboteur.reset(None)
        attempt(corpus, saboteur, asks=asks)
        seen = list(saboteur.seen)
        assert {place.stage for place in seen} == {*STAGES} - (set() if asks else {"best.part"})
        assert steps.stored(process, corpus) == wanted
        assert not asks or best.done_parts(process, corpus) > 1
    for number, place in enumerate(places([place for place in seen if place.stage == stage])[first::2]):
        # Killed before the statement, or an error of the database after it, or the other way round; at commits both.
        for after, failure in WAYS[0] + WAYS[1] if place.statement == "COMMIT" else WAYS[number % 2]:
            with open_process(SIZES, database) as process:
                corpus = steps.new_corpus(process)
                saboteur.reset(place, after=after, failure=failure)
                with pytest.raises(Killed if failure is Killed else DatabaseUnavailable):
                    attempt(corpus, saboteur, asks=asks)
                assert verify(process, corpus, closure=False) == [], (place, after, failure)
                if failure is not Killed:  # it lives on, with all that it remembers
                    finish(process, corpus, saboteur, wanted, asks=asks)
            if failure is Killed:
                with open_process(SIZES, database) as process:
                    finish(process, corpus, saboteur, wanted, asks=asks)


def finish(process: Process, corpus: Corpus, saboteur: Saboteur, wanted: object, *, asks: bool) -> None:
    attempt(corpus, saboteur, asks=asks)
    assert steps.stored(process, corpus) == wanted
    assert verify(process, corpus, closure=True) == []
    if asks:
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


def test_words_of_any_length(process: Process) -> None:
    """A word longer than what an index entry may hold is a word like others."""
    long = "".join(chr(ord("a") + i * i * 7919 % 26) for i in range(20_000))
    corpus = steps.new_corpus(process)
    text = f"the sea {long} the land, the land {long}, land and, sea and, the sea, the land"
    steps.ingest_all(corpus, [text])
    assert steps.stored(process, corpus) == steps.expected([text])
