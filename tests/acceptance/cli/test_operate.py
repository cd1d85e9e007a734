"""The commands of operators as programs: submit texts and wait for them; list, change and watch work."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from crochet_tasks.db.sessions import Database
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.schemas.reports import IngestReport, RunReport, Status, WorkChanged, WorkDetail, WorkLine, WorkList
from crochet_tasks.settings import Settings
from tests.support.cli import (
    EVENING,
    HARBOUR,
    closure,
    crochet,
    exported,
    in_shell,
    refused,
    report_of,
    shapes,
    started,
)
from tests.support.cluster import QUICK, Cluster, until
from tests.support.commands import CROCHET, RELAY
from tests.support.waiting import SECONDS

NO_WORK = "No work is open, and none has failed; 'crochet status' shows what there is.\n"
pytestmark = pytest.mark.acceptance

NOWHERE = "amqp://guest:guest@127.0.0.1:1//"


@pytest.fixture
def shared(distributed_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database that several processes share, with the schema; commands find it."""
    monkeypatch.setenv("CROCHET_DATABASE_URL", distributed_database)
    database = Database(distributed_database, Settings())
    yield database
    database.close()


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that commands find without an option."""
    monkeypatch.setenv("CROCHET_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def execute(database: Database, *statements: str) -> None:
    with database.transaction() as connection:
        for statement in statements:
            connection.execute(text(statement))


def ingested(*arguments: object) -> IngestReport:
    done = crochet("ingest", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return IngestReport.model_validate_json(done.stdout)


def listed(*arguments: object) -> list[WorkLine]:
    done = crochet("work", "list", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return WorkList.model_validate_json(done.stdout).work


def changed(*arguments: object) -> list[tuple[str, str]]:
    done = crochet("work", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [(line.id, line.state) for line in WorkChanged.model_validate_json(done.stdout).changed]


def poison(database: Database) -> None:
    """From now on no text with the word "poison" can be ingested."""
    execute(
        database,
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'poisoned'; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON words FOR EACH ROW "
        "WHEN (NEW.word = 'poison') EXECUTE FUNCTION poison()",
    )


# ── ingest ──────────────────────────────────────────────────────────────────────────────────────


def test_ingest_accepts_and_does_no_work(shared: Database) -> None:
    """It says what it accepted; another process does the work, and the same text again is known."""
    done = crochet("ingest", HARBOUR, EVENING)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"text-1  seq 1  accepted  .*harbour.txt\ntext-2  seq 2  accepted  .*evening.txt\n", done.stdout
    )
    assert "CROCHET_BROKER_URL is not set" in done.stderr
    assert [(line.kind, line.state) for line in listed()] == [("ingest", "ready")] * 2
    assert report_of(crochet("run", "--json")).orthos == shapes(closure(HARBOUR, EVENING))
    again = ingested(HARBOUR)
    assert [(each.id, each.state, each.new) for each in again.texts] == [("text-1", "current", False)]
    assert not again.published


def test_ingest_waits_until_all_is_found(shared: Database) -> None:
    """Progress meanwhile, a report at the end; another process does the work."""
    waiting = started("ingest", HARBOUR, EVENING, "--wait", "--json")
    assert waiting.stderr is not None
    _read(waiting, "work 2 open")
    assert waiting.poll() is None
    assert report_of(crochet("run", "--json")).closed
    output, errors = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 0, errors
    report = IngestReport.model_validate_json(output)
    assert [each.state for each in report.texts] == ["current", "current"]
    assert report.waited is not None
    assert (report.waited.ended, report.waited.closed, report.waited.version) == ("done", True, 2)
    assert report.waited.total == len(closure(HARBOUR, EVENING))


def _read(program: subprocess.Popen[str], until: str) -> None:
    """Read what a program says on standard error until it says this."""
    assert program.stderr is not None
    while until not in (line := program.stderr.readline()):
        assert line, "no such line was printed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_waiting_only(shared: Database, number: signal.Signals) -> None:
    """The report says how far it is, and the text stays accepted."""
    waiting = started("ingest", HARBOUR, "--wait", "--json")
    _read(waiting, "work 1 open")
    waiting.send_signal(number)
    output, errors = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 128 + number
    assert "crochet: stopped waiting; the work goes on\n" in errors
    report = IngestReport.model_validate_json(output)
    assert report.waited is not None
    assert (report.waited.ended, report.waited.open_work, report.waited.closed) == ("stopped", 1, False)
    assert report_of(crochet("run", "--json")).closed


def test_a_broker_that_is_away_is_no_error(shared: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is accepted, and its work waits for the relay, as after any change."""
    monkeypatch.setenv("CROCHET_BROKER_URL", NOWHERE)
    done = crochet("ingest", HARBOUR)
    assert done.returncode == 0
    assert re.search(r"the broker does not answer .*; the relay publishes the work later", done.stderr)
    assert [line.state for line in listed()] == ["ready"]
    assert changed("cancel", "text-1") == [("text-1", "cancelled")]
    assert changed("retry", "text-1") == [("text-1", "accepted")]
    status = Status.model_validate_json(crochet("status", "--json").stdout)
    assert (status.broker, status.queues) == ("unknown", {})
    assert "queues: unknown, the broker does not answer" in crochet("status").stdout


def test_a_text_that_fails_while_it_is_waited_for(shared: Database, tmp_path: Path) -> None:
    """Reported as by a run; once the cause is gone it can be retried."""
    poison(shared)
    bad = tmp_path / "bad.txt"
    bad.write_text("the sea and the poison")
    waiting = started("ingest", bad, HARBOUR, "--wait")
    _read(waiting, "work 2 open")
    assert crochet("run").returncode == 0
    output, errors = waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 3
    assert "text-1  seq 1  failed" in output
    assert re.search(r"^crochet: .*bad.txt could not be ingested: .*poisoned.* \[text_failed\]$", errors, re.MULTILINE)
    execute(shared, "DROP TRIGGER poison ON words")
    assert changed("retry", "--all") == [("text-1", "accepted")]
    assert report_of(crochet("run", "--json")).orthos == shapes(closure(HARBOUR, bad))


def test_what_ingest_refuses_leaves_nothing(shared: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the good text beside a bad one."""
    refused(crochet("ingest", HARBOUR, tmp_path / "lost.txt"), 3, "text_not_found", "lost.txt")
    refused(crochet("ingest", HARBOUR, "--max-axes", 1), 2, "limit_out_of_range")
    refused(crochet("ingest", HARBOUR, "--corpus", "a b"), 2, "invalid_name")
    refused(crochet("ingest"), 2, "usage", "FILE")
    assert Status.model_validate_json(crochet("status", "--json").stdout).corpora == []
    monkeypatch.delenv("CROCHET_DATABASE_URL")
    refused(crochet("ingest", HARBOUR), 2, "setting_missing", "CROCHET_DATABASE_URL is not set", "'crochet run'")


def test_a_deployment_does_what_is_ingested(
    distributed_database: str, vhost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queues and consumers are in the status; waiting ends when its workers have found everything."""
    monkeypatch.setenv("CROCHET_DATABASE_URL", distributed_database)
    monkeypatch.setenv("CROCHET_BROKER_URL", vhost)
    assert ingested(HARBOUR).texts[0].state == "accepted"  # whether its message already finds a queue or not
    cluster = Cluster(tmp_path, QUICK, forked=True)
    try:
        names = [cluster.start(*command) for command in (RELAY, ("worker",))]
        until(lambda: all(map(cluster.ready, names)), cluster)  # before, the queues may not be declared
        waited = ingested(EVENING, "--wait")
        status = Status.model_validate_json(crochet("status", "--json").stdout)
    finally:
        cluster.close()
    assert waited.published
    assert waited.waited is not None
    assert (waited.waited.ended, waited.waited.closed) == ("done", True)
    assert (status.broker, status.corpora[0].closed) == ("answers", True)
    assert status.corpora[0].orthos == shapes(closure(HARBOUR, EVENING))
    assert {status.queues[name].consumers for name in ("ingest", "search", "orthos")} == {1}
    assert status.queues["ingest-dead"].ready == 0
    assert listed() == []
    assert re.search(r"^ *search +0 +\d+ *$", crochet("status").stdout, re.MULTILINE)


# ── work ────────────────────────────────────────────────────────────────────────────────────────


def test_work_is_listed_shown_cancelled_and_retried(shared: Database) -> None:
    """By text and by the beginning of an id; tables for people, one object for programs."""
    ingested(HARBOUR, EVENING)
    first, second = (line.id for line in listed())
    shown = crochet("work", "list").stdout
    assert f"{first[:13]}   main     ingest   text-1, " in shown
    assert changed("cancel", "text-1") == [("text-1", "cancelled")]
    assert [line.id for line in listed("--state", "cancelled")] == [first]
    assert [line.id for line in listed("--state", "open", "--kind", "ingest", "--corpus", "main")] == [second]
    detail = WorkDetail.model_validate_json(crochet("work", "show", first[:8], "--json").stdout)
    assert (detail.line.state, [entry.what for entry in detail.audit]) == ("cancelled", ["work.open", "work.cancelled"])
    page = crochet("work", "show", "text-1").stdout
    assert re.search(r"state +cancelled *\n", page)
    assert "text.cancelled  by crochet" in page
    assert report_of(crochet("run", "--json")).orthos == shapes(closure(EVENING))
    refused(crochet("work", "cancel", "text-2"), 2, "text_is_version", "is version 1 of its corpus")
    assert crochet("work", "retry", first[:8]).stdout.startswith("text-1  text  accepted")
    assert report_of(crochet("run", "--json")).orthos == shapes(closure(EVENING, HARBOUR))
    assert crochet("work", "list").stdout == NO_WORK


@pytest.mark.usefixtures("ready_state")
def test_searches_that_failed_are_dropped_and_retried(private: Path) -> None:
    """On a private store, too. Without them nothing claims to be closed; afterwards it is exact."""
    with private_database(private) as database:
        execute(
            database,
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$",
            "CREATE TRIGGER broken BEFORE INSERT ON batches FOR EACH ROW EXECUTE FUNCTION broken()",
        )
    assert crochet("run", HARBOUR).returncode == 1
    (failed,) = listed("--state", "failed")
    assert "broken" in crochet("work", "show", failed.id).stdout
    dropped = crochet("work", "drop", failed.id[:13])
    assert dropped.stdout.startswith(f"{failed.id}  search  cancelled")
    assert "corpus 'main' is incomplete until it is retried" in dropped.stderr
    refused(crochet("work", "drop", failed.id), 2, "work_not_failed", "only what has failed can be dropped")
    with private_database(private) as database:
        execute(database, "DROP TRIGGER broken ON batches")
    report = RunReport.model_validate_json(crochet("run", "--json").stdout)
    assert (report.ended, report.dropped_work, report.closed) == ("closed", 1, False)
    assert re.search(r"work +0 open, 3 done, 0 failed, dropped: 1", crochet("status").stdout)
    assert changed("retry", "--all", "--dropped") == [(failed.id, "ready")]
    assert report_of(crochet("run", "--json")).closed
    assert exported(private) == closure(HARBOUR)


@contextmanager
def private_database(state: Path) -> Iterator[Database]:
    with EmbeddedPostgres(state) as server:
        database = Database(server.url, Settings())
        yield database
        database.close()


def test_work_where_there_is_none(private: Path) -> None:
    """Listing makes no store; wrong calls are explained."""
    assert crochet("work", "list").stdout == NO_WORK
    refused(crochet("work", "show", "abcd"), 2, "work_unknown", "'abcd'")
    refused(crochet("work", "cancel", "text-1"), 2, "work_unknown", "'text-1'")
    for arguments in ([], ["abcd", "--all"], ["abcd", "--dropped"], ["abcd", "--corpus", "main"]):
        refused(crochet("work", "retry", *arguments), 2, "usage", "give IDs, or --all")
    assert crochet("work", "list", "--state", "held").stdout.startswith("There is no such work; without options ")
    refused(crochet("work", "list", "--state", "lost"), 2, "usage", "lost")
    assert not private.exists()


# ── status --watch ──────────────────────────────────────────────────────────────────────────────


def test_watching_says_the_status_again_and_again(shared: Database) -> None:
    """As one object per line, with how fast it goes; Ctrl-C is a good end."""
    ingested(HARBOUR)
    watching = started("status", "--watch", "--every", 0.1, "--json")
    assert watching.stdout is not None
    first = Status.model_validate_json(watching.stdout.readline())
    (corpus,) = first.corpora
    assert (corpus.by_kind, corpus.closed, corpus.rate) == ({"ingest": {"ready": 1}}, False, 0)
    assert crochet("run").returncode == 0
    while not corpus.closed:
        (corpus,) = Status.model_validate_json(watching.stdout.readline()).corpora
    assert (corpus.rate or 0) > 0
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=SECONDS)
    assert (watching.returncode, errors) == (0, "")


def test_watching_without_a_terminal_repeats_the_page(shared: Database) -> None:
    """Into a pipe that closes, too."""
    ingested(HARBOUR)
    command = f"{' '.join(CROCHET)} status --watch --every 0.1"
    done = in_shell(f"set -o pipefail; {command} | grep -m 3 '^corpus '")
    assert (done.returncode, done.stdout.count("work done"), done.stderr) == (0, 3, "")


def test_watching_in_a_terminal_draws_over(shared: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, theirs = os.openpty()
    wrapper = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"
    monkeypatch.setenv("TERM", "xterm")
    ingested(HARBOUR)
    watching = subprocess.Popen(
        [sys.executable, "-c", wrapper, *CROCHET, "status", "--watch", "--every", "0.1"], stdin=theirs
    )
    os.close(theirs)
    seen = _seen(terminal, lambda shown: shown.count("work done") > 2)
    assert "\x1b[?25l" in seen
    os.write(terminal, b"\x03")
    assert watching.wait(SECONDS) == 0
    os.close(terminal)


def _seen(terminal: int, enough: Callable[[str], bool]) -> str:
    shown = ""
    while not enough(shown):
        assert select.select([terminal], [], [], SECONDS)[0], shown
        shown += os.read(terminal, 65536).decode(errors="replace")
    return shown
