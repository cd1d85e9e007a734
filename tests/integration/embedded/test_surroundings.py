"""Where the private server is started: users without a name or a home, folders that are gone, few open files."""

from __future__ import annotations

import contextlib
import pwd
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import platformdirs
import pytest

from crochet_tasks import settings
from crochet_tasks.cli import program
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import DiskFull, InvalidSetting, StateUnusable, UserUnknown
from crochet_tasks.settings import Settings
from tests.support.cli import HARBOUR, in_shell
from tests.support.commands import CROCHET

pytestmark = pytest.mark.integration


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the state folder is needed: services with a database of their own run without a home."""

    def no_home(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_data_dir", no_home)
    folder = Settings.load().state_dir
    assert folder == settings.NO_HOME
    with pytest.raises(StateUnusable, match="set HOME or CROCHET_STATE_DIR, or give --state"):
        EmbeddedPostgres(folder).start()


def test_settings_are_read_without_a_home_and_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the state folder and the settings file are looked up at home."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "CROCHET_STATE_DIR", "CROCHET_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert Settings.load().state_dir == settings.NO_HOME


def test_a_user_without_a_name_is_told_what_postgres_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the random user ids of OpenShift."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserUnknown, match=r"user id \d+ has no entry in /etc/passwd"):
        EmbeddedPostgres(tmp_path / "state").start()


def test_a_relative_folder_needs_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert Settings.load(state_dir="state").state_dir == gone / "state"
    gone.rmdir()
    with pytest.raises(InvalidSetting, match="the working directory no longer exists"):
        Settings.load(state_dir="state")
    assert Settings.load(state_dir=str(tmp_path)).state_dir == tmp_path


def test_an_empty_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.outcome(["run", str(HARBOUR), "--state", ""], debug=False) == 2
    assert "--state" in capsys.readouterr().err


@pytest.mark.parametrize("number", [16, 32, 48])
def test_a_limit_of_open_files_is_named(tmp_path: Path, number: int) -> None:
    done = in_shell(f"ulimit -n {number}; {shlex.join(CROCHET)} run {HARBOUR} --state {tmp_path / 'state'}")
    assert (done.returncode, done.stdout) == (4, "")
    assert re.fullmatch(r"crochet: too few files may be open: raise the limit .*\[open_files_limited\]\n", done.stderr)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_says_what_to_do(small_disk: Path) -> None:
    """When there is no room for the server's lock file either; with room again everything is there."""
    state = small_disk / "state"
    with EmbeddedPostgres(state):
        pass
    (state / "postgres" / "reserve").unlink()
    with (small_disk / "junk").open("wb", buffering=0) as junk, contextlib.suppress(OSError):
        while True:
            junk.write(bytes(4096))
    with pytest.raises(DiskFull, match=r"0 MB are free at .*state.*: .*make room there"), EmbeddedPostgres(state):
        pass
    (small_disk / "junk").unlink()
    with EmbeddedPostgres(state) as server:
        assert server.url


def test_a_disk_without_room_for_a_store_says_what_to_do(small_disk: Path) -> None:
    (small_disk / "junk").write_bytes(bytes(100 << 20))
    with (
        pytest.raises(StateUnusable, match=r"MB are free on its disk, .* make room there"),
        EmbeddedPostgres(small_disk),
    ):
        pass
