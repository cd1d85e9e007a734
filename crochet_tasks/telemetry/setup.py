"""What a process says about itself. One set-up for API, workers, relay and command line.

    logs(...)     its log, at the start
    begin(...)    traces and profiles, in the process that does the work: after any fork
    end()         the last of them is sent, or given up
    told(...)     from the one to the other

All that is optional: what has no address is off, and its libraries are not even loaded. Whoever does something says so
with `doing`, `span` and `failed`, whether anybody listens or not. What caused it is kept in origin.py. An error of
traces or profiles is logged, whatever it is, and what was to be done is done without them.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import structlog
from structlog.contextvars import bound_contextvars

from crochet_tasks.settings import Settings
from crochet_tasks.telemetry.masking import masked

if TYPE_CHECKING:
    from crochet_tasks.telemetry.profiles import Profiles
    from crochet_tasks.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

END_SECONDS = 4.0
"""that a process waits at its end for collectors to take what is left"""


def logs(service: str, settings: Settings) -> None:
    """Send every log line of this process to standard error, those of libraries too.

    For people in a terminal and in development, else as a JSON object per line, in which `event` is a fixed name: ours,
    or `library`, with what that says as `message`. What is bound (`doing`) is in each line, passwords in addresses,
    keys and tokens are in none.
    """
    for_people = settings.log_format == "console" or (
        settings.log_format == "auto" and (sys.stderr.isatty() or settings.environment == "development")
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_service(service),
        structlog.processors.format_exc_info,
    ]
    render: list[Any] = [_line] if for_people else [_named_event, structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _masked, *render],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    for noisy in ("amqp", "kombu", "celery.worker.strategy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # That a task is done the task itself says, with what it was about; failures are said here, too.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    # It warns of every queue that delays do not work on it; none are used (retries.py).
    logging.getLogger("kombu.transport.native_delayed_delivery").setLevel(logging.ERROR)


def doing(**what: object) -> AbstractContextManager[None]:
    """Every log line within says this, too: which task, corpus and work it is about."""
    return bound_contextvars(**{name: str(value) for name, value in what.items()})


# ── traces and profiles ─────────────────────────────────────────────────────────────────────────


class _Running(NamedTuple):
    tracing: Tracing | None
    profiles: Profiles | None


_OFF = _Running(None, None)
_running = _OFF  # of this process, made after fork


def load(settings: Settings) -> None:
    """Load what `begin` needs, and start nothing: for a process that forks those that do the work."""
    if settings.otlp_url is not None:
        with contextlib.suppress(Exception):  # `begin` meets it again, and says so
            import crochet_tasks.telemetry.tracing  # noqa: F401 - that is all


def begin(service: str, settings: Settings, queues: Sequence[str] = ()) -> None:
    """Trace and profile this process from now on, where the settings say where to; a second time changes nothing.

    `queues` are those that a worker takes from. Never before a fork: threads do not survive it. A collector that is
    away, or hangs, costs what there was to tell; so does what cannot be begun, as with
    an OTEL_* variable that the libraries do not take.
    """
    global _running  # noqa: PLW0603 - a process has one set of them, made after fork
    if _running != _OFF:
        return
    tracing = _begun("traces", lambda: _tracing(service, settings, queues))
    _running = _Running(tracing, _begun("profiles", lambda: _profiles(service, settings, queues)))


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


_T = TypeVar("_T")


def _begun(part: str, begin_it: Callable[[], _T | None]) -> _T | None:
    try:
        return begin_it()
    except Exception:  # whatever the libraries raise: the work is more than what is told of it
        log.exception("telemetry_not_begun", extra={"part": part})
        return None


def end() -> None:
    """Send what is left, in END_SECONDS at the most."""
    global _running
    ended, _running = _running, _OFF
    ends = [
        threading.Thread(target=_tried, args=("end", part.stop, None), name="telemetry-end", daemon=True)
        for part in ended
        if part is not None
    ]
    for thread in ends:
        thread.start()
    until = time.monotonic() + END_SECONDS
    for thread in ends:
        thread.join(max(0.0, until - time.monotonic()))


@contextlib.contextmanager
def told(service: str, settings: Settings) -> Iterator[None]:
    """From `begin` to `end`."""
    begin(service, settings)
    try:
        yield
    finally:
        end()


def instrument(app: Any) -> None:
    """Trace the requests of a Flask application, where this process is traced; before any hook of its own."""
    if _running.tracing is not None:
        tracing = _running.tracing
        _tried("instrument", lambda: tracing.instrument(app), None)


class Noted:
    """A part of the work, while it is done: what is set here is told of it."""

    def set(self, **attributes: object) -> None:
        """Nobody listens."""


_NOBODY = Noted()


def span(name: str, **attributes: Any) -> AbstractContextManager[Noted]:
    """Have what is done within told as a part of the trace."""
    tracing = _running.tracing
    if tracing is None:
        return contextlib.nullcontext(_NOBODY)
    return _Harmless("span", lambda: tracing.span(name, attributes), _NOBODY)


def statement(query: str) -> AbstractContextManager[None]:
    """The same for an SQL statement that the driver's instrumentation does not see. Generators may use it."""
    tracing = _running.tracing
    return contextlib.nullcontext() if tracing is None else _Harmless("span", lambda: tracing.statement(query), None)


def tells_statements() -> bool:
    """Whether statements of what is done now are told. Where not, they need not pass the driver's instrumentation."""
    tracing = _running.tracing
    return tracing is not None and _tried("statements", tracing.tells_statements, otherwise=False)


def publishing(name: str, parent: str | None, links: Sequence[str]) -> AbstractContextManager[None]:
    """The same for a message, of another trace than the current one; parent and links are traceparents."""
    tracing = _running.tracing
    if tracing is None:
        return contextlib.nullcontext()
    return _Harmless("span", lambda: tracing.publishing(name, parent, links), None)


def traceparent() -> str | None:
    """Of the current part of a trace; None where this process is not traced."""
    return None if _running.tracing is None else _tried("traceparent", _running.tracing.traceparent, None)


def failed(error: BaseException) -> None:
    """What is being done has failed: its trace is kept."""
    tracing = _running.tracing
    if tracing is not None:
        _tried("failed", lambda: tracing.failed(error), None)


def not_sent(task: Any, message: str) -> None:
    """A task's message was not taken by the broker; Celery's instrumentation does not hear of that."""
    tracing = _running.tracing
    if tracing is not None:
        _tried("not_sent", lambda: tracing.not_sent(task, message), None)


def profiled(**tags: str | None) -> AbstractContextManager[None]:
    """Profiles of this thread say this, too, as long as it lasts."""
    profiles = _running.profiles
    return contextlib.nullcontext() if profiles is None else _Harmless("profiled", lambda: profiles.tagged(tags), None)


def _tried(what: str, step: Callable[[], _T], otherwise: _T) -> _T:
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - as in _begun; said softly, as it may come with every statement
        log.debug("telemetry_failed", extra={"part": what, "error": repr(error)})
        return otherwise


class _Harmless(Generic[_T]):
    """Around what is done, the same whatever becomes of telemetry; an error from within goes through as it is."""

    def __init__(self, what: str, make: Callable[[], AbstractContextManager[_T]], otherwise: _T) -> None:
        self._what, self._make, self._otherwise = what, make, otherwise
        self._inner: AbstractContextManager[_T] | None = None

    def __enter__(self) -> _T:
        def enter() -> _T:
            inner = self._make()
            entered = inner.__enter__()
            self._inner = inner
            return entered

        return _tried(self._what, enter, self._otherwise)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        inner = self._inner
        if inner is not None:
            _tried(self._what, lambda: inner.__exit__(kind, error, traceback), None)


# ── log lines ───────────────────────────────────────────────────────────────────────────────────

Event = MutableMapping[str, Any]


def _with_service(service: str) -> Any:
    def add(_logger: object, _name: str, event: Event) -> Event:
        event["service"] = service
        return event

    return add


OURS = ("crochet_tasks.", "api.")
"""loggers whose events are names; others say sentences"""
OF_LIBRARY = "library"


def _named_event(_logger: object, _name: str, event: Event) -> Event:
    if not str(event["logger"]).startswith(OURS):
        event["message"], event["event"] = event["event"], OF_LIBRARY
    return event


def _masked(_logger: object, _name: str, event: Event) -> Event:
    """Secrets are nobody's business, wherever in the line they are."""
    said: Event = masked(event)
    return said


_SAID_FIRST = ("timestamp", "service", "level", "event", "logger", "exception")


def _line(_logger: object, _name: str, event: Event) -> str:
    """A line for people: when, who, how bad, what, and what it is about; a traceback below, indented.

    What others have given cannot look like a line of its own, nor do anything to the terminal.
    """
    about = " ".join(f"{key}={value}" for key, value in event.items() if key not in _SAID_FIRST)
    words = [event["timestamp"], event["service"], event["level"].upper(), str(event["event"]), about]
    lines = [" ".join(word for word in words if word)]
    lines += [f"  {line}" for line in str(event.get("exception") or "").split("\n") if line]
    return "\n".join(_CONTROL.sub(_escaped, line) for line in lines)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
