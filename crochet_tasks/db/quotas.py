"""Quotas of tenants: what a tenant holds, and what is refused, or held back, where it is as much as it may hold."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from crochet_tasks.db.corpora import Lock, take_lock
from crochet_tasks.errors import QuotaReached


class Use(NamedTuple):
    """What the corpora of a tenant hold that are not deleted. `texts`: in any state; `bytes`: of them, as UTF-8."""

    orthos: int
    texts: int
    bytes: int


def used(connection: Connection, tenant: int) -> Use:
    """Reads a row for each text, and for each shape of each corpus."""
    return Use(*connection.execute(text(f"SELECT ({_ORTHOS}), * FROM ({_TEXTS}) AS texts"), {"tenant": tenant}).one())


_ORTHOS = """
SELECT coalesce(sum(orthos), 0)::bigint FROM corpora JOIN counts ON counts.corpus = corpora.id
 WHERE corpora.tenant = :tenant AND corpora.removed_at IS NULL
"""
_TEXTS = """
SELECT count(*), coalesce(sum(octet_length(body)), 0)::bigint FROM corpora JOIN texts ON texts.corpus = corpora.id
 WHERE corpora.tenant = :tenant AND corpora.removed_at IS NULL
"""


def check_text(connection: Connection, corpus: int, size: int) -> None:
    """Raise QuotaReached unless the tenant of a corpus may keep one more text, of so many bytes.

    Until the transaction ends no other text is accepted for a tenant with such a quota: together they might be too
    many. Tenants without one do not wait.
    """
    row = connection.execute(text(_LIMITS), {"corpus": corpus}).one()
    if row.max_texts is None and row.max_bytes is None:
        return
    take_lock(connection, row.id, Lock.QUOTA)
    now = used(connection, row.id)  # in a statement of its own: it sees what was committed while this waited
    _check("texts", now.texts + 1, row.max_texts)
    _check("bytes of texts", now.bytes + size, row.max_bytes)


_LIMITS = """
SELECT tenants.id, max_texts, max_bytes FROM corpora JOIN tenants ON tenants.id = corpora.tenant
 WHERE corpora.id = :corpus
"""


def check_all(connection: Connection, tenant: int) -> None:
    """Raise QuotaReached where a tenant holds more than it may, with what this transaction has written."""
    row = connection.execute(text(_QUOTAS), {"tenant": tenant}).one()
    if all(quota is None for quota in row):
        return
    take_lock(connection, tenant, Lock.QUOTA)
    now = used(connection, tenant)
    _check("orthos", now.orthos, row.max_orthos)
    _check("texts", now.texts, row.max_texts)
    _check("bytes of texts", now.bytes, row.max_bytes)


_QUOTAS = "SELECT max_orthos, max_texts, max_bytes FROM tenants WHERE id = :tenant"


def _check(what: str, wanted: int, quota: int | None) -> None:
    if quota is not None and wanted > quota:
        raise QuotaReached(what=what, wanted=wanted, quota=quota)


def mark_full(connection: Connection) -> None:
    """Mark tenants as full that hold as many orthos as they may, and the others as not full.

    It reads the counts of every corpus of a tenant with such a quota: too much for each message that is published.
    """
    connection.execute(text(_MARK_FULL))


_MARK_FULL = """
WITH found (id, is_full) AS MATERIALIZED (
    SELECT tenants.id, coalesce(max_orthos <= sum(orthos), false) FROM tenants
      LEFT JOIN corpora ON corpora.tenant = tenants.id AND corpora.removed_at IS NULL
      LEFT JOIN counts ON counts.corpus = corpora.id
     WHERE max_orthos IS NOT NULL OR full_at IS NOT NULL GROUP BY tenants.id
), changed AS MATERIALIZED (
    SELECT tenants.id, is_full FROM tenants JOIN found ON found.id = tenants.id
     WHERE is_full <> (full_at IS NOT NULL) FOR NO KEY UPDATE OF tenants SKIP LOCKED
)
UPDATE tenants SET full_at = CASE WHEN is_full THEN clock_timestamp() END FROM changed WHERE changed.id = tenants.id
"""
