"""Delete what is older than the settings say, in small transactions, so that nobody waits for it."""

from __future__ import annotations

import time

from crochet_tasks.db import retention
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings

EVERY_SECONDS = 30.0
"""between two looks at what has become old"""


class Retention:
    """Deletes for a little while whenever it is called; goes on where it was."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._next = 0.0
        self._after = dict.fromkeys((rule.what for rule in retention.RULES), 0)

    def sweep(self, seconds: float) -> bool:
        """Delete for about so many seconds, if it is time to; whether anything may be left that is old enough.

        Each kind of rows has its turn, a transaction at a time: none waits for another one that has a year of them.
        """
        if time.monotonic() < self._next:
            return False
        until = time.monotonic() + seconds
        left = list(retention.RULES)
        while left:
            left = [rule for rule in left if self._step(rule)]
            if left and time.monotonic() > until:
                return True
        self._next = time.monotonic() + EVERY_SECONDS
        return False

    def _step(self, rule: retention.Rule) -> bool:
        with self._database.transaction() as connection:
            kept = rule.kept_for(self._settings)
            done = retention.remove_some(connection, rule, kept, self._after[rule.what])
        self._after[rule.what] = done.after if done.more else 0
        return done.more
