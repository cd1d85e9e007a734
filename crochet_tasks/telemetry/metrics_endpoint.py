"""Answer Prometheus: one HTTP endpoint per service, prometheus_client's own, in a thread of its first process.

Workers and relays answer probes there, too, at /health/live and /health/ready.

Every process of the service records into files of one folder in memory (instruments.py), so what a process counted
before it was killed is kept. The files of ended processes are added up into one file per type: the folder does not
grow, and no counter falls while the service lives.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crochet_tasks.errors import InvalidSetting
from crochet_tasks.net import host_port
from crochet_tasks.settings import Settings, version
from crochet_tasks.telemetry import instruments
from crochet_tasks.telemetry.instruments import FAILURES, Metric

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client.core import Metric as Family

log = logging.getLogger(__name__)

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
"""where writing to a mapped file costs no disk anything; where it is missing, the temporary folder has to do"""
FOLDER = "crochet-metrics-"
"""how a service's folder begins; the service's pid comes next"""
LEAST_BYTES = 16 << 20
"""room without which nothing is recorded: to write into a mapped file for which there is none kills the process"""
OF_ENDED = "0"
"""what stands for the pid in the files that hold what ended processes had counted"""

Health = Callable[[str], tuple[bool, dict[str, str]] | None]
"""by a path: whether the service is well, and a document that says so; None: there is nothing at this path"""


def start(kind: str, service: str, settings: Settings, health: Health | None = None) -> None:
    """Record metrics from now on and serve them, where CROCHET_METRICS_PORT is set; and `health` under /health/.

    Call it in the service's first process, before it forks. `kind`: one of metrics.ALL; `service`: its name. Raises
    InvalidSetting where nothing can listen on the port. Without room for the files the service has no metrics.
    """
    port = settings.metrics_port
    if port is None:
        return
    from prometheus_client import CollectorRegistry, start_http_server

    from crochet_tasks.telemetry import metrics  # noqa: F401 - declares what begins at 0; the API has not imported it yet

    try:
        folder = _folder()
    except OSError as error:
        log.warning("metrics_not_recorded", extra={"error": str(error)})
        return
    files, registry = Files(folder), CollectorRegistry()
    registry.register(files)
    registry.register(Processes(os.getpid(), service, settings.state_dir))
    address = host_port(settings.metrics_host, port)
    try:
        server, _ = start_http_server(port, settings.metrics_host, registry)
    except (OSError, UnicodeError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise InvalidSetting(
            variable="CROCHET_METRICS_PORT", problem=f"cannot listen on {address}: {reason}"
        ) from error
    server.set_app(_with_health(server.get_app(), health))  # type: ignore[arg-type]
    # A child must not hold the port of a service that was killed. One that is forked most often replaces a dead one.
    os.register_at_fork(after_in_child=server.socket.close, after_in_parent=files.merge_ended)
    instruments.begin(folder, kind)
    log.info("metrics_served", extra={"address": f"http://{address}/metrics"})


def _with_health(scraped: WSGIApplication, health: Health | None) -> WSGIApplication:
    """What answers probes under /health/, and scrapers elsewhere."""

    def answer(environ: WSGIEnvironment, begin: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if not path.startswith("/health/"):
            return scraped(environ, begin)
        found = None if health is None else health(path)
        well, document = found or (False, {"problem": "nothing here: the API answers probes on CROCHET_API_PORT"})
        status = "404 Not Found" if found is None else "200 OK" if well else "503 Service Unavailable"
        begin(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
        return [json.dumps(document).encode()]

    return answer


# ── the folder ──────────────────────────────────────────────────────────────────────────────────


def _folder() -> Path:
    """Make the service's folder, locked while a process of the service lives. Remove those of killed services."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    sweep(place)
    if shutil.disk_usage(place).free < LEAST_BYTES:
        raise OSError(f"less than {LEAST_BYTES >> 20} MB are free in {place}")
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=place))
    lock(folder)  # never closed: forked processes have it, too, and the last one that ends unlocks it
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    return folder


def sweep(place: Path) -> None:
    """Remove our user's folders whose processes have all ended; a pid alone says little across containers."""
    for folder in place.glob(f"{FOLDER}*"):
        pid = folder.name.removeprefix(FOLDER).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdecimal() and folder.lstat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                locked = lock(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(locked)


def lock(folder: Path) -> int:
    """Lock a folder; raises OSError where another process has it locked."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


class Files:
    """A collector of what all processes of the service have recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._owner, self._lock = folder, os.getpid(), threading.Lock()

    def collect(self) -> Iterable[Family]:
        with self._lock:
            self._merge_ended()
            files = sorted(map(str, self._folder.glob("*.db")))
            try:
                return _read(files)
            except FAILURES:  # a file that is being created, or damaged: return the others
                return _read([file for file in files if _readable(file)])

    def merge_ended(self) -> None:
        """Add up the files of ended processes; in the service's first process only."""
        if os.getpid() == self._owner and self._folder.exists():
            with self._lock:
                self._merge_ended()

    def _merge_ended(self) -> None:
        import psutil

        for path in self._folder.glob("*_*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if pid.isdecimal() and pid != OF_ENDED and not psutil.pid_exists(int(pid)):
                with contextlib.suppress(*FAILURES):
                    if not kind.startswith("gauge"):
                        _add_up(path, self._folder / f"{kind}_{OF_ENDED}.db")
                path.unlink(missing_ok=True)


def _add_up(path: Path, into: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict

    counted = {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(str(path))}  # type: ignore[no-untyped-call]
    total = MmapedDict(str(into))  # type: ignore[no-untyped-call]
    try:
        for key, value in counted.items():
            total.write_value(key, total.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    finally:
        total.close()  # type: ignore[no-untyped-call]


def _read(files: list[str]) -> list[Family]:
    from prometheus_client.multiprocess import MultiProcessCollector

    return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]


def _readable(file: str) -> bool:
    try:
        _read([file])
    except FAILURES:
        return False
    return True


# ── resources of processes ─────────────────────────────────────────────────────────────────────


class Processes:
    """A collector of what the processes of the service use, and of the disk."""

    def __init__(self, pid: int, service: str, disk: Path) -> None:
        self._pid, self._about = pid, (service, version())
        self._disk = next(path for path in (disk.absolute(), *disk.absolute().parents) if path.exists())
        self._cpu: dict[str, float] = {}

    def collect(self) -> Iterator[Family]:
        import psutil

        from crochet_tasks.telemetry import metrics

        main = psutil.Process(self._pid)
        own, ended = _cpu_seconds(main)
        used = {"main": Counter(_used(main)), "children": Counter[str]()}
        cpu = {"main": own, "children": ended}
        for child in main.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                used["children"] += Counter(_used(child))
                cpu["children"] += _cpu_seconds(child)[0]
        # A child that ends during the read is in neither sum for a moment; a counter must not fall.
        self._cpu = {role: max(seconds, self._cpu.get(role, 0.0)) for role, seconds in cpu.items()}
        yield _family(metrics.SERVICE, {self._about: 1.0})
        yield _family(metrics.CPU, {(role,): seconds for role, seconds in self._cpu.items()})
        for metric in (metrics.MEMORY, metrics.FILES, metrics.PROCESSES, metrics.THREADS):
            yield _family(metric, {(role,): float(numbers[metric.name]) for role, numbers in used.items()})
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(self._disk)
            yield _family(metrics.DISK_FREE, {(): float(disk.free)})
            yield _family(metrics.DISK_SIZE, {(): float(disk.total)})


def _used(process: Any) -> dict[str, int]:
    from crochet_tasks.telemetry import metrics

    with process.oneshot():
        return {
            metrics.MEMORY.name: process.memory_info().rss,
            metrics.FILES.name: process.num_fds(),
            metrics.THREADS.name: process.num_threads(),
            metrics.PROCESSES.name: 1,
        }


def _cpu_seconds(process: Any) -> tuple[float, float]:
    """CPU seconds of a process itself, and of its children that have ended."""
    times = process.cpu_times()
    return times.user + times.system, times.children_user + times.children_system


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = made(metric.name, metric.says, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
