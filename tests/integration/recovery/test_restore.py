"""A backup holds a moment of the database; restored, it is that moment again, and work goes on from there."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from crochet_tasks import recovery
from crochet_tasks.broker.messages import SearchResult
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import (
    BackupFailed,
    DatabaseReplaced,
    DatabaseUnsuitable,
    NotEmpty,
    RestoreUnfinished,
    SchemaUnknown,
)
from crochet_tasks.recovery import Place, programs
from crochet_tasks.settings import Settings
from tests.support import services, steps
from tests.support.backups import contents, is_empty, opened
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

# ── there and back ──────────────────────────────────────────────────────────────────────────────


def test_a_restored_backup_is_the_same_in_every_table_and_goes_on(
    process: Process, place: Place, target: Database
) -> None:
    """Of two corpora one is complete, and of the other one's three texts two are accepted only."""
    complete, begun = (steps.new_corpus(process, name=name) for name in ("complete", "begun"))
    steps.ingest_all(complete, steps.TEXTS)
    steps.ingest_all(begun, steps.TEXTS[:1])
    steps.accept(begun, *steps.TEXTS[1:])
    made = recovery.backup(process.database, place)
    before = contents(process.database)
    assert [(each.corpus, each.version, each.texts) for each in made.corpora] == [("begun", 1, 3), ("complete", 3, 3)]
    assert made.corpora[1].orthos == sum(steps.expected(steps.TEXTS).values())

    assert recovery.restore(target, place) == made
    assert contents(target) == before
    with open_process(Settings(), target) as restored:
        steps.run(begun)
        for corpus in (complete, begun):
            assert steps.stored(restored, corpus) == steps.expected(steps.TEXTS)


def test_open_work_is_published_again(
    process: Process, place: Place, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published when the backup was made has no message any more. And every character is kept."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    corpus = steps.new_corpus(process)
    texts = [*steps.TEXTS, "море и небо, небо и море"]
    steps.accept(corpus, *texts)
    steps.sql(process, "UPDATE work SET published_at = now() WHERE state = 'open'")
    recovery.backup(process.database, place)
    recovery.restore(target, place)
    with open_process(Settings(), target) as restored:
        steps.run(corpus)
        assert steps.stored(restored, corpus) == steps.expected(texts)


def test_a_backup_is_of_one_moment(process: Process, place: Place, target: Database) -> None:
    """Texts come and are searched while it is made: what was counted is what is restored."""
    over = threading.Event()

    def work() -> None:
        for number in itertools.count():
            steps.ingest_all(steps.new_corpus(process, name=f"during-{number}"), steps.TEXTS[:2])
            if over.is_set():
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        eventually(lambda: steps.sql(process, "SELECT FROM corpora OFFSET 1 LIMIT 1"))
        made = [recovery.backup(process.database, place) for _ in range(3)]
    finally:
        over.set()
        worker.join()
    assert recovery.restore(target, place, made[1].name) == made[1]  # restore compares what it counts


def recorded_commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the programs that are started from now on."""
    commands: list[list[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        commands.append(command)
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    return commands


def test_postgres_15_and_a_password_of_every_character(
    distributed_database: str, postgres: services.Postgres, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Debian's own server is one of 15 or 16, its own programs are used; no process list shows the password."""
    for database in opened(distributed_database):
        with open_process(Settings(), database) as process:
            steps.ingest_all(steps.new_corpus(process), steps.TEXTS)
            made = recovery.backup(database, place)
            before = contents(database)
        address = {**database.address, "password": "p'\\ \"x=y@:/?#%&é"}
        commands = recorded_commands(monkeypatch)
        with pytest.raises(BackupFailed, match="password authentication failed"):
            programs.run("pg_dump", 15, address, "--schema-only")
        assert len(commands) >= 1
        assert "x=y" not in " ".join(itertools.chain(*commands))
    url = postgres.new_database()
    for database in opened(url):
        assert recovery.restore(database, place) == made
        assert contents(database) == before
    postgres.drop_database(url)


def test_results_of_a_lost_history_are_dropped(
    process: Process, place: Place, target: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that came after the backup was being searched; another one is that version now, and its work has the same
    ids: what the queue still holds must not be stored.
    """
    first, lost, _ = steps.TEXTS
    instead = lost.translate(str.maketrans("ghijk", "zyxwv"))
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, [first])
    recovery.backup(process.database, place)
    broker = steps.Broker(monkeypatch)
    steps.accept(corpus, lost)
    broker.deliver_all(corpus, "orthos.store")
    old = len(broker.messages)
    assert old > 0
    recovery.restore(target, place)
    with open_process(Settings(), target) as restored:
        steps.accept(corpus, instead)
        broker.publish(corpus)
        while len(broker.messages) > old and broker.messages[-1][0].name != "orthos.store":
            broker.deliver(old)
            broker.publish(corpus)
        works = [call.work for _, call in broker.messages if isinstance(call, SearchResult)]
        assert set(works[:old]) & set(works[old:])  # the ids are the same
        broker.deliver_all(corpus)  # the old ones come first
        assert steps.stored(restored, corpus) == steps.expected([first, instead])


def test_a_process_does_not_go_on_in_another_database(
    distributed_database: str, postgres: services.Postgres, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was forgotten to stop it: what it has in memory of version 2 is not true of what becomes version 2."""
    monkeypatch.setattr("crochet_tasks.db.sessions.PING_AFTER_SECONDS", 0.0)  # however quick all this is
    with open_process(Settings(), distributed_database) as process:
        corpus = steps.new_corpus(process)
        steps.ingest_all(corpus, steps.TEXTS[:1])
        recovery.backup(process.database, place)
        steps.ingest_all(corpus, steps.TEXTS[1:2])
        postgres.drop_database(distributed_database)
        postgres.new_database(name=str(make_url(distributed_database).database))
        for database in opened(distributed_database):
            recovery.restore(database, place)
        for _ in range(2):
            with pytest.raises(DatabaseReplaced, match="restart this service"):
                steps.accept(corpus, steps.TEXTS[2])
    with open_process(Settings(), distributed_database) as process:
        steps.ingest_all(corpus, steps.TEXTS[2:])
        assert steps.stored(process, corpus) == steps.expected([steps.TEXTS[0], steps.TEXTS[2]])


def test_a_table_that_somebody_keeps_to_himself_is_not_waited_for(
    process: Process, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("crochet_tasks.recovery.backup"), "LOCK_SECONDS", 0.05)
    with process.database.transaction() as connection:
        connection.execute(text("LOCK TABLE keys IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(BackupFailed, match="keeps a table locked"):
            recovery.backup(process.database, place)
    assert list(Path(place.address).iterdir()) == []


# ── where it is restored ────────────────────────────────────────────────────────────────────────


def test_only_an_empty_database_is_restored_into(process: Process, place: Place, target: Database) -> None:
    recovery.backup(process.database, place)
    with pytest.raises(NotEmpty, match="alembic_version"):
        recovery.restore(process.database, place)
    with target.transaction() as connection:
        connection.execute(text("CREATE TABLE of_somebody_else ()"))
    with pytest.raises(NotEmpty, match="of_somebody_else"):
        recovery.restore(target, place)


def test_the_backup_of_a_newer_program_is_refused(process: Process, place: Place, target: Database) -> None:
    made = recovery.backup(process.database, place)
    manifest = Path(place.address, made.name, "backup.json")
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**written, "schema_revision": "9999", "schema_serves": "9999"}))
    with pytest.raises(SchemaUnknown, match="newer crochet"):
        recovery.restore(target, place)
    assert is_empty(target)


def test_nothing_is_done_through_a_pooler(pooled_database: str, place: Place) -> None:
    """PgBouncer would give the sessions of Postgres' programs, whose search_path is empty, to other clients."""
    for database in opened(pooled_database):
        with pytest.raises(DatabaseUnsuitable, match="the server's own address"):
            recovery.backup(database, place)
        with pytest.raises(DatabaseUnsuitable, match="the server's own address"):
            recovery.restore(database, place)
    assert not Path(place.address).exists()


def test_a_restore_into_a_schema_that_is_not_looked_at_is_not_called_one(
    process: Process, place: Place, empty: str
) -> None:
    """It is committed by then. Here search_path is another one than where the backup was made."""
    recovery.backup(process.database, place)
    url = make_url(empty).update_query_dict({"options": "-csearch_path=elsewhere"})
    for database in opened(url.render_as_string(hide_password=False)):
        with pytest.raises(RestoreUnfinished, match="search_path"):
            recovery.restore(database, place)
