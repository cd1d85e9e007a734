"""The audit: who changed what, when and from where; and seals, which show a change of it or of the security log.

Rows of `audit` are written by triggers, so no change is left out. `by` says who: the API and the command line set it
for their transactions (sessions.acting); without it a change is the pipeline's own, or was made with another program.

A *seal* has the SHA-256 of each row of a range of ids, and of the seal before it: rows that were changed, added or
deleted later do not fit any more. Old rows may go, as retention has it; seals stay, so the chain has no gap.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, literal_column, or_, select, text

from crochet_tasks.db import bulk
from crochet_tasks.db.access_tables import tenants
from crochet_tasks.db.tables import audit, corpora
from crochet_tasks.schemas.reports import AuditLine

SEALED = {
    "audit": ("who", "what", "subject", "corpus", "tenant", "by", "before", "after"),
    "security_log": ("who", "what", "tenant", "key", "address", "request", "details"),
}
"""per table the columns that a row's hash is made of, beside its id and time"""
DIGESTS = {"security_log": "security_log_digests"}
"""views that have the same hashes, of tables that the relay, which seals, may not read"""
KEPT_DAYS = 30
"""for so long the database refuses to delete a row"""
AT_ONCE = 5000
"""rows of a seal, at the most"""
LOOKED_AT = 50_000
"""rows that one page of the audit looks through, at the most"""


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


class AuditFilter(NamedTuple):
    """Which lines: of a tenant, of a corpus, by a key or a user of the command line, about one subject; `what` begins
    so; in [since, until).
    """

    tenant: int | None = None
    corpus: str | None = None
    by: str | None = None
    subject: str | None = None
    what: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    corpora: Collection[int] | None = None
    """of these only, and nothing that is of no corpus"""


def page(
    connection: Connection, which: AuditFilter, begin: int | None, most: int, *, newer: bool = False
) -> tuple[list[AuditLine], int | None]:
    """The newest lines that match, before `begin`, or the next ones behind it; newest first. And where the next page in
    that direction begins, None: there are no more.

    A page looks through LOOKED_AT ids, so it may be short and have another one.
    """
    top = connection.execute(select(audit.c.id).order_by(audit.c.id.desc()).limit(1)).scalar()
    start = (top or 0) + 1 if begin is None else begin
    number = audit.c.id
    query = _matching(which).limit(most)
    if newer:
        query = query.where(number > start, number <= start + LOOKED_AT).order_by(number)
    else:
        query = query.where(number < start, number >= start - LOOKED_AT).order_by(number.desc())
    rows = connection.execute(query).all()
    end = start + LOOKED_AT if newer else max(0, start - LOOKED_AT)
    after = int(rows[-1].id) if len(rows) == most else end
    more = connection.execute(select(number).where(number > after if newer else number < after).limit(1)).first()
    lines = [AuditLine.model_validate(row, from_attributes=True) for row in (reversed(rows) if newer else rows)]
    return lines, None if more is None else after


def _matching(which: AuditFilter) -> Select[Any]:
    found = audit.c
    query = select(found.id, found.at, found.who, found.by, found.what, found.subject, found.before, found.after)
    query = query.add_columns(corpora.c.name.label("corpus"), tenants.c.name.label("tenant"))
    query = query.outerjoin_from(audit, corpora, corpora.c.id == found.corpus)
    owner: ColumnElement[int] = literal_column("coalesce(audit.tenant, corpora.tenant)")
    query = query.outerjoin(tenants, tenants.c.id == owner)
    if which.tenant is not None:
        query = query.where(owner == which.tenant)
    if which.corpora is not None:
        query = query.where(found.corpus.in_(which.corpora))
    if which.corpus is not None:
        query = query.where(corpora.c.name == which.corpus)
    if which.by is not None:
        query = query.where(or_(*(found.by[name].astext == which.by for name in ("key", "user"))))
    if which.subject is not None:
        query = query.where(found.subject == which.subject)
    if which.what is not None:
        query = query.where(found.what.startswith(which.what, autoescape=True))
    if which.since is not None:
        query = query.where(found.at >= which.since)
    if which.until is not None:
        query = query.where(found.at < which.until)
    return query


# ── seals ───────────────────────────────────────────────────────────────────────────────────────


class Horizon(NamedTuple):
    """The last row that was there while transactions before `xid` ran: when these ended, all before it are there."""

    id: int
    xid: int


def horizon(connection: Connection, source: str) -> Horizon:
    number = connection.execute(text(f"SELECT coalesce(max(id), 0) FROM {source}")).scalar_one()
    # In a statement of its own, after the other one: each row takes its transaction before its number (a trigger), so
    # what has a lower number, and is not there yet, is of a transaction before this one.
    xid = connection.execute(text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")).scalar_one()
    return Horizon(int(number), int(xid))


def reached(connection: Connection, noted: Horizon) -> bool:
    """Whether all rows up to a horizon are there: no transaction runs that may write one."""
    query = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= :xid")
    return bool(connection.execute(query, {"xid": noted.xid}).scalar_one())


class Sealed(NamedTuple):
    rows: int
    last: int
    hash: bytes


def seal(connection: Connection, source: str, until: int, most: int = AT_ONCE) -> Sealed | None:
    """Seal the next rows up to an id; None where there are none, or another process seals them at this moment.

    All of them are there (`reached`).
    """
    row = connection.execute(text(_seal(source)), {"source": source, "until": until, "most": most}).first()
    return None if row is None else Sealed(int(row.rows), int(row.last), bytes(row.hash))


def _digest(source: str) -> str:
    """SQL of the SHA-256 of a row. The time as a number: as a text it depends on the session."""
    columns = ", ".join(("id", "extract(epoch FROM at)::text", *SEALED[source]))
    return f"sha256(convert_to(jsonb_build_array({columns})::text, 'UTF8'))"


_LINK = """sha256(before || root || convert_to(concat_ws(' ', source, first, last, rows,
           extract(epoch FROM oldest)::text), 'UTF8'))"""
"""SQL of what a seal's hash is: that of the seal before it, of its rows, and what else it says"""


def _seal(source: str) -> str:
    return f"""
WITH head AS (
    SELECT last, hash FROM seals WHERE source = :source ORDER BY id DESC LIMIT 1
), next AS MATERIALIZED (
    SELECT id, at, {"digest" if source in DIGESTS else _digest(source)} AS digest FROM {DIGESTS.get(source, source)}
     WHERE id > coalesce((SELECT last FROM head), 0) AND id <= :until ORDER BY id LIMIT :most
), packed AS (
    SELECT CAST(:source AS text) AS source, coalesce((SELECT last FROM head), 0) + 1 AS first,
           CASE WHEN count(*) = :most THEN max(id) ELSE CAST(:until AS bigint) END AS last, count(*)::int AS rows,
           min(at) AS oldest, coalesce((SELECT hash FROM head), ''::bytea) AS before,
           string_agg(digest, ''::bytea ORDER BY id) AS digests
      FROM next HAVING count(*) > 0
), linked AS (
    SELECT *, sha256(digests) AS root FROM packed
)
INSERT INTO seals (source, first, last, rows, oldest, before, root, digests, hash)
SELECT source, first, last, rows, oldest, before, root, digests, {_LINK} FROM linked
ON CONFLICT (source, first) DO NOTHING
RETURNING rows, last, hash
"""


# ── verifying ───────────────────────────────────────────────────────────────────────────────────


class Head(NamedTuple):
    """The newest seal of a table, and how many rows are not sealed yet. Kept elsewhere, `hash` also shows whether the
    whole chain was made again.
    """

    source: str
    seals: int
    hash: str | None
    unsealed: int


def verify(connection: Connection, source: str, problem: Any) -> Head:
    """Call `problem` with what is wrong with a table's chain and its rows, in words.

    Hashes are made of the rows themselves, as this program says: a view may have been changed, too.
    """
    before, last, number = b"", 0, 0
    for row in bulk.rows(connection, _CHAIN, {"source": source}):
        first, until, rows, old, previous, digest, packed, whole = row
        number += 1
        name = f"{source}: rows {first} to {until}"
        if first != last + 1 or bytes(previous) != before:
            problem(f"{name}: their seal does not continue the one before it")
        if not whole:
            problem(f"{name}: their seal was changed")
        last, before = until, bytes(digest)
        for each in _rows(connection, source, first, until, rows, packed, old=old):
            problem(f"{name}: {each}")
    left = connection.execute(text(f"SELECT count(*) FROM {source} WHERE id > :last"), {"last": last}).scalar_one()
    return Head(source, number, before.hex() or None, int(left))


def _rows(
    connection: Connection, source: str, first: int, last: int, rows: int, packed: bytes | None, *, old: bool
) -> Iterator[str]:
    query = f"SELECT id, {_digest(source)} FROM {source} WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id"
    sealed = set() if packed is None else {packed[place : place + 32] for place in range(0, len(packed), 32)}
    there = 0
    for number, digest in bulk.rows(connection, query, {"first": first, "last": last}):
        there += 1
        if bytes(digest) not in sealed:
            yield f"row {number} is not the one that was sealed"
    if there < rows and not old:
        yield f"{rows - there} rows were deleted"


_CHAIN = f"""
SELECT first, last, rows, oldest < clock_timestamp() - INTERVAL '{KEPT_DAYS} days', before, hash, digests,
       {_LINK} = hash AND (digests IS NULL OR sha256(digests) = root)
  FROM seals WHERE source = %(source)s ORDER BY id
"""
