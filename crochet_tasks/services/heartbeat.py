"""Word that a service makes progress: a file that it writes every few seconds as long as all is well, and no longer.

A worker or relay has one in CROCHET_HEALTH_DIR. `crochet health` reads them: a service is well when its file is
fresh. Why one is not written any more its last words say.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crochet_tasks.errors import InvalidSetting
from crochet_tasks.net import host_port
from crochet_tasks.settings import Settings

EVERY_SECONDS = 2.0
STALE_SECONDS = 20.0
"""after which a service that has not said that it is well is not"""
ANSWER_SECONDS = 5.0


def folder(settings: Settings) -> Path:
    """Where the files are; raises InvalidSetting where the default place is somebody else's."""
    if settings.health_dir is not None:
        return settings.health_dir
    found = Path(tempfile.gettempdir()) / f"crochet-health-{os.getuid()}"
    with contextlib.suppress(FileNotFoundError):
        about = found.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            raise InvalidSetting(variable="CROCHET_HEALTH_DIR", problem=f"is not set, and {found} is somebody else's")
    return found


def free_name(settings: Settings, name: str) -> str:
    """`name`, or `name-2`, ... where running processes of this machine have it; taken until this process ends.

    Two workers of the same name would answer each other's remote control commands. Where nothing can be written, the
    name gets the pid instead.
    """
    number = 1
    try:
        folder(settings).mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            free = name if number == 1 else f"{name}-{number}"
            lock = os.open(folder(settings) / f"{free}.name", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process alone: not inherited by its children
            except BlockingIOError:
                os.close(lock)
                number += 1
            else:
                return free
    except OSError:
        return f"{name}-{os.getpid()}"


class Beat:
    """One service's file; gone when the service ends in order."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._path = folder(settings) / f"{service.replace('/', '_')}-{os.getpid()}.json"
        self._about = {"service": service, "pid": os.getpid(), "started": _started(os.getpid())}
        self._well = time.time()
        look(settings)  # takes away what killed ones have left

    def well(self) -> None:
        self._well = time.time()
        self._write(None)

    def unwell(self, why: str) -> None:
        """Say what is wrong; if nothing better comes, the service counts as unhealthy after STALE_SECONDS."""
        self._write(why)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, why: str | None) -> None:
        """All of it or nothing; a full disk is no reason for the service to fail, but for its file to get old."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps({**self._about, "well": self._well, "problem": why}))
            new.replace(self._path)


class Seen(NamedTuple):
    """A service; `problem` is None where it is well, `pid` where it is not asked for."""

    service: str
    pid: int | None
    problem: str | None


def look(settings: Settings, service: str | None = None) -> list[Seen]:
    """The services that have left word here and still run. Files of those that were killed are taken away."""
    found = list(_read(folder(settings)))
    found.sort(key=lambda seen: (seen.service, seen.pid or 0))
    return [seen for seen in found if service is None or service in (seen.service, _kind(seen.service))]


def ask_api(settings: Settings) -> Seen:
    """Whether the API answers, where it listens."""
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104 - not to listen
    try:
        answer = httpx.get(f"http://{host_port(host, settings.api_port)}/health/live", timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return Seen("api", None, f"it does not answer: {error}")
    return Seen("api", None, None if answer.is_success else f"it answers {answer.status_code}")


def _kind(service: str) -> str:
    """worker[search] is a worker."""
    return service.partition("[")[0]


def _read(place: Path) -> Iterator[Seen]:
    for path in place.glob("*.json"):
        try:
            said = json.loads(path.read_text())
            pid, well, problem = int(said["pid"]), float(said["well"]), said["problem"]
            service, started = str(said["service"]), said.get("started")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if not _runs(pid) or (started is not None and started != _started(pid)):  # or its number is another's now
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        silent = time.time() - well
        late = abs(silent) > STALE_SECONDS  # what lies ahead was said before the clock was set back
        since = f"for {silent:.0f} s" if silent >= 0 else "since before the clock was set back"
        words = f"{problem or 'it says nothing any more'}, {since}"
        yield Seen(service, pid, words if late else None)


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the start of the machine, which no setting of a clock changes.

    None where the system does not say so in /proc.
    """
    try:
        about = Path(f"/proc/{pid}/stat").read_text()
        return int(about.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
