"""A backup holds a moment of the database; restored, it is that moment again, and work goes on from there."""

from __future__ import annotations

import datetime as dt
import errno
import importlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pyrage import x25519
from sqlalchemy import inspect, make_url, text

from crochet_tasks import recovery
from crochet_tasks.broker.messages import SearchResult
from crochet_tasks.db import schema
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import (
    BackupDamaged,
    BackupFailed,
    BackupKeyWrong,
    BackupPlaceUnusable,
    BackupUnknown,
    CrochetError,
    DatabaseReplaced,
    DatabaseUnsuitable,
    NotEmpty,
    RestoreUnfinished,
    SchemaUnknown,
)
from crochet_tasks.recovery import Place, encryption, programs
from crochet_tasks.recovery.restore import sum_of
from crochet_tasks.schemas.recovery import Manifest
from crochet_tasks.settings import Settings
from tests.support import services, steps
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

ROWS = "SELECT md5(coalesce(string_agg(md5(each::text), '' ORDER BY md5(each::text)), '')) FROM {} AS each"
KEY = x25519.Identity.generate()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(str(tmp_path / "backups"))


@pytest.fixture
def target(empty: str) -> Iterator[Database]:
    yield from opened(empty)


def opened(url: str) -> Iterator[Database]:
    database = Database(url, Settings())
    yield database
    database.close()


def contents(database: Database) -> dict[str, str]:
    """A sum of the rows of each table."""
    with database.transaction() as connection:
        names = inspect(connection).get_table_names()
        return {name: str(connection.execute(text(ROWS.format(name))).scalar_one()) for name in names}


def file_of(place: Place, manifest: Manifest) -> Path:
    return Path(place.address, manifest.name, manifest.dump.file)


def is_empty(database: Database) -> bool:
    with database.transaction() as connection:
        return inspect(connection).get_table_names() == []


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


def test_postgres_15_and_a_password_of_every_character(
    distributed_database: str, postgres: services.Postgres, place: Place
) -> None:
    """Where Debian's own server is one of 15 or 16, its own programs are used; no process list shows the password."""
    for database in opened(distributed_database):
        with open_process(Settings(), database) as process:
            steps.ingest_all(steps.new_corpus(process), steps.TEXTS)
            made = recovery.backup(database, place)
            before = contents(database)
        address = {**database.address, "password": "p'\\ \"x=y@:/?#%&é"}
        with (
            pytest.raises(BackupFailed, match="password authentication failed"),
            programs.running("pg_dump", 15, address, "--schema-only"),
        ):
            assert all("x=y" not in word for child in psutil.Process().children() for word in child.cmdline())
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
    manifest.write_text(manifest.read_text().replace(f'"{schema.HEAD}"', '"9999"'))
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


# ── damage ──────────────────────────────────────────────────────────────────────────────────────


def flip(file: Path) -> None:
    value = bytearray(file.read_bytes())
    value[len(value) // 2] ^= 1
    file.write_bytes(value)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def misread(file: Path) -> None:
    file.with_name("backup.json").write_text('{"format": 2}')


@pytest.mark.parametrize(
    ("damage", "error"),
    [(flip, BackupDamaged), (cut, BackupDamaged), (misread, BackupDamaged), (Path.unlink, BackupPlaceUnusable)],
)
def test_a_damaged_backup_is_refused_before_anything_is_written(
    process: Process, place: Place, target: Database, damage: Callable[[Path], None], error: type[CrochetError]
) -> None:
    made = recovery.backup(process.database, place)
    damage(file_of(place, made))
    with pytest.raises(error):
        recovery.check(place, None)
    with pytest.raises(error):
        recovery.restore(target, place)
    assert is_empty(target)


def test_a_restore_that_fails_leaves_an_empty_database(process: Process, place: Place, target: Database) -> None:
    """Here a dump whose sum is right and whose end is missing."""
    steps.ingest_all(steps.new_corpus(process), steps.TEXTS)
    made = recovery.backup(process.database, place)
    file = file_of(place, made)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    dump = made.dump.model_copy(update={"bytes": file.stat().st_size, "sha256": sum_of(place, made)[1]})
    manifest = made.model_copy(update={"dump": dump})
    Path(place.address, made.name, "backup.json").write_text(manifest.model_dump_json())
    with pytest.raises(BackupFailed, match="pg_restore failed: "):
        recovery.restore(target, place)
    assert is_empty(target)


def test_a_backup_that_fails_leaves_nothing(process: Process, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where pg_dump ends with an error, nor where it is killed."""
    monkeypatch.setattr(programs, "_path", lambda program, server: "/bin/false")
    with pytest.raises(BackupFailed, match="pg_dump failed: it ended with status 1"):
        recovery.backup(process.database, place)
    assert recovery.read_backups(place) == []
    assert list(Path(place.address).iterdir()) == []
    with pytest.raises(BackupUnknown):
        recovery.check(place, None)


def test_a_damaged_backup_does_not_hide_the_others(process: Process, place: Place) -> None:
    """Nor does it keep old ones from being removed; it is left for somebody to look at."""
    made = [recovery.backup(process.database, place) for _ in range(3)]
    misread(file_of(place, made[0]))
    found, damaged = recovery.read_all(place)
    assert (found, [error.context["name"] for error in damaged]) == (made[1:], [made[0].name])
    assert recovery.remove_old(place, 1) == [made[1].name]
    assert place.folders() == [made[0].name, made[2].name]


def test_what_is_not_known_to_be_on_disk_is_no_backup(
    process: Process, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(BackupPlaceUnusable, match="Input/output error"):
        recovery.backup(process.database, place)
    assert list(Path(place.address).iterdir()) == []


# ── encryption ──────────────────────────────────────────────────────────────────────────────────


def test_an_encrypted_backup_is_read_with_its_key_only(
    process: Process, place: Place, target: Database, tmp_path: Path
) -> None:
    steps.ingest_all(steps.new_corpus(process), steps.TEXTS)
    made = recovery.backup(process.database, place, encryption.recipient(str(KEY.to_public())))
    assert file_of(place, made).read_bytes().startswith(b"age-encryption.org/v1\n")
    (keys := tmp_path / "keys").write_text(f"# created: today\n{KEY}\n")
    with pytest.raises(BackupKeyWrong, match="--identity"):
        recovery.restore(target, place)
    with pytest.raises(BackupKeyWrong, match="cannot be decrypted"):
        recovery.restore(target, place, keys=[x25519.Identity.generate()])
    assert is_empty(target)
    recovery.restore(target, place, keys=encryption.identities(keys))
    assert contents(target) == contents(process.database)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (None, "No such file"),
        ("", "holds no key"),
        ("AGE-SECRET-KEY-1X", "something else"),
        ("\udcff", "something else"),
    ],
)
def test_wrong_keys_are_named(tmp_path: Path, held: str | None, words: str) -> None:
    file = tmp_path / "keys"
    if held is not None:
        file.write_bytes(held.encode(errors="surrogateescape"))
    with pytest.raises(BackupKeyWrong, match=words):
        encryption.identities(file)
    with pytest.raises(BackupKeyWrong, match="age1"):
        encryption.recipient(str(KEY))


# ── many backups ────────────────────────────────────────────────────────────────────────────────


def test_old_and_abandoned_backups_are_removed(process: Process, place: Place) -> None:
    """One that is not complete is left alone for a day: it may be in the making."""
    made = [recovery.backup(process.database, place).name for _ in range(3)]
    folder = Path(place.address)
    young = f"{made[0][:9]}999999.999Z"
    for name in ("20200101T000000.000Z", young, "notes"):
        (folder / name).mkdir()
        (folder / name / "database.dump#1").write_bytes(b"half")  # as the library calls it until it is whole
    assert set(recovery.remove_old(place, 2)) == {made[0], "20200101T000000.000Z"}
    assert [each.name for each in recovery.read_backups(place)] == made[1:]
    assert {each.name for each in folder.iterdir()} == {*made[1:], young, "notes"}


def test_one_is_due_when_the_newest_is_old(process: Process, place: Place) -> None:
    """Also after a restart of the service: --keep would replace all that is old by what is new."""
    assert recovery.due_in(place, 60) == 0
    made = recovery.backup(process.database, place)
    assert 3600 < recovery.due_in(place, 7200) < 7200
    manifest = Path(place.address, made.name, "backup.json")
    for began, least in ((made.began_at - dt.timedelta(hours=2), 0), (made.began_at + dt.timedelta(days=9), 7200)):
        manifest.write_text(made.model_copy(update={"began_at": began}).model_dump_json())
        assert recovery.due_in(place, 7200) == least  # a clock that was wrong stops nothing for longer than that


# ── object stores ───────────────────────────────────────────────────────────────────────────────


def test_backups_in_s3(s3: str, process: Process, target: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dump is uploaded in parts, larger than one."""
    import boto3

    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="kept")
    steps.ingest_all(steps.new_corpus(process), steps.TEXTS)
    steps.sql(
        process,
        "CREATE TABLE large AS SELECT md5(n::text) || md5((-n)::text) AS word FROM generate_series(1, 150000) AS n",
    )
    place = Place("s3://kept/crochet")
    monkeypatch.setattr("crochet_tasks.recovery.places.PART_BYTES", 5 << 20)
    made = [recovery.backup(process.database, place) for _ in range(2)]
    assert made[0].dump.bytes > 5 << 20
    assert recovery.remove_old(place, 1) == [made[0].name]
    assert recovery.read_backups(place) == made[1:]
    assert recovery.restore(target, place) == made[1]
    assert contents(target) == contents(process.database)
    with pytest.raises(BackupPlaceUnusable, match="s3://nowhere"):
        recovery.read_backups(Place("s3://nowhere/x"))
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(BackupPlaceUnusable, match="AWS_ALLOW_HTTP"):
        recovery.read_backups(Place("s3://kept/crochet"))


@pytest.mark.parametrize("address", ["ftp://x/y", "memory:///x", "s3:///", "/dev/null", "/dev/null/x"])
def test_a_place_that_cannot_be_used_is_named(address: str) -> None:
    with pytest.raises(BackupPlaceUnusable, match=address):
        Place(address).folders()


def test_looking_for_backups_makes_no_folder(place: Place) -> None:
    assert recovery.read_backups(place) == []
    with pytest.raises(BackupUnknown):
        recovery.check(place, None)
    assert not Path(place.address).exists()
