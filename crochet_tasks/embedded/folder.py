"""The state folder on disk: who may use it, what a killed owner left in it, and room on its disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crochet_tasks.embedded.server_process import cluster_name, end_left_over, wait_until
from crochet_tasks.errors import DiskFull, OpenFilesLimited, StateInUse, StateUnusable

PORT = 5432  # only a part of the socket's name
SOCKET = f".s.PGSQL.{PORT}"

LEFT_OVER_SECONDS = 10.0
NEW_DATA_BYTES = 128 << 20  # initdb writes 40 MB, and there should be room for something to put in
WAL_SEGMENT_BYTES = 16 << 20
RESERVE = "reserve"
RESERVE_BYTES = 3 * WAL_SEGMENT_BYTES
"""recovery and a shutdown write a few segments of WAL"""
LOW_BYTES = 4 * WAL_SEGMENT_BYTES
"""no work is begun with less free space: what the worker threads may write before it is measured again, some MB each"""
SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less the final NUL


class StateFolder:
    """STATE/postgres, as server.py describes it. One process at a time holds its lock."""

    def __init__(self, state: Path) -> None:
        self.state = state.absolute()
        self.path = self.state / "postgres"
        self.data = self.path / "data"
        self.log = self.path / "server.log"
        self._lock: int | None = None

    @property
    def locked(self) -> bool:
        return self._lock is not None

    def lock(self) -> None:
        """Make the folder where there is none, and lock it. Raises StateInUse where another process holds the lock."""
        self._make()
        self._lock = self._take_lock()

    def unlock(self) -> None:
        assert self._lock is not None
        os.ftruncate(self._lock, 0)
        self.disown()

    def disown(self) -> None:
        """Close our handle of the lock, which a forked child shares with its parent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Raise what the file system raises as StateUnusable, DiskFull or OpenFilesLimited."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise OpenFilesLimited from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self.full(str(error.strerror)) from error
            path = f" ({error.filename})" if error.filename else ""
            raise self.unusable(f"{error.strerror or error}{path}") from error

    def unusable(self, reason: str) -> StateUnusable:
        return StateUnusable(folder=self.state, reason=reason)

    def full(self, reason: str) -> DiskFull:
        made = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        return DiskFull(reason=f"{free_bytes(made) >> 20} MB are free at {made}: {reason}")

    def _make(self) -> None:
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700, exist_ok=True)
        owner = self.path.lstat().st_uid
        if owner != os.geteuid():
            raise self.unusable(f"it was made by user {owner}; run as that user, or choose another with --state")
        self.path.chmod(0o700)

    def _take_lock(self) -> int:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if free_bytes(self.path) < RESERVE_BYTES:
                (self.path / RESERVE).unlink(missing_ok=True)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            # The other one may be just about to write its pid.
            wait_until(lambda: os.pread(lock, 20, 0) != b"", 0.2)
            pid = os.pread(lock, 20, 0)
            os.close(lock)
            raise StateInUse(folder=self.state, pid=int(pid) if pid else "unknown") from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def sweep(self) -> None:
        """Remove what a killed owner or server left. We hold the lock, so nothing of it is in use."""
        for unfinished in self.path.glob("initdb-*"):
            # The initdb of a killed owner gets a signal, but may write a little longer.
            wait_until(functools.partial(_removed, unfinished), LEFT_OVER_SECONDS)
        self.remove_aliases()
        if not self.data.exists():
            return
        if left := end_left_over(cluster_name(self.data)):
            raise self.unusable(f"a server that a killed owner left behind does not end (processes {left})")
        # Postgres would take any living process with this pid for itself.
        for name in ("postmaster.pid", SOCKET, f"{SOCKET}.lock"):
            (self.data / name).unlink(missing_ok=True)

    def keep_reserve(self) -> None:
        """Make the reserve where there is room for it and for work."""
        reserve = self.path / RESERVE
        if not reserve.exists() and free_bytes(self.path) > LOW_BYTES + 2 * RESERVE_BYTES:
            handle = os.open(reserve, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVE_BYTES)
            finally:
                os.close(handle)

    def socket_folder(self) -> str:
        """A path to the data folder that fits a socket address and that no URL parser takes apart."""
        path = str(self.data)
        if _fits(path):
            return path
        name = f"{_alias_prefix()}{secrets.token_hex(6)}"
        for parent in _alias_parents():
            if _fits(str(parent / name)):
                (parent / name).symlink_to(self.data)
                return str(parent / name)
        raise self.unusable(
            f"its path is too long for a socket, and so is that of the temporary folder {tempfile.gettempdir()}"
        )

    def remove_aliases(self) -> None:
        for alias in (found for parent in _alias_parents() for found in parent.glob(f"{_alias_prefix()}*")):
            with contextlib.suppress(OSError):
                if alias.lstat().st_uid == os.geteuid() and alias.readlink() == self.data:
                    alias.unlink()


def _alias_parents() -> list[Path]:
    """Where a short name for a long path may be: the temporary folder may have a long one itself."""
    return [Path(tempfile.gettempdir()), *(folder for folder in [Path("/tmp")] if folder.is_dir())]  # noqa: S108 - see above


def _fits(folder: str) -> bool:
    plain = re.fullmatch(r"[A-Za-z0-9_./-]+", folder)  # libpq splits hosts at commas, SQLAlchemy at colons
    return plain is not None and len(f"{folder}/{SOCKET}") <= SOCKET_PATH_BYTES


def _alias_prefix() -> str:
    return f"crochet-{os.geteuid()}-"


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
