"""What the store knows of its pace, its troubles and its end: the same from every process, and unknown where it is."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import itertools
import json
import os
import re
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, get_args

import pytest
import redis
from pydantic import SecretStr

from crochet_tasks.db import attempts, corpora, tally
from crochet_tasks.db import statistics as store
from crochet_tasks.db.attempts import Pauses
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import DatabaseUnavailable, kinds
from crochet_tasks.intake import admission
from crochet_tasks.reporting import reports, statistics, worker_use
from crochet_tasks.reporting.worker_use import Reporter
from crochet_tasks.schemas.statistics import Statistics, StatisticsNow, StatusFile, TimeLeft, Unknown, WorkerUse
from crochet_tasks.services import status_file
from crochet_tasks.services.census import CensusThread
from crochet_tasks.services.status_file import Writing
from crochet_tasks.settings import Settings
from crochet_tasks.terminal import drawing
from crochet_tasks.terminal import status as pages
from tests.support import services, steps
from tests.support.api import Api, made
from tests.support.paths import ROOT
from tests.support.statements import Statements
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


SEARCHED = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, state, found, created_at, finished_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, 'done', :found,
       now() - make_interval(secs => :came), now() - make_interval(secs => :ago)
  FROM generate_series(1, :number) AS number
"""
OPEN = """
INSERT INTO work (id, kind, corpus, subject, part, since, version, priority, created_at)
SELECT gen_random_uuid(), 'search', :corpus, 1, '[0,1)', 0, 1, 1, now() - make_interval(secs => :came)
  FROM generate_series(1, :number)
"""
TRIED = """
INSERT INTO attempts (work, corpus, number, at, error)
SELECT id, corpus, 1, now() - make_interval(secs => :ago),
       jsonb_build_object('code', CAST(:code AS text), 'message', CAST(:message AS text))
  FROM (SELECT id, corpus FROM work WHERE corpus = :corpus LIMIT 1) AS one, generate_series(1, :number)
"""


class Past:
    """What happened to a corpus, and when, in seconds ago; nothing else happens to it."""

    def __init__(self, process: Process, corpus: Corpus) -> None:
        self.process, self.corpus = process, corpus

    def searched(self, number: int, ago: float, *, found: int = 0, came: float = 5000) -> None:
        values = {"number": number, "ago": ago, "found": found, "came": max(came, ago)}
        steps.sql(self.process, SEARCHED, corpus=self.corpus.id, **values)

    def opened(self, number: int, ago: int = 5000) -> None:
        steps.sql(self.process, OPEN, corpus=self.corpus.id, number=number, came=ago)

    def failed_tries(self, number: int, ago: float, code: str = "timed_out", message: str = "why") -> None:
        values = {"number": number, "ago": ago, "code": code, "message": message}
        steps.sql(self.process, TRIED, corpus=self.corpus.id, **values)

    def seen(
        self, message: statistics.Message = statistics.for_operators, most: int = statistics.COUNTED
    ) -> Statistics:
        with self.process.database.snapshot() as connection:
            return statistics.report(store.read(connection, [self.corpus.id], most)[self.corpus.id], message)

    def left(self) -> float | str | None:
        left = self.seen().left
        assert (left.seconds is None) != (left.unknown is None)
        return left.seconds if left.unknown is None else left.unknown


@pytest.fixture(scope="module")
def process(create: Callable[[str], str], migrated: str) -> Iterator[Process]:
    """One for all: each test has a corpus of its own."""
    with open_process(Settings(), create(migrated)) as process:
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
        "internal": admission.public_error({"code": "internal"}).message,
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


# ── the census ──────────────────────────────────────────────────────────────────────────────────


def test_work_that_a_spent_budget_holds_back_is_held(past: Past) -> None:
    """No worker is to do it, so nothing stalls by it; ready again when the budget is raised."""
    past.opened(3)
    steps.sql(past.process, "INSERT INTO counts VALUES (:corpus, '{2,2}', 7, 1)", corpus=past.corpus.id)
    for budget, state in [(7, "held"), (8, "ready"), (None, "ready")]:
        steps.sql(past.process, "UPDATE corpora SET budget = :b WHERE id = :corpus", b=budget, corpus=past.corpus.id)
        with past.process.database.snapshot() as connection:
            seen = tally.census(connection, 150, 5)
        groups = [group for group in seen.work if group.corpus == past.corpus.id]
        assert [(group.kind, group.state, group.number) for group in groups] == [("search", state, 3)]


def test_a_bug_does_not_end_the_counting(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported once, and the next census is tried."""
    tried = itertools.count(1)

    class Enough(BaseException):
        """What ends the thread."""

    def broken(_self: CensusThread) -> NoReturn:
        raise KeyError("a bug") if next(tried) < 3 else Enough

    monkeypatch.setattr(CensusThread, "count", broken)
    monkeypatch.setattr("crochet_tasks.services.census.PAUSE_SECONDS", 0.0)
    with pytest.raises(Enough):
        CensusThread(process).run()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["census_failed"]


# ── the status file ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "status.json"


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["why"]) for record in caplog.records if record.message == "status_file_failed"]


def test_the_status_file_is_whole_and_says_when(process: Process, past: Past, path: Path) -> None:
    """A reader that has the old one open reads that to its end; others may read it, and nothing is left beside it."""
    past.searched(1, 30)
    path.parent.mkdir()
    path.write_text("an older one")
    file = Writing(process, path)
    before = dt.datetime.now(dt.UTC)
    with path.open() as reading:
        file.write()
        assert reading.read() == "an older one"
    seen = StatusFile.model_validate_json(path.read_text())
    assert before <= seen.at <= dt.datetime.now(dt.UTC)
    assert seen.every == process.settings.status_file_every
    assert seen.statistics.paces[0].tries
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_status_file_that_cannot_be_written_harms_nothing(
    process: Process, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder, a full disk, no database, a bug: each is reported once per outage; the old file stays."""
    file = Writing(process, path)
    file.write()
    file.write()
    assert complaints(caplog) == ["not_written"]
    path.parent.mkdir()
    file.write()
    whole = path.read_bytes()

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def away(*_: object) -> NoReturn:
        raise DatabaseUnavailable(reason="a test")

    def broken(*_: object) -> NoReturn:
        raise KeyError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", full)
        file.write()
        file.write()
        patch.setattr(statistics, "everything", away)
        file.write()
        file.write()
        patch.setattr(statistics, "everything", broken)
        file.write()
        file.write()
    assert complaints(caplog) == ["not_written", "not_written", "database_away", "internal"]
    assert (path.read_bytes(), list(path.parent.iterdir())) == (whole, [path])
    file.write()
    assert path.read_bytes() != whole


def test_a_relay_keeps_writing_the_status_file(process: Process, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every so often, until it ends."""
    monkeypatch.setattr(status_file, "SHARE", 1.0)
    path.parent.mkdir()
    settings = Settings(status_file=path, status_file_every=0.01)
    relay = Process(settings, Database(process.database.engine.url.render_as_string(hide_password=False), settings))
    status_file.keep(relay)
    times: set[dt.datetime] = set()

    def written() -> bool:
        with contextlib.suppress(FileNotFoundError):
            times.add(StatusFile.model_validate_json(path.read_text()).at)
        return len(times) == 3

    eventually(written)
    relay.close()
    assert "status_file" not in {thread.name for thread in threading.enumerate()}


def test_the_page_about_statistics_is_true() -> None:
    """Its example is a status file, and it explains everything that can be unknown; so does the page in a terminal."""
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    file = StatusFile.model_validate_json(example)
    assert set(json.loads(example)["statistics"]) == set(StatisticsNow.model_fields)
    assert [pace.seconds for pace in file.statistics.paces] == list(statistics.PACES)
    assert set(kinds()) >= {each.code for each in file.statistics.errors}
    codes = re.findall(r"^\| `(\w+)` \| [a-z]", page.split("## Time left")[1], re.MULTILINE)
    assert codes == [code for code in codes if code in get_args(Unknown)]
    assert set(codes) == set(get_args(Unknown))
    for code in get_args(Unknown):
        assert code not in pages.time_left(TimeLeft(seconds=None, unknown=code))


# ── workers ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def with_redis(process: Process, redis_url: str) -> Process:
    url = process.database.engine.url.render_as_string(hide_password=False)
    return Process(Settings(redis_url=SecretStr(redis_url), database_url=SecretStr(url)), process.database)


def test_workers_say_how_busy_they_are(with_redis: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them together, by their processes; not those of another database, nor who says nothing any more."""
    monkeypatch.setattr(worker_use, "REPORT_SECONDS", 0.0)
    settings, database = with_redis.settings, with_redis.database
    assert worker_use.read(settings, database) == worker_use.UNKNOWN
    counts = iter([1, 3, 0, 0, 0])
    big, small = Reporter(settings, "big", 4, lambda: next(counts)), Reporter(settings, "small", 1, lambda: 1)
    for _ in range(4):
        big.sample()
    assert worker_use.read(settings, database) == WorkerUse(processes=4, busy=0.25)
    small.sample()
    assert worker_use.read(settings, database) == WorkerUse(processes=5, busy=0.4)
    seen = statistics.everything(with_redis, statistics.for_operators)
    assert seen.workers == WorkerUse(processes=5, busy=0.4)
    assert settings.redis_url is not None
    with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
        (key,) = client.keys("crochet:use:*")
        assert 0 < client.ttl(key) <= worker_use.FORGOTTEN_SECONDS
        for strange in ("[1,0.5,1,7]", "[1,0.5]", "7", "{}", '["a",1,1]', "[1,NaN,1]", "[", b"\xff"):
            client.hset(key, f"of another release: {strange!r}", strange)
        assert worker_use.read(settings, database) == WorkerUse(processes=5, busy=0.4)
        client.hdel(key, *[name for name in client.hkeys(key) if name.startswith(b"of another")])
        client.hset(key, "small", json.dumps([1, 1.0, client.time()[0] - worker_use.KEPT_SECONDS - 2]))
        assert worker_use.read(settings, database) == WorkerUse(processes=4, busy=0.25)
        every = worker_use.seen(settings, database) or []
        assert [(each.name, each.processes, each.busy, each.reports) for each in every] == [
            ("big", 4, 0.25, True),
            ("small", 1, 1.0, False),
        ]
        assert every[1].seconds >= worker_use.KEPT_SECONDS + 2
        client.hset(key, "small", json.dumps([1, 1.0, client.time()[0] - worker_use.FORGOTTEN_SECONDS - 2]))
        assert [each.name for each in worker_use.seen(settings, database) or []] == ["big"]
        big.sample()
        assert client.hkeys(key) == [b"big"]
        client.rename(key, "crochet:use:another")
    assert worker_use.read(settings, database) == worker_use.UNKNOWN


def test_use_is_unknown_without_redis(
    with_redis: Process, redis_server: services.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or while it is away: neither workers nor who asks mind."""
    monkeypatch.setattr(worker_use, "REPORT_SECONDS", 0.0)
    settings, database = with_redis.settings, with_redis.database
    worker = Reporter(settings, "one", 1, lambda: 1)
    redis_server.kill()
    worker.sample()
    assert worker_use.read(settings, database) == worker_use.UNKNOWN
    without = Settings(database_url=settings.database_url)
    Reporter(without, "one", 1, lambda: 1).sample()
    assert worker_use.read(without, database) == worker_use.UNKNOWN
    assert worker_use.seen(without, database) is worker_use.seen(settings, database) is None
