"""Who makes the changes of this thread, for the audit (db/audit.py). On its own, so `--help` waits for no database."""

from __future__ import annotations

from contextvars import ContextVar

acting: ContextVar[dict[str, str] | None] = ContextVar("crochet_acting", default=None)
"""via (api, page or command), key or user, address or host, request; none: the pipeline itself"""
