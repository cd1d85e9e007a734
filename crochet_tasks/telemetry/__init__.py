"""Logs, traces, metrics and profiles of a process: set up once, the same for every service."""

from crochet_tasks.telemetry.log_lines import log_context, logs
from crochet_tasks.telemetry.setup import (
    END_SECONDS,
    annotate,
    begin,
    end,
    failed,
    instrument,
    load,
    not_sent,
    profiled,
    publishing,
    result,
    results,
    running,
    span,
    statement,
    traced,
    traceparent,
)

__all__ = [
    "END_SECONDS",
    "annotate",
    "begin",
    "end",
    "failed",
    "instrument",
    "load",
    "log_context",
    "logs",
    "not_sent",
    "profiled",
    "publishing",
    "result",
    "results",
    "running",
    "span",
    "statement",
    "traced",
    "traceparent",
]
