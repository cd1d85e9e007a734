"""The log of a process: one line per event on standard error, a JSON object or a line for people.

Keys come in one order: when, how bad, what, why, the numbers, then which task and work it is about. Libraries log
through it, too, and in the JSON form so does whatever is printed to standard error: every line is a JSON object.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any, TextIO, cast

import structlog
from structlog.contextvars import bound_contextvars

from crochet_tasks.settings import Settings
from crochet_tasks.telemetry.masking import masked, plain

log = logging.getLogger(__name__)

Event = MutableMapping[str, Any]

FIRST = ("timestamp", "level", "event", "message", "service", "code", "error", "reason", "why")
"""keys that a line begins with, where it has them"""
LAST = (
    *("task", "corpus", "kind", "text", "version", "shape", "batch", "attempt", "items", "work"),
    *("request", "requests", "trace", "message_id", "worker", "key", "logger", "exception"),
)
"""keys that a line ends with: what it is about"""
OURS = ("crochet_tasks.", "api.")
"""loggers whose events are names; others log sentences"""
OF_LIBRARY = "library"
PRINTED = "stderr"
"""logger of what is printed to standard error"""


def logs(service: str, settings: Settings) -> None:
    """Send every log line of this process to standard error, those of libraries too.

    Readable lines in a terminal and in development, else one JSON object per line. Its `event` is a fixed name: ours or
    `library`, with the library's text as `message`. Fields of `log_context` are in each line; secrets are masked.
    """
    stream = cast("TextIO", getattr(sys.stderr, "stream", sys.stderr))
    for_people = settings.log_format == "console" or (
        settings.log_format == "auto" and (stream.isatty() or settings.environment == "development")
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
    render: list[Any] = (
        [_ordered, line_for_people] if for_people else [_named_event, _ordered, structlog.processors.JSONRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _masked, *render],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(_lost_connection_in_one_line)
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    for noisy in ("amqp", "kombu", "celery.worker.strategy"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # app.py logs the end of tasks and their errors.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    # It warns of every queue that delays do not work on it; none are used.
    logging.getLogger("kombu.transport.native_delayed_delivery").setLevel(logging.ERROR)
    of_pool = logging.getLogger("multiprocessing")  # billiard's, which does not hand its lines on
    of_pool.handlers, of_pool.propagate = [handler], False
    logging.captureWarnings(capture=True)
    if not for_people:
        _log_what_is_printed(stream)


def log_context(**fields: object) -> AbstractContextManager[None]:
    """Add these fields to every log line within: task, corpus, work."""
    return bound_contextvars(**{name: plain(value) for name, value in fields.items()})


# ── what does not come through a logger ─────────────────────────────────────────────────────────


class Printed:
    """Stands for standard error: each line that is printed to it is logged."""

    logs = True

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._rest = ""
        self._logging = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if getattr(self._logging, "now", False):  # an error of logging itself
            return self.stream.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        self._log(lines)
        return len(text)

    def flush(self) -> None:
        rest, self._rest = self._rest, ""
        self._log([rest])
        self.stream.flush()

    def _log(self, lines: list[str]) -> None:
        self._logging.now = True
        try:
            for line in filter(str.strip, lines):
                logging.getLogger(PRINTED).warning("%s", line)
        finally:
            self._logging.now = False


def _log_what_is_printed(stream: TextIO) -> None:
    """Log what Python and libraries print, and what ends a process or thread, as one event."""
    printed = Printed(stream)
    for name in ("stderr", "__stderr__"):
        setattr(sys, name, printed)
    sys.excepthook = lambda kind, error, traceback: log.critical("crashed", exc_info=(kind, error, traceback))
    threading.excepthook = lambda about: log.error(
        "thread_crashed", exc_info=about.exc_value, extra={"name_of_thread": about.thread and about.thread.name}
    )
    sys.unraisablehook = lambda about: log.error("error_ignored", exc_info=about.exc_value)


LIBRARIES = ("celery", "kombu", "amqp", "redis", "flower", "tornado", "multiprocessing")
_OF_CONNECTIONS = {"ConnectionError", "RecoverableConnectionError", "OperationalError", "RestartFreqExceeded"}


def _lost_connection_in_one_line(record: logging.LogRecord) -> bool:
    """A broker or Redis that restarts is a warning without a traceback: the library connects again."""
    if record.levelno >= logging.WARNING and record.name.partition(".")[0] in LIBRARIES:
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = [record.exc_info[1] if record.exc_info else None, *arguments]
        if any(isinstance(error, BaseException) and _is_of_connection(error) for error in errors):
            record.msg, record.args = " ".join(record.getMessage().split()), ()
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def _is_of_connection(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return any(
        each.__name__ in _OF_CONNECTIONS
        and each.__module__.partition(".")[0] in ("amqp", "kombu", "redis", "celery", "billiard")
        for each in type(error).__mro__
    )


# ── log lines ───────────────────────────────────────────────────────────────────────────────────


def _with_service(service: str) -> Any:
    def add(_logger: object, _name: str, event: Event) -> Event:
        event["service"] = service
        return event

    return add


def _named_event(_logger: object, _name: str, event: Event) -> Event:
    if not str(event["logger"]).startswith(OURS):
        event["message"], event["event"] = event["event"], OF_LIBRARY
    return event


def _masked(_logger: object, _name: str, event: Event) -> Event:
    """Mask secrets, wherever in the line they are."""
    found: Event = masked(event)
    return found


def _ordered(_logger: object, _name: str, event: Event) -> Event:
    between = [name for name in event if name not in FIRST and name not in LAST]
    return {name: event[name] for name in (*FIRST, *between, *LAST) if name in event}


_SHOWN = ("timestamp", "service", "level", "event", "logger", "exception")


def line_for_people(_logger: object, _name: str, event: Event) -> str:
    """A line for people: when, who, how bad, what, and what it is about; a traceback below, indented.

    Control characters are escaped: input cannot forge a line or control the terminal.
    """
    about = " ".join(f"{key}={value}" for key, value in event.items() if key not in _SHOWN)
    words = [event["timestamp"], event["service"], event["level"].upper(), str(event["event"]), about]
    lines = [" ".join(word for word in words if word)]
    lines += [f"  {line}" for line in str(event.get("exception") or "").split("\n") if line]
    return "\n".join(_CONTROL.sub(_escaped, line) for line in lines)


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
