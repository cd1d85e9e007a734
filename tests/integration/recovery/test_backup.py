"""Backups that are damaged, encrypted, old or in an object store: none is lost, none is used that is not whole."""

from __future__ import annotations

import datetime as dt
import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from pyrage import x25519

from crochet_tasks import recovery
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import (
    BackupDamaged,
    BackupFailed,
    BackupKeyWrong,
    BackupPlaceUnusable,
    BackupUnknown,
    CrochetError,
)
from crochet_tasks.recovery import Place, encryption, programs
from crochet_tasks.recovery.restore import sum_of
from tests.support import steps
from tests.support.backups import contents, file_of, is_empty

pytestmark = pytest.mark.integration
KEY = x25519.Identity.generate()

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
