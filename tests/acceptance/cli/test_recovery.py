"""Backups by the command line, of a store in a state folder."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from pyrage import x25519

from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.schemas.recovery import Backups
from tests.support.cli import HARBOUR, closure, crochet, exported, refused, report_of, started
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def test_a_store_in_use_is_backed_up_and_restored(tmp_path: Path) -> None:
    """Another process holds its lock meanwhile; the backup is encrypted, and only its owner may read the file."""
    state, place, keys = tmp_path / "state", tmp_path / "backups", tmp_path / "keys"
    report_of(crochet("run", HARBOUR, "--state", state, "--json"))
    key = x25519.Identity.generate()
    keys.write_text(str(key))
    with EmbeddedPostgres(state):
        made = crochet("backup", place, "--state", state, "--recipient", key.to_public())
        assert (made.returncode, "encrypted: 1 corpus, 1 text, 570 orthos" in made.stdout) == (0, True), made.stderr
    (file,) = place.glob("*/database.dump.age")
    assert (file.stat().st_mode & 0o077, file.parent.stat().st_mode & 0o077) == (0, 0)
    checked = crochet("restore", place, "--check")
    assert (checked.returncode, checked.stdout) == (0, f"intact: {made.stdout}")
    restored = crochet("restore", place, "--state", tmp_path / "new", "--identity", keys)
    assert (restored.returncode, restored.stdout) == (0, f"restored: {made.stdout}"), restored.stderr
    assert exported(tmp_path / "new") == closure(HARBOUR)
    refused(crochet("restore", place, "--state", state, "--identity", keys), 3, "not_empty", "--state")


def test_backups_again_and_again(ready_state: Path, tmp_path: Path) -> None:
    """Until it is stopped; old ones are removed. One that is damaged changes nothing of that."""
    place, damaged = tmp_path / "backups", "20200101T000000.000Z"
    (place / damaged).mkdir(parents=True)
    (place / damaged / "backup.json").write_text("{}")
    process = started("backup", place, "--state", ready_state, "--every", "1", "--keep", "2")
    try:
        eventually(lambda: len({each.name for each in place.iterdir()}) >= 3)
        first = sorted(each.name for each in place.iterdir())[1]
        eventually(lambda: not (place / first).exists())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert f"removed backup {first}" in err
    assert out.count("\n") >= 3
    listed = crochet("backup", place, "--list", "--max-age", "3600", "--json")
    assert 2 <= len(Backups.model_validate_json(listed.stdout).backups) <= 3
    assert f"backup '{damaged}' is damaged" in listed.stderr
    for wrong in (["--max-age", "9"], ["--list", "--keep", "1"]):  # neither is what was meant
        refused(crochet("backup", place, "--state", ready_state, *wrong), 2, "usage", "--list")


def test_where_there_is_nothing(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    refused(crochet("backup", tmp_path / "b", "--state", nothing), 3, "store_unknown", str(nothing))
    refused(crochet("restore", tmp_path / "b", "--state", nothing), 3, "backup_unknown", "--list")
    assert not nothing.exists()
    shown = crochet("backup", tmp_path / "b", "--list")
    assert (shown.returncode, shown.stdout) == (0, "")
    refused(crochet("backup", tmp_path / "b", "--list", "--max-age", "9"), 3, "backup_unknown")


def test_an_old_backup_is_found(ready_state: Path, tmp_path: Path) -> None:
    assert crochet("backup", tmp_path / "b", "--state", ready_state).returncode == 0
    (manifest,) = (tmp_path / "b").glob("*/backup.json")
    manifest.write_text(manifest.read_text().replace('"began_at": "2', '"began_at": "1'))
    refused(crochet("backup", tmp_path / "b", "--list", "--max-age", "90000"), 4, "backup_old", "25.0 h")
