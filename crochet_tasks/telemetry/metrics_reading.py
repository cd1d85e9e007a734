"""What a service's processes have recorded, put together, and what can be seen of them from outside."""

from __future__ import annotations

import contextlib
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from crochet_tasks.settings import version
from crochet_tasks.telemetry.instruments import Declared
from crochet_tasks.telemetry.metrics import MEASURED
from crochet_tasks.telemetry.metrics_files import Reserved

ROLES = ("main", "children", "exporter")

_UNREADABLE = (OSError, ValueError, RuntimeError, LookupError, TypeError, struct.error)
"""what the library raises of a file that has just been made, is spoilt or gone"""


class Reading:
    """Reads the files of a folder. A process that has ended leaves what it counted, not what it held."""

    def __init__(self, folder: Path, parent: int, service: str, disk: Path) -> None:
        self.parent, self.version = parent, version()
        self._folder, self._service = folder, service
        self._disk = next(path for path in (disk.absolute(), *disk.absolute().parents) if path.exists())
        self._lock = threading.Lock()
        self._processor = _Processor()

    def collect(self) -> Iterable[Metric]:
        """All metrics, as prometheus_client's encoders ask for them."""
        return self.families()

    def families(self, *, ended: bool = False) -> list[Metric]:
        """`ended`: the service has, so nothing is to be seen of it from outside."""
        with self._lock:
            self._bury()
            return [*_merged(sorted(map(str, self._folder.glob("*.db")))), *([] if ended else self._measured())]

    def _bury(self) -> None:
        """Put what processes that have ended had counted into one file, and take theirs away."""
        for path in self._folder.glob("*_*.db"):
            kind, _, pid = path.stem.rpartition("_")
            if not pid.isdecimal() or pid == "0" or psutil.pid_exists(int(pid)):
                continue
            with contextlib.suppress(*_UNREADABLE):  # no memory for it just now: until there is it is read where it is
                if not kind.startswith("gauge"):
                    self._keep(kind, path)
                path.unlink()

    def _keep(self, kind: str, path: Path) -> None:
        try:
            entries = Reserved.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
            counted = {key: value for key, value, *_ in entries}
        except OSError:
            raise
        except _UNREADABLE:
            return  # nor will it ever be readable: its process is dead
        kept = Reserved(str(self._folder / f"{kind}_0.db"))
        try:
            # All room first, which may fail; then the sums, which cannot: so nothing is added twice.
            sums = {key: kept.read_value(key)[0] + value for key, value in counted.items()}  # type: ignore[no-untyped-call]
            for key, value in sums.items():
                kept.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        finally:
            kept.close()  # type: ignore[no-untyped-call]

    # ── from outside ────────────────────────────────────────────────────────────────────────────

    def _measured(self) -> Iterator[Metric]:
        yield _metric(MEASURED.service, [((self._service, self.version), 1.0)])
        by_role = _processes(self.parent)
        held: dict[str, Counter[str]] = {role: Counter() for role in ROLES}
        for role, processes in by_role.items():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
                    held[role] += Counter(
                        memory=process.memory_info().rss,
                        files=process.num_fds(),
                        threads=process.num_threads(),
                        processes=1,
                    )
        for name in ("memory", "files", "threads", "processes"):
            yield _metric(getattr(MEASURED, name), [((role,), float(held[role][name])) for role in ROLES])
        yield _metric(MEASURED.cpu, [((role,), seconds) for role, seconds in self._processor.used(by_role).items()])
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(self._disk)
            yield _metric(MEASURED.disk_free, [((), float(disk.free))])
            yield _metric(MEASURED.disk_size, [((), float(disk.total))])


def _merged(files: list[str]) -> list[Metric]:
    """What is in these files; those that cannot be read are left out."""
    try:
        return _read(files)
    except _UNREADABLE:
        return _read([file for file in files if _readable(file)])


def _read(files: list[str]) -> list[Metric]:
    return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]


def _readable(file: str) -> bool:
    try:
        _read([file])
    except _UNREADABLE:
        return False
    return True


class _Processor:
    """CPU time of processes, which never falls: that of those which have ended stays in the sum, as last seen."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}
        self._total = dict.fromkeys(ROLES, 0.0)

    def used(self, by_role: Mapping[str, list[psutil.Process]]) -> dict[str, float]:
        now: dict[tuple[int, float], float] = {}
        for role, processes in by_role.items():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    times = process.cpu_times()
                    which = (process.pid, process.create_time())
                    now[which] = times.user + times.system
                    self._total[role] += max(0.0, now[which] - self._seen.get(which, 0.0))
        self._seen = now
        return dict(self._total)


def _processes(parent: int) -> dict[str, list[psutil.Process]]:
    own = psutil.Process()
    keeper = own.ppid()
    try:
        main = psutil.Process(parent)
        others = [child for child in main.children(recursive=True) if child.pid != own.pid]
    except psutil.NoSuchProcess:
        return {"exporter": [own]}
    return {
        "main": [main],
        "children": [child for child in others if child.pid != keeper],
        "exporter": [own, *(child for child in others if child.pid == keeper)],
    }


def _metric(declared: Declared, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    name = declared.name.removesuffix("_total") if declared.kind == "counter" else declared.name
    made = Metric(name, declared.says, declared.kind)
    for labels, value in values:
        made.add_sample(declared.name, dict(zip(declared.labels, labels, strict=True)), value)
    return made
