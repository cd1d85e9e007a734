"""What a process says about itself: its log. One set-up for API, workers, relay and command line."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import AbstractContextManager
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from crochet_tasks.settings import Settings

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
    # It warns of every queue that delays do not work on it; none are used (retries.py).
    logging.getLogger("kombu.transport.native_delayed_delivery").setLevel(logging.ERROR)


def doing(**what: object) -> AbstractContextManager[None]:
    """Every log line within says this, too: which task, corpus and work it is about."""
    return bound_contextvars(**{name: str(value) for name, value in what.items()})


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
