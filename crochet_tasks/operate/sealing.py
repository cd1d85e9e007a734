"""Seals the audit and the security log now and then (db/audit.py): by the relay, and at the end of `crochet run`."""

from __future__ import annotations

import logging
import time

from crochet_tasks.db import audit
from crochet_tasks.db.audit import Horizon
from crochet_tasks.db.sessions import Database
from crochet_tasks.errors import CrochetError

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
"""between two seals of a table that changes little"""


class Sealer:
    """Seals what is there whenever it is called; several may run, one of them seals a row."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[str, Horizon] = {}
        self._next = 0.0

    def seal(self, *, now: bool = False) -> int:
        """Seal the rows that were there at the last call and whose neighbours are there, too; how many.

        Without `now` only every EVERY_SECONDS. Each seal is logged: who keeps the log elsewhere has its hash there.
        """
        if not now and time.monotonic() < self._next:
            return 0
        sealed = sum(self._seal(source) for source in audit.SEALED)
        if sealed or not now:
            self._next = time.monotonic() + (0.0 if sealed >= audit.AT_ONCE else EVERY_SECONDS)
        return sealed

    def _seal(self, source: str) -> int:
        noted, done = self._noted.get(source), None
        try:
            with self._database.transaction() as connection:
                if noted is not None and audit.reached(connection, noted):
                    done = audit.seal(connection, source, noted.id)
                if noted is None or done is None or done.last >= noted.id:
                    self._noted[source] = audit.horizon(connection, source)
        except CrochetError as error:
            log.warning("audit_not_sealed", extra={"table": source, "code": error.code, "error": str(error)})
            return 0
        if done is None:
            return 0
        log.info("audit_sealed", extra={"table": source, "rows": done.rows, "last": done.last, "hash": done.hash.hex()})
        return done.rows
