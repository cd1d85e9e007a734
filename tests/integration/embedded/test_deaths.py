"""Owners and servers that die: the server ends with its owner, the data stays, and the next start finds it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.errors import StateInUse
from tests.support.owners import OWNER, WAITING_OWNER, Spawn, connect, data_of, read_line, remember, remembered, runs
from tests.support.waiting import SECONDS, eventually

pytestmark = pytest.mark.integration

ready = pytest.mark.usefixtures("ready_state")


def computes(url: str, backend: int) -> bool:
    with connect(url) as connection:
        row = connection.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [backend]).fetchone()
        return row == ("active",)


@ready
def test_the_server_of_a_killed_owner_ends_by_itself(state: Path, spawn: Spawn) -> None:
    """The server of a killed owner ends by itself, and the next start has its data."""
    owner = spawn(WAITING_OWNER, state)
    pid, url = read_line(owner)
    remember(url)
    owner.kill()
    owner.wait()
    with EmbeddedPostgres(state) as server:
        assert not runs(pid)
        assert remembered(server.url)


@ready
def test_killed_owner_without_successor(state: Path, spawn: Spawn) -> None:
    """The server of a killed owner ends even if no other is started."""
    owner = spawn(WAITING_OWNER, state)
    pid, _ = read_line(owner)
    owner.kill()
    owner.wait()
    eventually(lambda: not runs(pid))


@ready
def test_left_over_server(state: Path, spawn: Spawn) -> None:
    """A server that did not notice its owner's death, here because it is frozen, is ended by the next start."""
    owner = spawn(WAITING_OWNER, state)
    pid, url = read_line(owner)
    remember(url)
    os.kill(int(pid), signal.SIGSTOP)
    owner.kill()
    owner.wait()
    threading.Timer(0.5, os.kill, [int(pid), signal.SIGCONT]).start()
    with EmbeddedPostgres(state) as server:
        assert str(server.pid) != pid
        assert not runs(pid)
        assert remembered(server.url)


@ready
def test_after_a_kill_the_server_recovers_what_was_committed(state: Path) -> None:
    """A killed server is noticed, and starting again recovers what was committed."""
    with EmbeddedPostgres(state) as server:
        remember(server.url)
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: server.pid is None)
        assert remembered(server.start())
        assert server.pid != pid


@ready
def test_killed_server_and_owner_with_a_busy_backend(state: Path, spawn: Spawn) -> None:
    """A backend that computes on after its server was killed does not block the next start."""
    owner = spawn(WAITING_OWNER, state)
    pid, url = read_line(owner)
    remember(url)
    with closing(connect(url)) as connection:
        backend = connection.info.backend_pid
        connection.pgconn.send_query(b"DO $$ BEGIN LOOP NULL; END LOOP; END $$")
        connection.pgconn.flush()
        eventually(lambda: computes(url, backend))  # one that still waits for its query ends with the server
        os.kill(int(pid), signal.SIGKILL)
        owner.kill()
        owner.wait()
        assert runs(backend)
        with EmbeddedPostgres(state) as server:
            assert not runs(backend)
            assert remembered(server.url)


@ready
def test_forked_child_neither_stops_nor_holds_the_server(state: Path, spawn: Spawn) -> None:
    """A worker forked from the owner does not keep the folder locked beyond the owner's death."""
    fork = "child = os.fork()\nif not child:\n    server.stop(); print(os.getpid(), flush=True); sys.stdin.read()\n"
    owner = spawn(OWNER + fork + "os.waitpid(child, 0)", state)
    child = int(read_line(owner)[0])
    try:
        with pytest.raises(StateInUse):
            EmbeddedPostgres(state).start()
        owner.kill()
        owner.wait()
        with EmbeddedPostgres(state):
            assert runs(child)
    finally:
        os.kill(child, signal.SIGKILL)


@ready
def test_interrupt_at_the_terminal_spares_the_server(state: Path, spawn: Spawn) -> None:
    """Ctrl-C reaches the owner's process group, and the owner can still use its server to finish."""
    script = OWNER + (
        "import psycopg\n"
        "with psycopg.connect(url.replace('+psycopg', '')) as connection:\n"
        "    try:\n"
        "        print('ready', flush=True); sys.stdin.read()\n"
        "    except KeyboardInterrupt:\n"
        "        print('answer', connection.execute('SELECT 42').fetchone()[0], server.pid, flush=True)\n"
        "server.stop()\n"
    )
    owner = spawn(script, state)
    assert read_line(owner) == ["ready"]
    os.killpg(owner.pid, signal.SIGINT)
    answer, number, pid = read_line(owner)
    assert (answer, number) == ("answer", "42")
    assert owner.wait(SECONDS) == 0
    eventually(lambda: not runs(pid))


def begun(state: Path) -> bool:
    """Whether initdb is at work there."""
    return any((state / "postgres").glob("initdb-*/base/*/*"))


def test_a_data_folder_that_was_not_finished_is_made_again(state: Path, spawn: Spawn) -> None:
    """A data folder that was never finished is deleted and made again."""
    for number in range(5):  # where this process was slow initdb had finished when its owner was killed
        folder = state / str(number)
        owner = spawn(WAITING_OWNER, folder)
        eventually(lambda folder=folder: begun(folder) or data_of(folder).exists())  # type: ignore[misc]
        owner.kill()
        owner.wait()
        if not data_of(folder).exists():
            break
    assert not data_of(folder).exists()
    with EmbeddedPostgres(folder) as server:
        remember(server.url)
    assert not list((folder / "postgres").glob("initdb-*"))


@ready
def test_stale_pid_of_a_living_stranger(state: Path, spawn: Spawn) -> None:
    """A pid file of a crashed server whose pid was given to another process hurts neither."""
    with EmbeddedPostgres(state) as server:
        remember(server.url)
        pid_file = (data_of(state) / "postmaster.pid").read_text().splitlines()
    stranger = spawn("import sys; sys.stdin.read()", state)
    stale = data_of(state) / "postmaster.pid"
    stale.write_text("\n".join([str(stranger.pid), *pid_file[1:]]) + "\n")
    os.chown(stale, data_of(state).stat().st_uid, -1)
    with EmbeddedPostgres(state) as server:
        assert remembered(server.url)
    assert stranger.poll() is None


def test_alias_of_a_killed_owner_is_removed(state: Path, spawn: Spawn) -> None:
    """The next start removes the alias that a killed owner left."""
    deep = state / ("deep/" * 40)
    owner = spawn(WAITING_OWNER, deep)
    alias = Path(str(make_url(read_line(owner)[1]).query["host"]))
    owner.kill()
    owner.wait()
    assert alias.is_symlink()
    with EmbeddedPostgres(deep):
        assert not alias.is_symlink()
