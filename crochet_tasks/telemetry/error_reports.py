"""Errors, reported to a Sentry or what speaks its protocol, such as GlitchTip.

Loaded only where CROCHET_SENTRY_DSN is set. Each line of the log of the level `error` or above is a report, with its
traceback: what the log does not say is not reported, either. No local variables, no bodies or headers of requests.
"""

from __future__ import annotations

import logging
from typing import Any

import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from structlog.contextvars import get_contextvars

from crochet_tasks.errors import CrochetError
from crochet_tasks.settings import Settings, version
from crochet_tasks.telemetry.masking import masked

TAGS = ("task", "kind", "request", "trace", "worker", "work", "text")
"""fields of a log line by which reports are searched"""
END_SECONDS = 2.0


class ErrorReports:
    """The reports of this process, which must not fork afterwards."""

    def __init__(self, service: str, settings: Settings) -> None:
        assert settings.sentry_dsn is not None
        sentry_sdk.init(
            dsn=settings.sentry_dsn.get_secret_value(),
            release=f"crochet-tasks@{version()}",
            environment=settings.environment,
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[LoggingIntegration(level=None, event_level=logging.ERROR)],
            include_local_variables=False,
            max_breadcrumbs=0,
            spotlight=False,  # else SENTRY_SPOTLIGHT sends them elsewhere, too
            before_send=_described,
        )
        sentry_sdk.set_tag("service", service)

    def stop(self) -> None:
        sentry_sdk.get_client().close(timeout=END_SECONDS)
        # From here on nothing is reported: an address that is empty, not none, for which SENTRY_DSN would be read.
        sentry_sdk.init(dsn="", spotlight=False, default_integrations=False, auto_enabling_integrations=False)


def _described(event: Any, hint: dict[str, Any]) -> Any:
    """The event with its code and what it is about, without secrets. A code is a group; bugs are grouped as usual."""
    record = hint.get("log_record")
    error = (hint.get("exc_info") or (None, None, None))[1]
    code = getattr(record, "code", None) or (error.code if isinstance(error, CrochetError) else None)
    fields = {**get_contextvars(), **({} if record is None else vars(record))}
    found = {name: str(fields[name]) for name in TAGS if fields.get(name) is not None}
    event["tags"] = {**event.get("tags", {}), **found, "code": code or "internal"}
    event["fingerprint"] = [code] if code not in (None, CrochetError.code) else ["{{ default }}"]
    for each in event.get("exception", {}).get("values", []):  # further lines may hold values: the database's detail
        each["value"] = (str(each.get("value", "")).strip().splitlines() or [""])[0]
    return masked(event)
