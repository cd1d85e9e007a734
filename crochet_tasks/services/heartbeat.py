"""Heartbeat files: a healthy worker or relay rewrites its file in CROCHET_HEALTH_DIR every few seconds.

`crochet health` reads them, and so does the service's own HTTP endpoint (`answer`): a service is healthy while its file
says so at a time less than STALE_SECONDS ago. An unhealthy service writes what is wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
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
"""after which a service without a heartbeat counts as unhealthy"""
ANSWER_SECONDS = 5.0


def folder(settings: Settings) -> Path:
    """Return the folder of the files; raises InvalidSetting where the default folder belongs to another user."""
    if settings.health_dir is not None:
        return settings.health_dir
    found = Path(tempfile.gettempdir()) / f"crochet-health-{os.getuid()}"
    with contextlib.suppress(FileNotFoundError):
        about = found.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            raise InvalidSetting(
                variable="CROCHET_HEALTH_DIR", problem=f"is not set, and {found} belongs to another user"
            )
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


class Heartbeat:
    """The file of one service; deleted when the service ends in order."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._path = folder(settings) / f"{service.replace('/', '_')}-{os.getpid()}.json"
        self._about = {"service": service, "pid": os.getpid(), "started": _started(os.getpid())}
        self._healthy_at = time.time()
        read(settings)  # deletes the files of killed services

    def healthy(self) -> None:
        self._healthy_at = time.time()
        self._write(None)

    def unhealthy(self, why: str) -> None:
        """Write what is wrong; unless `healthy` is called the service counts as unhealthy after STALE_SECONDS."""
        self._write(why)

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self, why: str | None) -> None:
        """Replace the file atomically. On a full disk the file gets stale; the service does not fail."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps({**self._about, "well": self._healthy_at, "problem": why}))
            new.replace(self._path)


class Health(NamedTuple):
    """The health of a service; `problem` is None where it is healthy, `pid` where it is unknown.

    `since`: seconds since it was healthy, as far as that is known. `doubt`: what its last check found, which is no
    problem before it has lasted for STALE_SECONDS.
    """

    service: str
    pid: int | None
    problem: str | None
    since: float = 0.0
    doubt: str | None = None


def read(settings: Settings, service: str | None = None) -> list[Health]:
    """Return the health of the services that run here. Deletes the files of killed services."""
    found = list(_read(folder(settings)))
    found.sort(key=lambda health: (health.service, health.pid or 0))
    return [health for health in found if service is None or service in (health.service, _kind(health.service))]


def answer(settings: Settings, path: str) -> tuple[bool, dict[str, str]] | None:
    """Whether this process' service is well, and in words, at /health/live or /health/ready; None at another path.

    Live: until `crochet health` says that it is not well. A service that begins or ends has no heartbeat, and is live.
    Ready: it has a heartbeat, and its last check found nothing wrong.
    """
    if path not in ("/health/live", "/health/ready"):
        return None
    own = next((health for health in read(settings) if health.pid == os.getpid()), None)
    if path == "/health/live":
        problem, well, unwell = None if own is None else own.problem, "live", "stuck"
    else:
        problem, well, unwell = "no heartbeat: it begins or ends", "ready", "away"
        if own is not None:
            problem = own.problem or own.doubt
    return (True, {"status": well}) if problem is None else (False, {"status": unwell, "problem": problem})


def check_api(settings: Settings) -> Health:
    """Request the API's /health/live at the address it listens on."""
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104 - not to listen
    try:
        answer = httpx.get(f"http://{host_port(host, settings.api_port)}/health/live", timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return Health("api", None, f"it does not answer: {error}")
    return Health("api", None, None if answer.is_success else f"it answers {answer.status_code}")


def kill_unhealthy(settings: Settings, found: list[Health], after: float) -> list[int]:
    """Kill what has been unhealthy for `after` seconds, for its supervisor to start it again; return the pids.

    The API writes no heartbeat: for it the first failed check counts, and those are killed that listen on its port.
    """
    killed = []
    for health in found:
        is_api = health.service == "api"
        since = _failing_for(settings, health) if is_api else health.since
        if health.problem and since >= after:
            pids = _listening(settings.api_port) if is_api else [health.pid] if health.pid else []
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
    return killed


def _failing_for(settings: Settings, health: Health) -> float:
    """Seconds since the first check in a row that failed; a file remembers it."""
    first = folder(settings) / f"{health.service}.failing"
    with contextlib.suppress(OSError):
        if health.problem is None:
            first.unlink(missing_ok=True)
            return 0.0
        first.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            first.touch(exist_ok=False)
        return time.time() - first.stat().st_mtime
    return 0.0


def _listening(port: int) -> list[int]:
    """The processes of this user that listen on a TCP port, and the `crochet api` that started them: where that hangs
    too, nobody replaces them.
    """
    import psutil

    open_ones = psutil.net_connections(kind="tcp")
    found = {one.pid for one in open_ones if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,)}
    pids = {pid for pid in found if pid is not None}
    for pid in [*pids]:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(pid).parent()
            if parent is not None and parent.exe() == psutil.Process(pid).exe() and "api" in parent.cmdline():
                pids.add(parent.pid)
    return sorted(pids)


def _kind(service: str) -> str:
    """Return the kind of a service: that of worker[search] is worker."""
    return service.partition("[")[0]


def _read(place: Path) -> Iterator[Health]:
    for path in place.glob("*.json"):
        try:
            record = json.loads(path.read_text())
            pid, healthy_at, problem = int(record["pid"]), float(record["well"]), record["problem"]
            service, started = str(record["service"]), record.get("started")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if not _runs(pid) or (started is not None and started != _started(pid)):  # its pid may be another process' now
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        silent = time.time() - healthy_at
        late = abs(silent) > STALE_SECONDS  # a time in the future was written before the clock was set back
        since = f"for {silent:.0f} s" if silent >= 0 else "since before the clock was set back"
        words = f"{problem or 'no heartbeat'}, {since}"
        yield Health(service, pid, words if late else None, abs(silent), None if problem is None else str(problem))


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
