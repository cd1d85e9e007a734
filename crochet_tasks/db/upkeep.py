"""How large tables are, which transactions keep vacuum from its work, and how much of the server is in use."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text


class TableSize(NamedTuple):
    """In bytes on disk; `table`: with what is stored apart from it (TOAST). `dead`: rows that are not vacuumed yet."""

    name: str
    table: int
    indexes: int
    dead: int


def table_sizes(connection: Connection) -> list[TableSize]:
    """Every table of the schema in use, the largest first."""
    return [TableSize(*row) for row in connection.execute(text(_SIZES))]


# n_dead_tup is an estimate of the server's statistics; 0 where they are not kept.
_SIZES = """
SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_dead_tup
  FROM pg_stat_user_tables WHERE schemaname = current_schema()
 ORDER BY pg_total_relation_size(relid) DESC, relname
"""


class OldTransaction(NamedTuple):
    """A transaction that is open. `idle`: for how long nothing was done in it; both in seconds.

    `who`: in words, for operators. What it runs is left out: that may hold texts.
    """

    pid: int | None
    who: str
    age: float
    idle: float


def transactions(connection: Connection) -> list[OldTransaction]:
    """The open transactions in this database but for this one, the oldest first; prepared ones have no process.

    A role that may not see those of others (it lacks pg_read_all_stats) sees its own ones only.
    """
    return [OldTransaction(*row) for row in connection.execute(text(_TRANSACTIONS))]


# Autovacuum's own workers, and what sends the log to standbys, hold nothing back. clock_timestamp: now() is when this
# transaction began.
_TRANSACTIONS = """
SELECT pid,
       format('process %s of %s (%s)', pid, usename, coalesce(nullif(application_name, ''), 'no name')),
       extract(epoch FROM greatest(clock_timestamp() - xact_start, interval '0'))::float8 AS age,
       CASE WHEN state LIKE 'idle in transaction%'
            THEN extract(epoch FROM greatest(clock_timestamp() - state_change, interval '0'))::float8 ELSE 0 END
  FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend'
   AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
 UNION ALL
SELECT NULL, format('prepared transaction %L of %s', gid, owner), since, since
  FROM pg_prepared_xacts, LATERAL (SELECT extract(epoch FROM clock_timestamp() - prepared)::float8) AS _ (since)
 WHERE database = current_database()
 ORDER BY age DESC
"""


class ServerUse(NamedTuple):
    """Of the whole server, all databases: client connections and how many it takes, and how far replication is behind.

    `behind`: bytes of its log that the slowest replica or replication slot has not taken; 0 where there is none.
    """

    connections: int
    limit: int
    behind: int


def server_use(connection: Connection) -> ServerUse:
    return ServerUse(*connection.execute(text(_SERVER_USE)).one())


# A slot keeps the log on the disk until it is read. replay_lsn is NULL for roles without pg_read_all_stats.
_SERVER_USE = """
SELECT (SELECT sum(numbackends) FROM pg_stat_database)::int,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
       coalesce((SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), lsn))
                   FROM (SELECT replay_lsn FROM pg_stat_replication
                          UNION ALL SELECT restart_lsn FROM pg_replication_slots) AS _ (lsn)), 0)::bigint
"""
