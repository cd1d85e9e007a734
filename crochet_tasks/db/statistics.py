"""Pace and errors per corpus, computed from the rows of work: nothing is kept between two reads.

Read by index: the open and the failed, what was done in the last 15 minutes, and what failed in the last 30. Of each
no more than `most` rows of a corpus, however much there is. Within one snapshot all times are its beginning's.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text

from crochet_tasks.db.tables import corpora
from crochet_tasks.db.tally import SPENT, standing

WINDOWS = (30, 60, 300, 900)
"""seconds to look back"""
LONGEST = WINDOWS[-1]


class Failing(NamedTuple):
    """Tries that failed with one code: in the last LONGEST seconds, in as many before; the last one."""

    tries: int
    before: int
    last_at: dt.datetime
    message: str

    def plus(self, other: Failing) -> Failing:
        newest = max(self, other, key=lambda each: each.last_at)
        return newest._replace(tries=self.tries + other.tries, before=self.before + other.before)


@dataclass
class Seen:
    """One corpus or several. Counters with an int as key are by window: what happened within so many seconds."""

    corpora: int = 0
    versions: int = 0
    orthos: int = 0
    waiting_texts: int = 0
    standing: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind, where it stands): pieces of work"""
    retrying: Counter[str] = field(default_factory=Counter)
    size: int = 0
    """orthos in open batches to be searched"""
    came: Counter[int] = field(default_factory=Counter)
    """orthos in batches that became due, as far as they are open or done now"""
    went: Counter[int] = field(default_factory=Counter)
    """orthos in batches that were searched"""
    searched: Counter[int] = field(default_factory=Counter)
    """batches that were"""
    done: Counter[int] = field(default_factory=Counter)
    """pieces of work, of every kind"""
    versions_made: Counter[int] = field(default_factory=Counter)
    found: Counter[int] = field(default_factory=Counter)
    """orthos"""
    failed_tries: Counter[int] = field(default_factory=Counter)
    errors: dict[str, Failing] = field(default_factory=dict)
    spent: bool = False
    """a budget is, and searches are held back"""
    reach: float = math.inf
    """seconds for which all that was done is counted"""
    uncounted: bool = False
    """there is more of the open, the failed or the errors than was counted"""


def together(every: Iterable[Seen]) -> Seen:
    """All of them as one."""
    total = Seen()
    for seen in every:
        total.corpora += seen.corpora
        total.versions += seen.versions
        total.orthos += seen.orthos
        total.waiting_texts += seen.waiting_texts
        total.standing.update(seen.standing)
        total.retrying.update(seen.retrying)
        total.size += seen.size
        for name in ("came", "went", "searched", "done", "versions_made", "found", "failed_tries"):
            getattr(total, name).update(getattr(seen, name))
        for code, failing in seen.errors.items():
            total.errors[code] = failing.plus(total.errors[code]) if code in total.errors else failing
        total.spent |= seen.spent
        total.reach = min(total.reach, seen.reach)
        total.uncounted |= seen.uncounted
    return total


def of_tenant(connection: Connection, tenant: int | None, most: int) -> dict[int, Seen]:
    """Every corpus of a tenant, or of all."""
    query = select(corpora.c.id).where(corpora.c.removed_at.is_(None))
    if tenant is not None:
        query = query.where(corpora.c.tenant == tenant)
    return take(connection, list(connection.execute(query).scalars()), most)


def take(connection: Connection, ids: Sequence[int], most: int) -> dict[int, Seen]:
    """These corpora, by id. In one snapshot, or the numbers do not go together."""
    found = {number: Seen(corpora=1) for number in ids}
    values: dict[str, Any] = {"corpora": list(ids), "most": most}
    for number, version, orthos, waiting, spent in connection.execute(text(_STORE), values):
        found[number].versions, found[number].orthos, found[number].waiting_texts = version, int(orthos), waiting
        found[number].spent = spent
    held_back = [number for number, seen in found.items() if seen.spent]
    for row in _rows(connection, _open(), {**values, "spent": held_back}):
        _note_open(found[row.corpus], row)
    for number, kind, failed in connection.execute(text(_FAILED), values):
        found[number].standing[kind, "failed"] += failed
    read: Counter[int] = Counter()
    oldest: Counter[int] = Counter()
    for row in _rows(connection, _done(), values):
        _note_done(found[row.corpus], row)
        read[row.corpus] += row.number
        oldest[row.corpus] = max(oldest[row.corpus], int(row.oldest))
    for number, rows in read.items():
        found[number].reach = oldest[number] if rows >= most else math.inf
    for row in _rows(connection, _tries(), values):
        _note_tries(found[row.corpus], row)
    for seen in found.values():
        opened = sum(number for (_, standing), number in seen.standing.items() if standing != "failed")
        failed = seen.standing.total() - opened
        tries = sum(each.tries + each.before for each in seen.errors.values())
        seen.uncounted = max(opened, failed, tries) >= most
        seen.spent &= any(kind in ("seed", "grow") for (kind, standing) in seen.standing if standing != "failed")
    return found


def _rows(connection: Connection, statement: str, values: dict[str, Any]) -> Iterator[Any]:
    yield from connection.execute(text(statement), values)


def _note_open(seen: Seen, row: Any) -> None:
    seen.standing[row.kind, row.standing] += row.number
    seen.retrying[row.kind] += row.tried
    if row.kind == "grow":
        seen.size += row.size
        for window in WINDOWS:
            seen.came[window] += getattr(row, f"came_{window}")


def _note_done(seen: Seen, row: Any) -> None:
    for window in WINDOWS:
        number = getattr(row, f"done_{window}")
        seen.done[window] += number
        seen.found[window] += int(getattr(row, f"found_{window}"))
        if row.kind == "context":
            seen.versions_made[window] += number
        if row.kind == "grow":
            seen.searched[window] += number
            seen.went[window] += int(getattr(row, f"went_{window}"))
            seen.came[window] += int(getattr(row, f"came_{window}"))


def _note_tries(seen: Seen, row: Any) -> None:
    for window in WINDOWS:
        seen.failed_tries[window] += getattr(row, f"tries_{window}")
    seen.errors[row.code] = Failing(getattr(row, f"tries_{LONGEST}"), row.before, row.last_at, row.message)


def _by_window(template: str) -> str:
    return ", ".join(template.format(window=window) for window in WINDOWS)


_STORE = f"""
SELECT id, version,
       (SELECT coalesce(sum(orthos), 0) FROM counts WHERE counts.corpus = corpora.id),
       (SELECT count(*) FROM texts WHERE texts.corpus = corpora.id AND texts.state IN ('accepted', 'ingested')),
       coalesce({SPENT}, false)
  FROM corpora WHERE id = ANY(CAST(:corpora AS int[]))
"""

_OF_EACH = "FROM unnest(CAST(:corpora AS int[])) AS mine (corpus) CROSS JOIN LATERAL"
"""corpus by corpus, by an index that begins with it"""

_FAILED = f"""
SELECT mine.corpus, kind, count(*)
  {_OF_EACH} (SELECT kind FROM work WHERE work.corpus = mine.corpus AND state = 'failed' LIMIT :most) AS failed
 GROUP BY mine.corpus, kind
"""

_AGE = "extract(epoch FROM now() - greatest(created_at, reopened_at))"
"""seconds since it became due, or an operator opened it again"""


_SPENT = "= ANY(CAST(:spent AS int[]))"


@cache
def _open() -> str:
    return f"""
SELECT mine.corpus, kind, standing, count(*) AS number, count(*) FILTER (WHERE attempts > 0) AS tried,
       sum(size) AS size, {_by_window("coalesce(sum(size) FILTER (WHERE age <= {window}), 0) AS came_{window}")}
  {_OF_EACH} (
       SELECT kind, size, attempts, {standing("now()", _SPENT)} AS standing, {_AGE} AS age
         FROM work WHERE work.corpus = mine.corpus AND state = 'open' LIMIT :most
       ) AS opened
 GROUP BY mine.corpus, kind, standing
"""


@cache
def _done() -> str:
    return f"""
SELECT mine.corpus, kind, count(*) AS number, max(ended) AS oldest,
       {_by_window("count(*) FILTER (WHERE ended <= {window}) AS done_{window}")},
       {_by_window("coalesce(sum(found) FILTER (WHERE ended <= {window}), 0) AS found_{window}")},
       {_by_window("coalesce(sum(size) FILTER (WHERE ended <= {window}), 0) AS went_{window}")},
       {_by_window("coalesce(sum(size) FILTER (WHERE age <= {window}), 0) AS came_{window}")}
  {_OF_EACH} (
       SELECT kind, size, found, {_AGE} AS age, extract(epoch FROM now() - finished_at) AS ended
         FROM work
        WHERE work.corpus = mine.corpus AND state = 'done' AND finished_at > now() - interval '{LONGEST} seconds'
        ORDER BY finished_at DESC LIMIT :most
       ) AS done
 GROUP BY mine.corpus, kind
"""


@cache
def _tries() -> str:
    return f"""
SELECT mine.corpus, code, max(at) AS last_at,
       coalesce((array_agg(message ORDER BY at DESC))[1], '') AS message,
       {_by_window("count(*) FILTER (WHERE at > now() - interval '{window} seconds') AS tries_{window}")},
       count(*) FILTER (WHERE at <= now() - interval '{LONGEST} seconds') AS before
  {_OF_EACH} (
       SELECT at, coalesce(error->>'code', 'internal') AS code, error->>'message' AS message
         FROM attempts
        WHERE attempts.corpus = mine.corpus AND at > now() - interval '{2 * LONGEST} seconds'
        ORDER BY at DESC LIMIT :most
       ) AS failed
 GROUP BY mine.corpus, code
"""
