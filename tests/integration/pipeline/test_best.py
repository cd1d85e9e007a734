"""The best orthos as work of the pipeline: proven, whatever comes how often, in what order, and stops in between."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import pytest

from crochet_tasks import best as task
from crochet_tasks import publish
from crochet_tasks.access import tenancy
from crochet_tasks.db import best as db_best
from crochet_tasks.db import corpora, publishing, removal
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine.best import certificate
from crochet_tasks.engine.best.faces import Search
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.errors import DatabaseConflict, DatabaseUnavailable, LimitOutOfRange, NotFound, StartTooLong, TooBusy
from crochet_tasks.operate import actions, best_jobs
from crochet_tasks.operate.best_jobs import JobSpec
from crochet_tasks.query.best import CERTIFICATES
from crochet_tasks.schemas.best import BestJob
from crochet_tasks.schemas.names import BEST, number_in
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.best import BUSY, BUSY_SCOPE, ask, done_parts, expected, orthos, read, stop
from tests.support.dense import corpus as dense
from tests.support.longer import by_run
from tests.support.steps import Broker

pytestmark = pytest.mark.integration

SMALL = 1
"""visits of a part: all searches are cut, each start for itself"""


@pytest.fixture
def small(database: str) -> Iterator[Process]:
    """A process in which every search is cut into many parts."""
    with open_process(Settings(best_part_visits=SMALL), database) as process:
        yield process


def stored(process: Process, texts: list[str], scope: Scope) -> Corpus:
    """A corpus with the texts as versions. Its budget is spent at once: the best are searched for all the same."""
    limits = (min(8, scope.max_axes or 8), scope.max_side, scope.max_cells or 1024)
    corpus = steps.new_corpus(process, limits)
    steps.sql(process, "UPDATE corpora SET budget = 1 WHERE id = :c", c=corpus.id)
    add(corpus, texts)
    return corpus


def add(corpus: Corpus, texts: list[str]) -> None:
    steps.accept(corpus, *steps.usable(texts))
    steps.run(corpus)


def check(process: Process, corpus: Corpus, texts: list[str], scope: Scope, job: BestJob) -> None:
    """It is proven, by a certificate that holds, and what the oracle finds; nothing is left behind."""
    job = read(process, corpus, job.id)
    assert (job.state, job.gap, job.incumbent, job.error) == ("proven", 0, None, None)
    assert orthos(job) == expected(texts, scope, job.top)
    with process.database.snapshot() as connection:
        at = corpora.numbered(connection, corpus.id)
        proof = CERTIFICATES.validate_json(best_jobs.certificate(connection, at, job.id))
        certificate.check(proof, process.tree(connection, corpus.id, job.version))
        certificate.repeat(proof, process.tree(connection, corpus.id, job.version), 1)
    assert steps.sql(process, "SELECT FROM best_faces JOIN best ON best.id = job WHERE corpus = :c", c=corpus.id) == []
    left = "SELECT FROM work WHERE corpus = :c AND kind = 'best' AND state = 'open'"
    assert steps.sql(process, left, c=corpus.id) == []


def scope_of(number: int) -> Scope:
    dice = random.Random(number)
    return Scope(dice.choice([2, 3, 4, 5, None]), dice.choice([3, 3, 4, 5]), dice.choice([12, 27, 64]))


@pytest.mark.parametrize("number", by_run(range(4), longer=range(4, 12)))
def test_it_is_the_oracles_best(small: Process, number: int) -> None:
    """Of corpora with up to five axes and 3x3x3: the best, and the 20 best."""
    texts, scope = dense(number), scope_of(number)
    corpus = stored(small, texts, scope)
    for top in (None, 20):
        job = ask(small, corpus, JobSpec(dict(scope._asdict()), top))
        assert job.state == "queued"
        steps.run(corpus)
        check(small, corpus, texts, scope, job)


# ── messages ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def busy(small: Process) -> tuple[Process, Corpus, list[str], Scope]:
    texts, scope = dense(BUSY), BUSY_SCOPE
    return small, stored(small, texts, scope), texts, scope


Busy = tuple[Process, Corpus, list[str], Scope]


def test_a_search_has_many_parts(busy: Busy) -> None:
    """What the tests below are about; and while they are done a part says what is known."""
    process, corpus, texts, scope = busy
    job = ask(process, corpus)
    seen, faces = [], []
    while publish.publish_next(corpus.id):
        seen.append(read(process, corpus))
        faces += steps.sql(process, "SELECT sides FROM best_faces")
    check(process, corpus, texts, scope, job)
    assert done_parts(process, corpus) > 60
    assert faces
    running = [each for each in seen if each.state == "running"]
    assert {each.searching.aim for each in running if each.searching} == {"one", "list", "faces"}
    assert all(each.parts and 0 <= each.parts.done < each.parts.total for each in running if each.searching)
    assert any(each.estimated_seconds_left for each in running)
    gaps = [each.gap for each in running if each.gap is not None]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("seed", by_run(range(2), longer=range(2, 4)))
def test_in_any_order_and_twice(busy: Busy, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages come in any order, several times, late, or not at all; a task dies before or after its commit."""
    process, corpus, texts, scope = busy
    chance, broker = random.Random(seed), Broker(monkeypatch)
    write = db_best.write

    def failing(*args: object, **kwargs: object) -> None:
        write(*args, **kwargs)  # type: ignore[arg-type]
        if chance.random() < 0.15:
            raise DatabaseUnavailable(reason="a test")

    monkeypatch.setattr(db_best, "write", failing)
    job = ask(process, corpus)
    old = []
    for _ in range(5_000):
        broker.publish(corpus)
        if not broker.messages:
            if read(process, corpus).state == "proven":
                break
            with process.database.transaction() as connection:  # the lease of what was lost has expired
                publishing.release_all(connection, corpus.id)
            continue
        step, call = broker.messages.pop(chance.randrange(len(broker.messages)))
        old.append((step, call))
        if chance.random() < 0.1:
            continue
        for each, message in [(step, call), *(chance.choices(old, k=1) if chance.random() < 0.3 else [])]:
            with contextlib.suppress(DatabaseUnavailable):
                each.apply_async(args=[message.payload()])
    check(process, corpus, texts, scope, job)
    for step, call in old[-20:]:
        step.apply_async(args=[call.payload()])
    check(process, corpus, texts, scope, job)


def test_an_outcome_that_comes_when_another_has_ended_the_search(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a part is computed all others are done, and the search with them: it changes nothing."""
    process, corpus, texts, scope = busy
    job = ask(process, corpus)
    run, depth = task._run, list[bool]()

    def overtaken(*args: object) -> object:
        if not depth and len(args) > 2 and args[1].enough:  # type: ignore[attr-defined]
            depth.append(True)
            with process.database.transaction() as connection:
                publishing.release_all(connection, corpus.id)
            steps.run(corpus)
        return run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(task, "_run", overtaken)
    steps.run(corpus)
    assert depth
    check(process, corpus, texts, scope, job)


# ── stopped, asked again ────────────────────────────────────────────────────────────────────────


def test_it_stops_and_goes_on(busy: Busy) -> None:
    """Whenever it is stopped, nothing more is done; asked again, it is the same job and goes on from there."""
    process, corpus, texts, scope = busy
    job, stops = ask(process, corpus), 0
    while read(process, corpus).state != "proven":
        for _ in range(7):
            publish.publish_next(corpus.id)
        if read(process, corpus).state == "proven":
            break
        before = stop(process, corpus, job.id)
        assert (before.state, publish.publish_next(corpus.id)) == ("stopped", None)
        assert stop(process, corpus, job.id) == before
        stops += 1
        again = ask(process, corpus)
        assert (again.id, again.state, again.empty, again.incumbent) == (
            job.id,
            "queued",
            before.empty,
            before.incumbent,
        )
    assert stops > 3
    check(process, corpus, texts, scope, job)
    assert stop(process, corpus, job.id).state == "proven"
    assert ask(process, corpus).state == "proven"


def test_a_new_version_begins_with_the_old_answer(small: Process) -> None:
    """It is an ortho of the new version, too; and what is best then is the oracle's."""
    scope, texts = BUSY_SCOPE, dense(BUSY)
    corpus = stored(small, texts[:-1], scope)
    first = ask(small, corpus)
    steps.run(corpus)
    add(corpus, texts[-1:])
    check(small, corpus, texts[:-1], scope, first)
    second = ask(small, corpus)
    assert second.version > first.version
    publish.publish_next(corpus.id)
    after = read(small, corpus, second.id)
    known = read(small, corpus, first.id).best
    best_known = [one for one in (after.incumbent, *after.best) if one is not None]
    assert max((one.volume, one.cells) for one in best_known) >= (known[0].volume, known[0].cells)
    steps.run(corpus)
    check(small, corpus, texts, scope, second)
    assert read(small, corpus).id == second.id


def test_a_corpus_without_texts_has_none(process: Process) -> None:
    corpus = steps.new_corpus(process)
    job = ask(process, corpus)
    steps.run(corpus)
    found = read(process, corpus, job.id)
    assert (found.state, found.best, found.version) == ("proven", [], 0)


def test_a_corpus_that_is_deleted(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a part is computed: its outcome is dropped, and all rows go."""
    process, corpus, _, _ = busy
    ask(process, corpus)
    for _ in range(10):
        publish.publish_next(corpus.id)
    run = task._run

    def deleted(*args: object) -> object:
        if len(args) > 2:
            tenancy.remove(process, corpora.DEFAULT_TENANT, corpus.name, corpus.name)
            assert not tenancy.sweep(process.database, 60)
        return run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(task, "_run", deleted)
    steps.run(corpus)
    for table in ("best", "work", "corpora"):
        column = "id" if table == "corpora" else "corpus"
        assert steps.sql(process, f"SELECT FROM {table} WHERE {column} = :c", c=corpus.id) == []
    assert steps.sql(process, "SELECT FROM best_faces") == []
    with pytest.raises(NotFound), process.database.snapshot() as connection:
        best_jobs.read(connection, corpus)


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_asked(busy: Busy) -> None:
    process, corpus, _, _ = busy
    for limits in ({"max_side": 4}, {"max_axes": 9}, {"max_cells": 3}, {"max_axes": 1}):
        with pytest.raises(LimitOutOfRange):
            ask(process, corpus, JobSpec(dict(limits), None))
    for top in range(1, best_jobs.MOST_RUNNING + 1):
        ask(process, corpus, JobSpec({}, top))
    with pytest.raises(TooBusy):
        ask(process, corpus)
    assert ask(process, corpus, JobSpec({}, 1)).state == "queued"  # that one is known
    assert len(steps.sql(process, "SELECT FROM best WHERE corpus = :c", c=corpus.id)) == best_jobs.MOST_RUNNING


def test_faces_that_are_too_many(database: str) -> None:
    """Where a worker may hold few of them it stops with what is known: no proof, no certificate, and says why."""
    with open_process(Settings(best_part_visits=SMALL, worker_cache_bytes=1), database) as process:
        corpus = stored(process, dense(BUSY), BUSY_SCOPE)
        job = ask(process, corpus)
        steps.run(corpus)
        found = read(process, corpus, job.id)
        assert (found.state, found.certificate, found.too_large != []) == ("stopped", None, True)
        assert found.incumbent is not None
        assert ask(process, corpus).state == "queued"
        steps.run(corpus)
        assert read(process, corpus, job.id).too_large == found.too_large


def test_a_part_ends_in_time(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer is left over; a single start that does is an error of the job, which can go on later."""
    process, corpus, texts, scope = busy
    run = Search.run
    with monkeypatch.context() as patch:
        # As if the time were up after the first start.
        patch.setattr(
            Search,
            "run",
            lambda search, part, stop: run(search, part._replace(last=part.first + 1), stop)._replace(part=part),
        )
        job = ask(process, corpus)
        for _ in range(40):
            publish.publish_next(corpus.id)
        assert read(process, corpus, job.id).state == "running"
        patch.setattr(
            Search,
            "run",
            lambda search, part, stop: run(search, part._replace(last=part.first), stop)._replace(part=part),
        )
        with pytest.raises(StartTooLong):
            steps.run(corpus)
        while True:
            with contextlib.suppress(StartTooLong):
                if publish.publish_next(corpus.id) is None:
                    break
    failed = read(process, corpus, job.id)
    assert (failed.state, failed.error and failed.error.code) == ("failed", "start_too_long")
    assert ask(process, corpus).id == job.id
    steps.run(corpus)
    check(process, corpus, texts, scope, job)


@pytest.mark.parametrize("ends", ["stopped", "dropped"])
def test_a_part_that_is_retried_takes_its_search_with_it(busy: Busy, ends: str) -> None:
    """Alone it would come to its end, and the search would be stopped, though it was asked for (schedule 60843)."""
    process, corpus, texts, scope = busy
    job = ask(process, corpus)
    parts = "SELECT id::text FROM work WHERE kind = 'best' AND part IS NOT NULL AND state = :state ORDER BY id"
    while len(steps.sql(process, parts, state="open")) < 2:
        assert publish.publish_next(corpus.id)
    (part,), *_ = steps.sql(process, parts, state="open")
    if ends == "dropped":
        steps.sql(process, "UPDATE work SET state = 'failed', error = '{}' WHERE id::text = :part", part=part)
        assert actions.drop(process, [str(part)]).notes == [f"{job.id} is stopped"]
    else:
        stop(process, corpus, job.id)
    assert read(process, corpus, job.id).state == "stopped"
    assert actions.retry(process, [str(part)]).notes == [f"{job.id} is planned anew, with all its parts"]
    ask(process, corpus)
    steps.run(corpus)
    check(process, corpus, texts, scope, job)
    # Of a search that is proven: nothing is done again.
    steps.sql(process, "UPDATE work SET state = 'cancelled' WHERE id::text = :part", part=part)
    assert actions.retry(process, [str(part)]).notes == []
    check(process, corpus, texts, scope, job)


def test_a_deletion_takes_no_work_of_a_job_that_a_part_has_locked(small: Process) -> None:
    """The part goes on to its work, which would otherwise wait for the deletion, and that for the part."""
    corpus = stored(small, dense(BUSY), BUSY_SCOPE)
    job = ask(small, corpus)
    with small.database.transaction() as connection:
        removal.hide(connection, corpus.id)
    with small.database.transaction() as part:
        assert db_best.read(part, number_in(job.id, BEST) or 0, lock=True)
        with pytest.raises(DatabaseConflict), small.database.transaction() as deletion:
            removal.delete_some(deletion, corpus.id)
    assert steps.sql(small, "SELECT FROM work WHERE kind = 'best' AND state = 'open'")
    assert not tenancy.sweep(small.database, 60)
    assert steps.sql(small, "SELECT FROM work") == []
