"""What is older than the settings say goes away, in small steps; what somebody still needs stays."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import text

from crochet_tasks.db import retention
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.db.retention import RULES, Removed
from crochet_tasks.operate.retention import Retention
from crochet_tasks.settings import Settings
from crochet_tasks.verify import verify
from tests.support import steps

pytestmark = pytest.mark.integration

DAYS, A_DAY = 365, 8
AT_ONCE = 100

# A year of finished searches, each with a try that failed; of changes of their state; of dead letters and requests.
YEAR_OF_AUDIT, *YEAR = (
    """
    INSERT INTO audit (what, subject, at)
    SELECT 'work.done', 'work ' || gen_random_uuid(), now() - place * interval '1 day' / :n
      FROM generate_series(:days * :n, 1, -1) AS place
    """,
    """
    INSERT INTO work (id, corpus, kind, subject, part, since, version, priority, state, finished_at)
    SELECT gen_random_uuid(), :c, 'search', 1, int4range(place, place + 1), 0, 1, 0, 'done',
           now() - place * interval '1 day' / :n
      FROM generate_series(1, :days * :n) AS place
    """,
    """
    INSERT INTO attempts (work, corpus, number, at, error)
    SELECT id, corpus, 1, finished_at, '{}' FROM work WHERE corpus = :c AND state = 'done' AND kind = 'search'
    """,
    """
    INSERT INTO dead_letters (queue, reason, body, died_at, noted_at)
    SELECT 'search', 'rejected', '', at, at
      FROM generate_series(:days * :n, 1, -1) AS place, LATERAL (SELECT now() - place * interval '1 day' / :n) AS _ (at)
    """,
    """
    INSERT INTO idempotency (corpus, key, request, status, answer, created_at)
    SELECT :c, 'key ' || place, sha256(''), 200, '{}', now() - place * interval '1 day' / :n
      FROM generate_series(1, :days * :n) AS place
    """,
)
OLD_WORK = "now() - interval '300 days'"
LEFT = {
    "work": "SELECT count(*) FROM work WHERE corpus = :c AND state = 'done' AND kind = 'search'",
    "attempts": "SELECT count(*) FROM attempts WHERE corpus = :c",
    "audit": "SELECT count(*) FROM audit WHERE what = 'work.done' AND at < now() - interval '1 hour'",
    "dead_letters": "SELECT count(*) FROM dead_letters",
    "idempotency": "SELECT count(*) FROM idempotency",
}


@pytest.fixture
def corpus(process: Process) -> Corpus:
    return played(process)


def played(process: Process) -> Corpus:
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS[:2])
    return corpus


def count(process: Process, corpus: Corpus, what: str) -> int:
    query = LEFT[what]
    return int(str(steps.sql(process, query, **({"c": corpus.id} if ":c" in query else {}))[0][0]))


def sweep(process: Process) -> int:
    """Delete all that is old, a round at a time; how many rounds it took."""
    sweeper, rounds = Retention(process.database, Settings()), 1
    while sweeper.sweep(0.0):
        rounds += 1
    return rounds


def test_a_year_of_rows_goes_away_in_small_steps(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction deletes more rows than it may, and each kind has its turn in every round."""
    steps.sql(process, YEAR_OF_AUDIT, days=DAYS, n=A_DAY)
    corpus = played(process)
    for statement in YEAR:
        values = {"c": corpus.id, "days": DAYS, "n": A_DAY}
        steps.sql(process, statement, **{name: values[name] for name in values if f":{name}" in statement})
    before = {what: count(process, corpus, what) for what in LEFT}
    removed: list[int] = []

    def counted(*arguments: object) -> Removed:
        done = remove_some(*arguments)  # type: ignore[arg-type]
        removed.append(done.rows)
        return done

    remove_some = retention.remove_some
    monkeypatch.setattr(retention, "AT_ONCE", AT_ONCE)
    monkeypatch.setattr(retention, "remove_some", counted)
    rounds = sweep(process)
    assert max(removed) == AT_ONCE
    assert rounds >= (DAYS - 90) * A_DAY // AT_ONCE
    kept = {"work": 30, "attempts": 30, "audit": 90, "dead_letters": 90, "idempotency": 1}
    assert before["audit"] >= DAYS * A_DAY
    for what, days in kept.items():
        # One more, or one less: the row of the last day, whose time is that of the limit.
        assert abs(count(process, corpus, what) - days * A_DAY) <= 1, what
    assert verify(process, corpus, closure=True) == []
    steps.ingest_all(corpus, steps.TEXTS[2:])
    assert steps.stored(process, corpus) == steps.expected(steps.TEXTS)


NEEDED = {
    "open": "'search', 1, '[7,8)', 'open', NULL, NULL",
    "failed": "'search', 1, '[8,9)', 'failed', NULL, '{}'",
    "dropped, so orthos are missing until it is retried": f"'search', 1, '[9,10)', 'cancelled', {OLD_WORK}, NULL",
    "of a text that failed, which can be accepted again": f"'ingest', :failed, NULL, 'done', {OLD_WORK}, NULL",
    "of a search for the best that can go on": f"'best', :job, NULL, 'done', {OLD_WORK}, NULL",
}


def test_what_is_still_needed_stays(process: Process, corpus: Corpus) -> None:
    """However old it is: work that is not at its end, its tries, and what was recorded of it; and remediations."""
    steps.accept(corpus, steps.TEXTS[2])
    ((failed,),) = steps.sql(
        process,
        "UPDATE texts SET state = 'failed', error = '{}' WHERE corpus = :c AND state = 'accepted' RETURNING id",
        c=corpus.id,
    )
    ((job,),) = steps.sql(
        process, "INSERT INTO best (corpus, version, max_side) VALUES (:c, 2, 8) RETURNING id", c=corpus.id
    )
    ids = {}
    for what, row in NEEDED.items():
        ids[what] = uuid.uuid4()
        values = {"failed": failed, "job": job}
        steps.sql(
            process,
            "INSERT INTO work (id, corpus, since, version, priority, kind, subject, part, state, finished_at, error) "
            f"VALUES (:id, :c, 0, 1, 0, {row})",
            **{name: values[name] for name in values if f":{name}" in row},
            id=ids[what],
            c=corpus.id,
        )
    for number in ids.values():
        steps.sql(
            process,
            f"INSERT INTO attempts (work, corpus, number, at, error) VALUES (:id, :c, 1, {OLD_WORK}, '{{}}')",
            id=number,
            c=corpus.id,
        )
        steps.sql(
            process,
            f"INSERT INTO audit (what, subject, at) VALUES ('x', 'work ' || CAST(:id AS text), {OLD_WORK})",
            id=number,
        )
    steps.sql(process, f"INSERT INTO audit (what, subject, at) VALUES ('x', 'text {failed}', {OLD_WORK})")
    waiting = steps.sql(process, "SELECT count(*) FROM remediations")
    sweep(process)
    there = {number for (number,) in steps.sql(process, "SELECT id FROM work WHERE corpus = :c", c=corpus.id)}
    assert set(ids.values()) <= there
    assert steps.sql(process, "SELECT count(*) FROM attempts WHERE corpus = :c", c=corpus.id) == [(len(ids),)]
    old = {str(subject) for (subject,) in steps.sql(process, "SELECT subject FROM audit WHERE what = 'x'")}
    done = {"of a text that failed, which can be accepted again", "of a search for the best that can go on"}
    assert old == {f"work {ids[what]}" for what in ids if what not in done} | {f"text {failed}"}
    assert steps.sql(process, "SELECT count(*) FROM remediations") == waiting


def test_work_that_is_opened_again_meanwhile_stays(process: Process, corpus: Corpus) -> None:
    """The deletion passes over what someone has."""
    old = f"UPDATE work SET finished_at = {OLD_WORK} WHERE corpus = :c"
    steps.sql(process, old, c=corpus.id)
    (rule,) = (rule for rule in RULES if rule.what == "work")
    done = "SELECT id FROM work WHERE corpus = :c AND state = 'done' AND kind = 'search'"
    number = steps.sql(process, done, c=corpus.id)[0][0]
    there = int(str(steps.sql(process, "SELECT count(*) FROM work WHERE corpus = :c", c=corpus.id)[0][0]))
    with process.database.transaction() as connection:
        again = text("UPDATE work SET state = 'open', finished_at = NULL WHERE id = :id")
        connection.execute(again, {"id": number})
        with process.database.transaction() as relay:
            assert retention.remove_some(relay, rule, 86_400.0).rows == there - 1
    assert steps.sql(process, "SELECT id FROM work WHERE corpus = :c", c=corpus.id) == [(number,)]


def test_nothing_is_looked_for_again_at_once(process: Process, corpus: Corpus) -> None:
    sweeper = Retention(process.database, Settings())
    assert sweeper.sweep(1.0) is False
    steps.sql(process, f"UPDATE work SET finished_at = {OLD_WORK} WHERE corpus = :c", c=corpus.id)
    assert sweeper.sweep(1.0) is False
    assert steps.sql(process, "SELECT count(*) > 0 FROM work WHERE corpus = :c", c=corpus.id) == [(True,)]


def test_every_rule_has_a_bound() -> None:
    """Each setting is one, and none of them can say 'for ever'."""
    for rule in RULES:
        assert 0 <= rule.kept_for(Settings()) <= 400 * retention.DAY
