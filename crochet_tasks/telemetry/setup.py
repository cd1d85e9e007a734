"""Traces, profiles, exported logs and error reports of a process: one set-up for API, workers, relay and command line.

    begin(...)    in the process that does the work, after any fork; end() sends what is left
    running(...)  from the one to the other
    span(...), annotate(...), failed(...)    what is done, whether it is traced or not

All of it is optional: without an address it is off, and its libraries are not loaded. What caused the work is kept in
correlation.py.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import instruments

if TYPE_CHECKING:
    from crochet_tasks.telemetry.error_reports import ErrorReports
    from crochet_tasks.telemetry.log_export import LogExport
    from crochet_tasks.telemetry.profiles import Profiles
    from crochet_tasks.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

END_SECONDS = 4.0
"""that a process waits at its end for collectors to take what is left"""


class _Running(NamedTuple):
    tracing: Tracing | None
    profiles: Profiles | None
    lines: LogExport | None
    errors: ErrorReports | None


_OFF = _Running(None, None, None, None)
_running = _OFF  # of this process, made after fork
_T = TypeVar("_T")


def load(settings: Settings) -> None:
    """Load what `begin` needs, and start nothing: for a process that forks those that do the work."""
    if settings.otlp_url is not None:
        with contextlib.suppress(Exception):  # `begin` raises it again, and logs it
            import crochet_tasks.telemetry.tracing  # noqa: F401 - that is all


def begin(service: str, settings: Settings, queues: Sequence[str] = ()) -> None:
    """Trace, profile and report this process from now on, as the settings say; a second call changes nothing.

    `queues`: those that a worker consumes. Never before a fork: threads do not survive it. A part that fails to
    start, as with an OTEL_* variable that a library refuses, is logged, and the process works without it.
    """
    global _running  # noqa: PLW0603 - a process has one set of them, made after fork
    if settings.metrics_port is not None:
        instruments.join(service)
    if _running != _OFF:
        return
    tracing = _begun("traces", lambda: _tracing(service, settings, queues))
    _running = _Running(
        tracing,
        _begun("profiles", lambda: _profiles(service, settings, queues)),
        _begun("logs", lambda: _lines(service, settings, queues)),
        _begun("errors", lambda: _errors(service, settings)),
    )


def _tracing(service: str, settings: Settings, queues: Sequence[str]) -> Tracing | None:
    if settings.otlp_url is None:
        return None
    from crochet_tasks.telemetry.tracing import Tracing

    return Tracing(service, settings, queues)


def _profiles(service: str, settings: Settings, queues: Sequence[str]) -> Profiles | None:
    if settings.pyroscope_url is None:
        return None
    from crochet_tasks.telemetry.profiles import Profiles

    return Profiles(service, settings.pyroscope_url.get_secret_value(), settings.profile_rate, queues)


def _lines(service: str, settings: Settings, queues: Sequence[str]) -> LogExport | None:
    if settings.otlp_url is None or not settings.otlp_logs:
        return None
    from crochet_tasks.telemetry.log_export import LogExport

    return LogExport(service, settings, queues)


def _errors(service: str, settings: Settings) -> ErrorReports | None:
    if settings.sentry_dsn is None:
        return None
    from crochet_tasks.telemetry.error_reports import ErrorReports

    return ErrorReports(service, settings)


def _begun(part: str, begin_it: Callable[[], _T | None]) -> _T | None:
    try:
        return begin_it()
    except Exception:  # whatever the libraries raise
        log.exception("telemetry_start_failed", extra={"part": part})
        return None


def end() -> None:
    """Send what is left, in END_SECONDS at the most."""
    global _running
    ended, _running = _running, _OFF
    ends = [
        threading.Thread(target=_stopped, args=(part,), name="telemetry-end", daemon=True)
        for part in ended
        if part is not None
    ]
    for thread in ends:
        thread.start()
    until = time.monotonic() + END_SECONDS
    for thread in ends:
        thread.join(max(0.0, until - time.monotonic()))


def _stopped(part: Tracing | Profiles | LogExport | ErrorReports) -> None:
    try:
        part.stop()
    except Exception as error:  # noqa: BLE001 - whatever the libraries raise
        log.debug("telemetry_failed", extra={"part": "end", "error": repr(error)})


@contextlib.contextmanager
def running(service: str, settings: Settings) -> Iterator[None]:
    """From `begin` to `end`."""
    begin(service, settings)
    try:
        yield
    finally:
        end()


def traced() -> bool:
    """Whether this process records traces."""
    return _running.tracing is not None


def instrument(app: Any) -> None:
    """Trace the requests of a Flask application, where this process is traced; before any hook of its own."""
    if _running.tracing is not None:
        _running.tracing.instrument(app)


def span(name: str, **attributes: Any) -> AbstractContextManager[object]:
    """Make what is done within a part of the trace."""
    tracing = _running.tracing
    return contextlib.nullcontext() if tracing is None else tracing.span(name, attributes)


def annotate(**attributes: Any) -> None:
    """Add attributes to the current part of the trace."""
    if _running.tracing is not None:
        _running.tracing.annotate(attributes)


def statement(query: object) -> AbstractContextManager[None]:
    """Make an SQL statement a part of the trace. Generators may use it."""
    tracing = _running.tracing
    return contextlib.nullcontext() if tracing is None else tracing.statement(query)


def publishing(name: str, parent: str | None, links: Sequence[str]) -> AbstractContextManager[None]:
    """Make sending a message a part of another trace than the current one; parent and links are traceparents."""
    tracing = _running.tracing
    return contextlib.nullcontext() if tracing is None else tracing.publishing(name, parent, links)


def traceparent() -> str | None:
    """The current part of a trace; None where this process is not traced."""
    return None if _running.tracing is None else _running.tracing.traceparent()


def failed(error: BaseException) -> None:
    """Mark the current part of the trace as failed."""
    if _running.tracing is not None:
        _running.tracing.failed(error)


def not_sent(task: Any, message: str) -> None:
    """The broker did not take a task's message; Celery's instrumentation does not notice."""
    if _running.tracing is not None:
        _running.tracing.not_sent(task, message)


def profiled(**tags: str | None) -> AbstractContextManager[None]:
    """Tag the profiles of this thread for as long as it lasts."""
    profiles = _running.profiles
    return contextlib.nullcontext() if profiles is None else profiles.tagged(tags)


# ── results of a task ───────────────────────────────────────────────────────────────────────────

_results: ContextVar[dict[str, int] | None] = ContextVar("crochet_results", default=None)


@contextlib.contextmanager
def results() -> Iterator[dict[str, int]]:
    """Collect what the code within reports with `result`."""
    collected: dict[str, int] = {}
    token = _results.set(collected)
    try:
        yield collected
    finally:
        _results.reset(token)


def result(**numbers: int) -> None:
    """Report numbers of a task, for its line in the log and its part of the trace; the same name adds up."""
    collected = _results.get()
    if collected is not None:
        for name, number in numbers.items():
            collected[name] = collected.get(name, 0) + number
    annotate(**numbers)
