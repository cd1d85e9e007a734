"""Where open work stands, as all tell it: lists, statistics and metrics."""

from __future__ import annotations

from crochet_tasks.db.corpora import SPENT

OPEN = ("ready", "held", "published", "waiting", "parked")
"""To be published, held back by a spent budget, with the broker or a worker, until its time comes, until its turn."""


def standing(now: str, spent: str = f"IN (SELECT id FROM corpora WHERE {SPENT})") -> str:
    """One of OPEN, in SQL, of a row of `work` that is open.

    `now`: what says how late it is. `spent`: that it is one of the corpora whose budget is, where they are known: to
    ask for them may let the planner find another way to the rows.
    """
    return f"""
CASE WHEN work.published_at IS NOT NULL THEN 'published' WHEN work.not_before = 'infinity' THEN 'parked'
     WHEN work.not_before > {now} THEN 'waiting'
     WHEN work.kind IN ('seed', 'grow') AND work.corpus {spent} THEN 'held'
     ELSE 'ready' END
"""
