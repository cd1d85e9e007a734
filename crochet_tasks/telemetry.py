"""What a process says about itself. One set-up for API, workers, relay and command line.

    logs(...)     its log, at the start
    begin(...)    traces and profiles, in the process that does the work: after any fork
    end()         the last of them is sent, or given up

All that is optional: what has no address is off, and its libraries are not even loaded. Whoever does something says so
with `doing`, `span` and `failed`, whether anybody listens or not. What caused it is kept in origin.py.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from structlog.contextvars import bound_contextvars

from crochet_tasks.settings import Settings

if TYPE_CHECKING:
    from crochet_tasks.profiles import Profiles
    from crochet_tasks.tracing import Tracing

END_SECONDS = 4.0
"""that a process waits at its end for collectors to take what is left"""

_SECRETS = (
    (re.compile(r"(?<=://)([^\s:/@]*):([^\s/@]+)@"), r"\1:***@"),  # passwords in addresses
    (re.compile(r"\b(crk_[a-z2-7]{10})_[\w-]{43}"), r"\1_***"),  # API keys
    (re.compile(r"\bcrr_[\w-]{20,}"), "crr_***"),  # refresh tokens
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "***"),  # access tokens
)


def logs(service: str, settings: Settings) -> None:
    """Send every log line of this process to standard error, those of libraries too.

    For people in a terminal and in development, else as a JSON object per line. What is bound (`doing`) is in each
    line, passwords in addresses, keys and tokens are in none.
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
        _masked,
    ]
    render: Any = _line if for_people else structlog.processors.JSONRenderer()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render]
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


_running = _Running(None, None)  # of this process, made after fork


def load(settings: Settings) -> None:
    """Load what `begin` needs, and start nothing: for a process that forks those that do the work."""
    if settings.otlp_url is not None:
        import crochet_tasks.tracing  # noqa: F401 - that is all


def begin(service: str, settings: Settings, queues: Sequence[str] = ()) -> None:
    """Trace and profile this process from now on, where the settings say where to; a second time changes nothing.

    `queues` are those that a worker takes from. Never before a fork: threads do not survive it. A collector that is
    away, or hangs, costs what there was to tell.
    """
    global _running  # noqa: PLW0603 - a process has one set of them, made after fork
    if _running != (None, None):
        return
    tracing = profiles = None
    if settings.otlp_url is not None:
        from crochet_tasks.tracing import Tracing

        tracing = Tracing(service, settings, queues)
    if settings.pyroscope_url is not None:
        from crochet_tasks.profiles import Profiles

        profiles = Profiles(service, settings.pyroscope_url.get_secret_value(), settings.profile_rate, queues)
    _running = _Running(tracing, profiles)


def end() -> None:
    """Send what is left, in END_SECONDS at the most."""
    global _running
    ended, _running = _running, _Running(None, None)
    ends = [threading.Thread(target=part.stop, name="telemetry-end", daemon=True) for part in ended if part is not None]
    for thread in ends:
        thread.start()
    until = time.monotonic() + END_SECONDS
    for thread in ends:
        thread.join(max(0.0, until - time.monotonic()))


def instrument(app: Any) -> None:
    """Trace the requests of a Flask application, where this process is traced; before any hook of its own."""
    if _running.tracing is not None:
        _running.tracing.instrument(app)


class Noted:
    """A part of the work, while it is done: what is set here is told of it."""

    def set(self, **attributes: object) -> None:
        """Nobody listens."""


_NOBODY = Noted()


@contextlib.contextmanager
def span(name: str, **attributes: Any) -> Iterator[Noted]:
    """Have what is done within told as a part of the trace."""
    if _running.tracing is None:
        yield _NOBODY
    else:
        with _running.tracing.span(name, attributes) as noted:
            yield noted


@contextlib.contextmanager
def statement(query: str) -> Iterator[None]:
    """The same for an SQL statement that the driver's instrumentation does not see. Generators may use it."""
    if _running.tracing is None:
        yield
    else:
        with _running.tracing.statement(query):
            yield


@contextlib.contextmanager
def publishing(name: str, parent: str | None, links: Sequence[str]) -> Iterator[None]:
    """The same for a message, of another trace than the current one; parent and links are traceparents."""
    if _running.tracing is None:
        yield
    else:
        with _running.tracing.publishing(name, parent, links):
            yield


def traceparent() -> str | None:
    """Of the current part of a trace; None where this process is not traced."""
    return None if _running.tracing is None else _running.tracing.traceparent()


def failed(error: BaseException) -> None:
    """What is being done has failed: its trace is kept."""
    if _running.tracing is not None:
        _running.tracing.failed(error)


def not_sent(task: Any, message: str) -> None:
    """A task's message was not taken by the broker; Celery's instrumentation does not hear of that."""
    if _running.tracing is not None:
        _running.tracing.not_sent(task, message)


def profiled(**tags: str | None) -> AbstractContextManager[None]:
    """Profiles of this thread say this, too, as long as it lasts."""
    return contextlib.nullcontext() if _running.profiles is None else _running.profiles.tagged(tags)


# ── log lines ───────────────────────────────────────────────────────────────────────────────────

Event = MutableMapping[str, Any]


def _with_service(service: str) -> Any:
    def add(_logger: object, _name: str, event: Event) -> Event:
        event["service"] = service
        return event

    return add


def _masked(_logger: object, _name: str, event: Event) -> Event:
    """Secrets are nobody's business, wherever in the line they are."""
    for key, value in event.items():
        event[key] = masked(value)
    return event


def masked(value: Any) -> Any:
    """The same without the secrets in it, as far as they can be told from other words."""
    if isinstance(value, str):
        for pattern, mask in _SECRETS:
            value = pattern.sub(mask, value)
        return value
    if isinstance(value, dict):
        return {key: masked(part) for key, part in value.items()}
    return [masked(part) for part in value] if isinstance(value, list | tuple) else value


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
