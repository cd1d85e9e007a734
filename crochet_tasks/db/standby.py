"""Reads from a standby of the database, where it has all that was committed when the read began; else from the primary.

So a client that has posted a text, or has read a version, reads nothing older afterwards, from whichever process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from sqlalchemy import Connection, text

from crochet_tasks.db.guarded import GuardedDatabase
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import DatabaseConflict, DatabaseUnavailable, DatabaseUnsuitable
from crochet_tasks.retry import Breaker
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

WAIT_SECONDS = 0.05
"""for the standby to take what the primary has; then the primary is read"""
POLL_SECONDS = 0.005
BEHIND_SECONDS = 1.0
"""how long a standby that was behind is not asked"""


class Reads:
    """Snapshots from the standby at `url` or from `primary`. For use by many threads at once."""

    def __init__(self, primary: Database, url: str, settings: Settings, connections: int) -> None:
        self._primary = primary
        self._standby = GuardedDatabase(url, settings, connections, service="the standby")
        self._lag = Breaker("a standby that is not behind", lambda why: DatabaseConflict(reason=why), BEHIND_SECONDS)
        self._is_ours = False

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """As `Database.snapshot`.

        Raises DatabaseUnsuitable where `url` names another database than the primary's or a copy of it, and what the
        primary raises where it is away.
        """
        standby = self.is_current()
        metrics.READS.add(source="standby" if standby else "primary")
        with (self._standby if standby else self._primary).snapshot() as connection:
            yield connection

    def close(self) -> None:
        self._standby.close()

    def is_current(self) -> bool:
        """Whether the standby answers and has, now or soon, all that the primary has now.

        Raises as `snapshot`.
        """
        with self._primary.statements() as connection:
            now = connection.execute(_NOW).one()
        try:
            self._lag.check()
            self._check_ours()
            until = time.monotonic() + WAIT_SECONDS
            while not self._has(now.position, now.timeline):
                if time.monotonic() > until:
                    self._lag.failed(f"it is behind the primary by more than {WAIT_SECONDS:g} s, or follows it no more")
                    return False
                time.sleep(POLL_SECONDS)
        except (DatabaseUnavailable, DatabaseConflict):  # the guard has logged what it is
            return False
        self._lag.succeeded()
        return True

    def _has(self, position: str, timeline: int) -> bool:
        # Not in the transaction that reads: its snapshot must not be older than the answer.
        with self._standby.statements() as connection:
            return bool(connection.execute(_HAS, {"position": position, "timeline": timeline}).scalar_one())

    def _check_ours(self) -> None:
        if not self._is_ours and self._standby.identity() != self._primary.identity():
            raise DatabaseUnsuitable(
                reason="CROCHET_DATABASE_READ_URL names another database than CROCHET_DATABASE_URL; "
                "set it to a standby of that one"
            )
        self._is_ours = True


# What is visible was flushed, unless commits do not wait for that. Positions of another timeline mean nothing: after a
# failover a standby of the old primary may be ahead of the new one.
_NOW = text("""
SELECT (CASE current_setting('synchronous_commit') WHEN 'off' THEN pg_current_wal_insert_lsn()
        ELSE pg_current_wal_flush_lsn() END)::text AS position,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline
""")
_HAS = text("""
SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn)
   AND (SELECT timeline_id FROM pg_control_checkpoint()) = :timeline
""")
