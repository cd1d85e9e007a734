"""What the store knows of its pace, its troubles and its end: the same from every process, and unknown where it is."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crochet_tasks.db import attempts, corpora, tally
from crochet_tasks.db import statistics as store
from crochet_tasks.db.attempts import Pauses
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.intake import posted
from crochet_tasks.reporting import reports, statistics, worker_use
from crochet_tasks.settings import Settings
from crochet_tasks.terminal import drawing
from crochet_tasks.terminal import status as pages
from tests.support import steps
from tests.support.api import Api, made
from tests.support.past import TRIED, Past, stop_clock
from tests.support.statements import Statements

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def process(create: Callable[[str], str], migrated: str) -> Iterator[Process]:
    """One for all: each test has a corpus of its own."""
    stop_clock(url := create(migrated))
    with open_process(Settings(), url) as process:
        yield process


@pytest.fixture
def alone(database: str) -> Iterator[Process]:
    """With a database of its own."""
    with open_process(Settings(), database) as process:
        yield process


@pytest.fixture
def api(alone: Process) -> Api:
    return made(alone)


@pytest.fixture
def past(process: Process) -> Past:
    return Past(process, steps.new_corpus(process))


def steady(past: Past) -> None:
    """10 searches a second for a minute, and no new ones; 1800 are left."""
    past.searched(300, 10, found=3)
    past.searched(300, 45, found=3)
    past.opened(1800)


# ── how fast it goes ────────────────────────────────────────────────────────────────────────────


def test_rates_are_over_the_last_1_5_and_15_minutes(past: Past) -> None:
    """Of what was done within them; what was before does not count."""
    past.searched(6, 30, found=20)
    past.searched(24, 200, found=10)
    past.searched(60, 800, found=5)
    past.searched(100, 1000, found=5)
    one, five, fifteen = past.seen().paces
    assert (one.seconds, one.orthos_per_second, one.work_per_second) == (60, 2.0, 0.1)
    assert (five.seconds, five.orthos_per_second, five.work_per_second) == (300, 1.2, 0.1)
    assert (fifteen.seconds, fifteen.orthos_per_second, fifteen.work_per_second) == (900, 0.733, 0.1)
    assert (one.texts_per_minute, one.tries, one.success) == (0.0, 6, 1.0)


def test_tries_that_failed_are_the_share_that_did_not_succeed(past: Past) -> None:
    """Nothing tried, no share."""
    assert past.seen().paces[0].success is None
    past.searched(3, 30)
    past.failed_tries(1, 30)
    past.failed_tries(4, 100)
    one, five, _ = past.seen().paces
    assert (one.tries, one.failed_tries, one.success) == (4, 1, 0.75)
    assert (five.tries, five.failed_tries, five.success) == (8, 5, 0.375)


def test_a_rate_is_unknown_where_more_was_done_than_is_counted(past: Past) -> None:
    """Shorter times, in which all is counted, are known all the same."""
    past.searched(5, 30)
    past.searched(5, 100)
    past.searched(5, 600)
    one, five, fifteen = past.seen(most=11).paces
    assert (one.work_per_second, five.work_per_second) == (0.083, 0.033)
    assert (fifteen.work_per_second, fifteen.orthos_per_second, fifteen.tries, fifteen.success) == (None,) * 4


def test_errors_are_grouped_by_code_with_their_trend(past: Past) -> None:
    """The last 15 minutes against the 15 before: new, more, the same or fewer; most frequent first."""
    past.opened(1)
    for code, recent, before in [("new", 2, 0), ("more", 5, 3), ("same", 3, 3), ("fewer", 4, 9), ("gone", 0, 5)]:
        past.failed_tries(recent - 1, 60, code, "an older one")
        past.failed_tries(min(recent, 1), 30, code, f"the last {code}\nand where")
        past.failed_tries(before, 1000, code)
        past.failed_tries(7, 2000, code)
    seen = past.seen().errors
    assert [(each.code, each.count, each.before, each.trend) for each in seen] == [
        ("more", 5, 3, "more"),
        ("fewer", 4, 9, "fewer"),
        ("same", 3, 3, "same"),
        ("new", 2, 0, "new"),
    ]
    assert [each.message for each in seen] == [f"the last {each.code}" for each in seen]
    age = dt.datetime.now(dt.UTC) - seen[0].last_at
    assert dt.timedelta(seconds=30) <= age < dt.timedelta(seconds=300)


def test_an_error_without_a_code_is_a_bug_s(past: Past) -> None:
    """It counts among the others."""
    past.opened(1)
    past.failed_tries(2, 60, "internal", "with one")
    steps.sql(past.process, TRIED.replace("CAST(:code AS text)", "NULL"), corpus=past.corpus.id, **WITHOUT_CODE)
    (seen,) = past.seen().errors
    assert (seen.code, seen.count, seen.message) == ("internal", 5, "without")


WITHOUT_CODE = {"number": 3, "ago": 30, "message": "without"}


def test_tenants_do_not_read_of_the_inside(past: Past) -> None:
    """The rule is that of every other answer."""
    past.opened(1)
    past.failed_tries(1, 60, "internal", "/etc/of-the-inside")
    past.failed_tries(1, 60, "text_too_large", "it is too large")
    messages = {each.code: each.message for each in past.seen(statistics.for_tenants).errors}
    assert messages == {
        "internal": posted.public_error({"code": "internal"}).message,
        "text_too_large": "it is too large",
    }
    assert "inside" not in messages["internal"]


# ── how long it takes ───────────────────────────────────────────────────────────────────────────


def test_time_left_is_what_is_open_by_how_fast_it_shrinks(past: Past) -> None:
    """Searches are cut so that they cost about the same."""
    steady(past)
    assert past.left() == 180.0
    past.opened(900, 100)
    assert past.left() == 270.0


def test_what_was_left_over_meanwhile_is_reckoned_with(past: Past) -> None:
    """In the last minute 600 were searched and 300 came: 1800 at 5 a second."""
    past.searched(200, 10)
    past.searched(300, 45)
    past.searched(100, 20, came=50)
    past.opened(1600)
    past.opened(200, 25)
    assert past.left() == 360.0


def test_nothing_open_is_no_time_left(past: Past) -> None:
    assert past.left() == 0.0
    past.searched(5, 30)
    assert past.left() == 0.0


UNKNOWN: dict[str, tuple[str, Callable[[Past], Any]]] = {
    "texts wait": ("texts_waiting", lambda past: steps.accept(past.corpus, "a text")),
    "a text is being read": ("still_finding", lambda past: _other(past, "ingest")),
    "what a version makes due is being found": ("still_finding", lambda past: _other(past, "remediations")),
    "a try is waited for": (
        "held_up",
        lambda past: _change(past, "not_before = now() + interval '1 hour', attempts = 1"),
    ),
    "as much comes as goes": ("not_shrinking", lambda past: past.opened(300, 10)),
    "more came half a minute ago": ("not_shrinking", lambda past: past.opened(400, 45)),
    "nothing was done": (
        "hardly_moving",
        lambda past: _change(past, "finished_at = now() - interval '70 seconds'", "done"),
    ),
}


def _other(past: Past, kind: str) -> None:
    statement = """
    INSERT INTO work (id, kind, corpus, subject, since, version, priority)
    VALUES (gen_random_uuid(), :kind, :corpus, 1, 0, 1, 1)
    """
    steps.sql(past.process, statement, corpus=past.corpus.id, kind=kind)


def _change(past: Past, change: str, state: str = "open") -> None:
    steps.sql(
        past.process, f"UPDATE work SET {change} WHERE corpus = :corpus AND state = '{state}'", corpus=past.corpus.id
    )


@pytest.mark.parametrize("case", UNKNOWN)
def test_time_left_is_unknown_where_it_cannot_be_known(past: Past, case: str) -> None:
    """Nothing but that stands in the way, and the answer says which it is."""
    why, happens = UNKNOWN[case]
    steady(past)
    assert past.left() == 180.0
    happens(past)
    assert past.left() == why


def test_time_left_is_unknown_while_a_budget_holds_searches_back(past: Past) -> None:
    """Raised, it is known again."""
    steady(past)
    steps.sql(past.process, "INSERT INTO counts VALUES (:corpus, '{2,2}', 7, 1)", corpus=past.corpus.id)
    for budget, expected in [(7, "budget_spent"), (8, 180.0)]:
        steps.sql(past.process, "UPDATE corpora SET budget = :b WHERE id = :corpus", b=budget, corpus=past.corpus.id)
        assert past.left() == expected


def test_time_left_is_unknown_where_not_all_is_counted(past: Past) -> None:
    steady(past)
    seen = past.seen(most=1800)
    assert (seen.left.unknown, seen.at_least) == ("not_counted", True)


def test_looking_far_ahead_takes_having_looked_far_back(past: Past) -> None:
    """A minute is good for ten, 5 minutes for 50, 15 for 150; beyond that it is unknown."""
    steady(past)
    past.opened(7200, 4000)  # 15 minutes by the last minute; in the last 5 it went at half that pace
    past.searched(900, 200)
    assert past.left() == 1800.0
    past.opened(45_000, 3000)  # 3 hours by the last 5 minutes
    past.searched(4500, 700)
    assert past.left() == 8100.0
    past.opened(45_000, 2000)
    assert past.left() == "too_far"


def test_what_failed_is_not_waited_for(past: Past) -> None:
    """But for what a version makes due: later versions wait for it."""
    past.opened(2)
    _change(past, """state = 'failed', error = '{"code": "internal"}'""")
    assert past.left() == 0.0
    assert past.seen().work["search"].failed == 2
    _other(past, "remediations")
    _change(past, """state = 'failed', error = '{"code": "internal"}'""")
    assert past.left() == "held_up"


# ── all of it ───────────────────────────────────────────────────────────────────────────────────


def test_corpora_together_are_their_sums(process: Process, past: Past) -> None:
    """Also where there are none."""
    other = Past(process, steps.new_corpus(process))
    steady(past)
    other.searched(6, 30, found=10)
    other.failed_tries(2, 50)
    past.failed_tries(1, 10, message="the last one")
    with process.database.snapshot() as connection:
        both = store.read(connection, [past.corpus.id, other.corpus.id], 1_000_000)
    seen = statistics.now(both.values(), statistics.for_operators, worker_use.UNKNOWN)
    assert (seen.corpora, seen.work["search"].ready, seen.paces[0].tries) == (2, 1800, 609)
    assert seen.paces[0].orthos_per_second == round((600 * 3 + 60) / 60, 3)
    assert [(each.code, each.count, each.message) for each in seen.errors] == [("timed_out", 3, "the last one")]
    none = statistics.now([], statistics.for_operators, worker_use.UNKNOWN)
    assert (none.corpora, none.left.seconds, none.errors) == (0, 0.0, [])


def test_the_pipeline_leaves_behind_what_statistics_count(process: Process) -> None:
    """Texts, orthos, work and tries that failed, as they were."""
    corpus = steps.new_corpus(process)
    steps.accept(corpus, *steps.TEXTS)
    ((first,),) = steps.sql(process, "SELECT id FROM work WHERE corpus = :c ORDER BY created_at LIMIT 1", c=corpus.id)
    assert isinstance(first, uuid.UUID)
    with process.database.transaction() as connection:
        attempts.record(connection, [first], {"code": "away", "message": "gone"}, Pauses(5, 0.001, 0.001), later=True)
    before = Past(process, corpus).seen()
    assert (before.waiting_texts, before.left.unknown, before.work["ingest"].retrying) == (3, "texts_waiting", 1)
    done = len(steps.run(corpus))
    after = Past(process, corpus).seen()
    pace = after.paces[-1]
    assert (after.versions, after.waiting_texts, after.orthos) == (3, 0, sum(steps.expected(steps.TEXTS).values()))
    assert pace.orthos_per_second == round(after.orthos / 900, 3)
    assert pace.texts_per_minute == round(3 / 15, 3)
    assert (pace.failed_tries, after.work, after.left.seconds) == (1, {}, 0.0)
    assert pace.tries is not None
    assert pace.tries > done > 3
    with process.database.snapshot() as connection:
        assert tally.total(connection, corpus.id) == after.orthos


def test_statistics_of_a_corpus_read_nothing_of_others(api: Api) -> None:
    """Nor more than is counted of its own, however much there is; and through an index."""
    api.write.post("/v1/corpora", json={"name": "mine"})
    api.stranger.post("/v1/corpora", json={"name": "theirs"})
    with api.process.database.transaction() as connection:
        mine = corpora.named(connection, "mine")
        theirs = mine._replace(id=connection.exec_driver_sql("SELECT max(id) FROM corpora").scalar_one())
    steps.sql(api.process, "ALTER TABLE work DISABLE TRIGGER USER")
    for corpus in (mine, theirs):
        past = Past(api.process, corpus)
        past.searched(20_000, 100_000)
        past.searched(1000, 100)
        past.opened(1000)
    steps.sql(api.process, "ANALYZE work")
    statements = Statements(api.process)
    with statements.noted():
        assert api.read.get("/v1/status").get_json()["work"]["search"]["ready"] == 1000
    assert sum(statements.rows().values()) == 2000
    bounded = Statements(api.process)
    with bounded.noted(), api.process.database.snapshot() as connection:
        assert store.read(connection, [mine.id], 10)[mine.id].uncounted
    assert sum(bounded.rows().values()) == 20


# ── who asks ────────────────────────────────────────────────────────────────────────────────────


def test_a_tenant_asks_for_all_of_its_corpora(api: Api) -> None:
    """And of no other tenant; each corpus' status has its part."""
    api.problem(api.anonymous.get("/v1/status"), "unauthorized", 401)
    api.problem(api.read.get("/v1/status?x=1"), "invalid_request", 422)
    for name in ("one", "two"):
        api.write.post("/v1/corpora", json={"name": name})
        with api.process.database.transaction() as connection:
            steps.ingest_all(corpora.named(connection, name), steps.TEXTS[:2])
    seen = api.read.get("/v1/status").get_json()
    assert (seen["corpora"], seen["versions"]) == (2, 4)
    assert seen["orthos"] == 2 * sum(steps.expected(steps.TEXTS[:2]).values())
    assert seen["workers"] == {"processes": None, "busy": None}
    (one, two) = (api.read.get(f"/v1/corpora/{name}/status").get_json()["statistics"] for name in ("one", "two"))
    assert [one["orthos"] + two["orthos"], one["corpora"], two["versions"]] == [seen["orthos"], 1, 2]
    assert api.stranger.get("/v1/status").get_json()["corpora"] == 0


def test_people_see_it(alone: Process) -> None:
    """In the page of `crochet status`: pace, time left or why it is unknown, errors."""
    past = Past(alone, steps.new_corpus(alone))
    past.searched(600, 30, found=3)
    past.failed_tries(2, 60, message="a reason\nand where")
    status = reports.status(alone)
    assert status.statistics is not None
    console = drawing.console()
    with console.capture() as captured:
        console.print(pages.page(status))
    page = captured.get()
    for words in ("orthos/s", "time left", "workers", "unknown", "timed_out", "a reason"):
        assert words in page
    assert "and where" not in page
