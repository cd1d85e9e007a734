"""What is kept how long: old rows are deleted, a few in a transaction. docs/retention.md is made from RULES."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from crochet_tasks.db import sessions
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

AT_ONCE = 1000
"""rows of one transaction: some tens of milliseconds"""
HOUR, DAY = 3600.0, 86_400.0
_OLD = "< clock_timestamp() - make_interval(secs => :kept)"


class Rule(NamedTuple):
    """`setting`: how long, in the unit its name ends with; without one, `seconds`.

    `query` deletes at most `:most` rows that are `{old}`er than `:kept` seconds; `:after`: the last id that was looked
    at, for a table of which old rows may stay.
    """

    what: str
    setting: str | None
    seconds: float
    kept: str
    """what stays however old it is, for people"""
    query: str

    @property
    def statement(self) -> str:
        return self.query.replace("{old}", _OLD)

    def kept_for(self, settings: Settings) -> float:
        if self.setting is None:
            return self.seconds
        return float(getattr(settings, self.setting)) * (HOUR if self.setting.endswith("_hours") else DAY)


# On a row that another transaction has changed meanwhile conditions are checked again: by the sub-select that locks it,
# or by the last condition.
RULES = (
    # Per corpus, by work_ended_idx. Work that may be opened again stays: outbox.add and attempts.restart rely on its
    # row. That is the work of a text that is no version, and of a job for the best that has not come to its end.
    Rule(
        "work",
        "work_days",
        0,
        "what is open, failed or dropped; the work of texts that failed; of a search for the best that can go on",
        """
        DELETE FROM work WHERE id = ANY(ARRAY(
            SELECT old.id FROM corpora CROSS JOIN LATERAL (
                SELECT id FROM work
                 WHERE work.corpus = corpora.id AND state = 'done' AND finished_at {old}
                   AND CASE WHEN kind IN ('ingest', 'context')
                            THEN EXISTS (SELECT FROM texts WHERE texts.id = work.subject AND texts.state = 'current')
                            WHEN kind = 'best'
                            THEN NOT EXISTS (SELECT FROM best WHERE best.id = work.subject AND best.finished_at IS NULL)
                            ELSE true END
                 ORDER BY finished_at LIMIT :most FOR UPDATE SKIP LOCKED
                ) AS old LIMIT :most
            ))
        """,
    ),
    Rule(
        "dropped searches for the best",
        "work_days",
        0,
        "those whose search is still listed",
        """
        DELETE FROM work WHERE id = ANY(ARRAY(
            SELECT old.id FROM corpora CROSS JOIN LATERAL (
                SELECT id FROM work
                 WHERE work.corpus = corpora.id AND state = 'cancelled' AND finished_at {old} AND kind = 'best'
                   AND NOT EXISTS (SELECT FROM best WHERE best.id = work.subject)
                 ORDER BY finished_at LIMIT :most FOR UPDATE SKIP LOCKED
                ) AS old LIMIT :most
            ))
        """,
    ),
    # In the order of ids, which is that of time: no index on the time is needed. What stays is passed over.
    Rule(
        "audit",
        "audit_days",
        0,
        "the lines of work and texts that are not done; everything for 30 days, which the database sees to",
        """
        WITH seen AS MATERIALIZED (
            SELECT id, subject FROM (
                SELECT id, at, subject FROM audit WHERE id > :after ORDER BY id LIMIT :most
            ) AS next WHERE at {old}
        ), gone AS (
            DELETE FROM audit WHERE id IN (
                SELECT id FROM seen WHERE NOT CASE
                    WHEN seen.subject LIKE 'work %' THEN EXISTS (
                        SELECT FROM work WHERE work.id = substr(seen.subject, 6)::uuid AND state <> 'done'
                    )
                    WHEN seen.subject LIKE 'text %' THEN EXISTS (
                        SELECT FROM texts WHERE texts.id = substr(seen.subject, 6)::bigint AND state <> 'current'
                    )
                    ELSE false END
                ) RETURNING 1
        )
        SELECT (SELECT count(*) FROM gone), count(*), coalesce(max(id), 0) FROM seen
        """,
    ),
    # Seals stay: of those whose rows are all deleted, what was kept of each row goes.
    Rule(
        "hashes of sealed rows",
        "audit_days",
        0,
        "the chain of seals; the hashes of rows that are still there",
        """
        UPDATE seals SET digests = NULL WHERE id IN (
            SELECT id FROM seals
             WHERE digests IS NOT NULL AND at {old} AND oldest < clock_timestamp() - INTERVAL '31 days'
               AND CASE source
                       WHEN 'audit' THEN NOT EXISTS (SELECT FROM audit WHERE audit.id BETWEEN first AND last)
                       ELSE NOT EXISTS (SELECT FROM security_log WHERE security_log.id BETWEEN first AND last) END
             ORDER BY id LIMIT :most
        )
        """,
    ),
    Rule(
        "dead_letters",
        "dead_letter_days",
        0,
        "",
        """
        DELETE FROM dead_letters WHERE id = ANY(ARRAY(
            SELECT id FROM dead_letters WHERE id = ANY(ARRAY(
                SELECT id FROM dead_letters ORDER BY id LIMIT :most
            )) AND noted_at {old} FOR UPDATE SKIP LOCKED
        ))
        """,
    ),
    Rule(
        "security_log",
        "security_log_days",
        0,
        "everything for 30 days, which the database sees to",
        """
        DELETE FROM security_log WHERE id IN (
            SELECT id FROM security_log WHERE at {old} ORDER BY at LIMIT :most FOR UPDATE SKIP LOCKED
        )
        """,
    ),
    Rule(
        "idempotency",
        "idempotency_hours",
        0,
        "",
        """
        DELETE FROM idempotency WHERE (corpus, key) IN (
            SELECT corpus, key FROM idempotency WHERE created_at {old} LIMIT :most
        ) AND created_at {old}
        """,
    ),
    Rule(
        "sessions",
        None,
        0,
        "",
        """
        DELETE FROM sessions WHERE id IN (
            SELECT id FROM sessions WHERE expires_at < clock_timestamp() LIMIT :most FOR UPDATE SKIP LOCKED
        )
        """,
    ),
    Rule(
        "signatures",
        None,
        HOUR,
        "",
        """
        DELETE FROM signatures WHERE signature IN (
            SELECT signature FROM signatures WHERE seen_at {old} LIMIT :most FOR UPDATE SKIP LOCKED
        )
        """,
    ),
    Rule(
        "request_counts",
        None,
        HOUR,
        "",
        """
        DELETE FROM request_counts WHERE (client, slot) IN (
            SELECT client, slot FROM request_counts
             WHERE slot < (extract(epoch FROM clock_timestamp()) - :kept) / 60 LIMIT :most FOR UPDATE SKIP LOCKED
        )
        """,
    ),
)


class Removed(NamedTuple):
    """`more`: there may be more that is old enough. `after`: the last id that was looked at."""

    rows: int
    more: bool
    after: int = 0


def remove_some(connection: Connection, rule: Rule, kept: float, after: int = 0) -> Removed:
    """Delete some rows that are older than `kept` seconds."""
    values = {"kept": kept, "most": AT_ONCE, "after": after}
    statement = rule.statement
    done = connection.execute(text(statement), {name: values[name] for name in values if f":{name}" in statement})
    if done.returns_rows:
        rows, seen, last = done.one()
        removed = Removed(int(rows), seen == AT_ONCE, int(last))
    else:
        removed = Removed(done.rowcount, done.rowcount >= AT_ONCE)
    sessions.once_committed(connection, lambda: metrics.REMOVED.add(removed.rows, what=rule.what))
    return removed
