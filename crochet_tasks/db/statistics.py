"""Pace and errors per corpus, computed from the rows of work: nothing is kept between two reads.

Read by index: the open and the failed, what was done in the last 15 minutes, and what failed in the last 30. Of each
no more than `most` rows of a corpus, however much there is. Within one snapshot all times are its beginning's.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, text

from crochet_tasks.db.tables import corpora
from crochet_tasks.db.tally import SPENT, open_state

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
class Counts:
    """Numbers of one corpus or of several. Keys of a Counter[int] are windows: what happened within so many seconds."""

    corpora: int = 0
    versions: int = 0
    orthos: int = 0
    waiting_texts: int = 0
    work: Counter[tuple[str, str]] = field(default_factory=Counter)
    """items by (kind, state)"""
    retrying: Counter[str] = field(default_factory=Counter)
    searches_open: int = 0
    searches_added: Counter[int] = field(default_factory=Counter)
    """searches that were written, or opened again, and are open or done now"""
    searches_done: Counter[int] = field(default_factory=Counter)
    done: Counter[int] = field(default_factory=Counter)
    """work items of every kind"""
    versions_made: Counter[int] = field(default_factory=Counter)
    orthos_found: Counter[int] = field(default_factory=Counter)
    """orthos"""
    failed_tries: Counter[int] = field(default_factory=Counter)
    errors: dict[str, Failing] = field(default_factory=dict)
    spent: bool = False
    """a budget is spent, and searches are held back"""
    reach: float = math.inf
    """seconds back to which all finished work was counted"""
    uncounted: bool = False
    """counting stopped at `most` open items, failed items or errors"""

    def by_kind(self) -> dict[str, dict[str, int]]:
        """Per kind, how much work is in which of tally.OPEN or has failed."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, state), number in sorted(self.work.items()):
            kinds.setdefault(kind, {})[state] = number
        return kinds


def total(every: Iterable[Counts]) -> Counts:
    """Add up the numbers of several corpora."""
    summed = Counts()
    for counts in every:
        summed.corpora += counts.corpora
        summed.versions += counts.versions
        summed.orthos += counts.orthos
        summed.waiting_texts += counts.waiting_texts
        summed.work.update(counts.work)
        summed.retrying.update(counts.retrying)
        summed.searches_open += counts.searches_open
        for name in (
            "searches_added",
            "searches_done",
            "done",
            "versions_made",
            "orthos_found",
            "failed_tries",
        ):
            getattr(summed, name).update(getattr(counts, name))
        for code, failing in counts.errors.items():
            summed.errors[code] = failing.plus(summed.errors[code]) if code in summed.errors else failing
        summed.spent |= counts.spent
        summed.reach = min(summed.reach, counts.reach)
        summed.uncounted |= counts.uncounted
    return summed


def of_tenant(
    connection: Connection, tenant: int | None, most: int, only: Collection[int] | None = None
) -> dict[int, Counts]:
    """Return the numbers of every corpus of a tenant, or of all tenants; with `only`, of these."""
    found = _corpora(connection, tenant)
    return read(connection, [each for each in found if only is None or each in only], most)


def _corpora(connection: Connection, tenant: int | None) -> list[int]:
    query = select(corpora.c.id).where(corpora.c.removed_at.is_(None))
    if tenant is not None:
        query = query.where(corpora.c.tenant == tenant)
    return list(connection.execute(query).scalars())


def read(connection: Connection, ids: Sequence[int], most: int) -> dict[int, Counts]:
    """Return the numbers of these corpora, by id. Call it in one snapshot, or they do not match."""
    found = {number: Counts(corpora=1) for number in ids}
    values: dict[str, Any] = {"corpora": list(ids), "most": most}
    for number, version, orthos, waiting, spent in connection.execute(text(_STORE), values):
        found[number].versions, found[number].orthos, found[number].waiting_texts = version, int(orthos), waiting
        found[number].spent = spent
    held_back = [number for number, counts in found.items() if counts.spent]
    for row in _rows(connection, _open(), {**values, "spent": held_back}):
        _add_open(found[row.corpus], row)
    for number, kind, failed in connection.execute(text(_FAILED), values):
        found[number].work[kind, "failed"] += failed
    read: Counter[int] = Counter()
    oldest: Counter[int] = Counter()
    for row in _rows(connection, _done(), values):
        _add_done(found[row.corpus], row)
        read[row.corpus] += row.number
        oldest[row.corpus] = max(oldest[row.corpus], int(row.oldest))
    for number, rows in read.items():
        found[number].reach = oldest[number] if rows >= most else math.inf
    for row in _rows(connection, _tries(), values):
        _add_failed_attempts(found[row.corpus], row)
    for counts in found.values():
        opened = sum(number for (_, state), number in counts.work.items() if state != "failed")
        failed = counts.work.total() - opened
        tries = sum(each.tries + each.before for each in counts.errors.values())
        counts.uncounted = max(opened, failed, tries) >= most
        counts.spent &= any(kind == "search" for (kind, state) in counts.work if state != "failed")
    return found


def _rows(connection: Connection, statement: str, values: dict[str, Any]) -> Iterator[Any]:
    yield from connection.execute(text(statement), values)


def _add_open(counts: Counts, row: Any) -> None:
    counts.work[row.kind, row.open_state] += row.number
    counts.retrying[row.kind] += row.tried
    if row.kind == "search":
        counts.searches_open += row.number
        for window in WINDOWS:
            counts.searches_added[window] += getattr(row, f"added_{window}")


def _add_done(counts: Counts, row: Any) -> None:
    for window in WINDOWS:
        number = getattr(row, f"done_{window}")
        counts.done[window] += number
        counts.orthos_found[window] += int(getattr(row, f"found_{window}"))
        if row.kind == "context":
            counts.versions_made[window] += number
        if row.kind == "search":
            counts.searches_done[window] += number
            counts.searches_added[window] += getattr(row, f"added_{window}")


def _add_failed_attempts(counts: Counts, row: Any) -> None:
    for window in WINDOWS:
        counts.failed_tries[window] += getattr(row, f"tries_{window}")
    counts.errors[row.code] = Failing(getattr(row, f"tries_{LONGEST}"), row.before, row.last_at, row.message)


def _by_window(template: str) -> str:
    return ", ".join(template.format(window=window) for window in WINDOWS)


_STORE = f"""
SELECT id, version,
       (SELECT coalesce(sum(orthos), 0) FROM counts WHERE counts.corpus = corpora.id),
       (SELECT count(*) FROM texts WHERE texts.corpus = corpora.id AND texts.state IN ('accepted', 'ingested')),
       {SPENT}
  FROM corpora WHERE id = ANY(CAST(:corpora AS int[]))
"""

_OF_EACH = "FROM unnest(CAST(:corpora AS int[])) AS mine (corpus) CROSS JOIN LATERAL"
"""corpus by corpus, by an index that begins with it"""

_FAILED = f"""
SELECT mine.corpus, kind, count(*)
  {_OF_EACH} (
       SELECT kind FROM work WHERE work.corpus = mine.corpus AND state = 'failed' ORDER BY created_at LIMIT :most
       ) AS failed
 GROUP BY mine.corpus, kind
"""

_AGE = "extract(epoch FROM now() - greatest(created_at, reopened_at))"
"""seconds since it became due, or an operator opened it again"""


_SPENT = "= ANY(CAST(:spent AS int[]))"


@cache
def _open() -> str:
    return f"""
SELECT mine.corpus, kind, open_state, count(*) AS number, count(*) FILTER (WHERE attempts > 0) AS tried,
       {_by_window("count(*) FILTER (WHERE age <= {window}) AS added_{window}")}
  {_OF_EACH} (
       SELECT kind, attempts, {open_state("now()", _SPENT)} AS open_state, {_AGE} AS age
         FROM work WHERE work.corpus = mine.corpus AND state = 'open' ORDER BY created_at LIMIT :most
       ) AS opened
 GROUP BY mine.corpus, kind, open_state
"""


@cache
def _done() -> str:
    return f"""
SELECT mine.corpus, kind, count(*) AS number, max(ended) AS oldest,
       {_by_window("count(*) FILTER (WHERE ended <= {window}) AS done_{window}")},
       {_by_window("coalesce(sum(found) FILTER (WHERE ended <= {window}), 0) AS found_{window}")},
       {_by_window("count(*) FILTER (WHERE age <= {window}) AS added_{window}")}
  {_OF_EACH} (
       SELECT kind, found, {_AGE} AS age, extract(epoch FROM now() - finished_at) AS ended
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


# ── what was finished when ──────────────────────────────────────────────────────────────────────

SLOT_SECONDS = WINDOWS[0]
SLOTS = LONGEST // SLOT_SECONDS


class Slot(NamedTuple):
    """A span of SLOT_SECONDS: work items that were finished in it, by kind, and the orthos that were stored."""

    begins_at: dt.datetime
    done: Counter[str]
    orthos: int
    known: bool
    """whether all that was finished in it was counted"""


def slots(connection: Connection, tenant: int | None, most: int) -> list[Slot]:
    """The last SLOTS spans and the one that is not over yet, oldest first; of a tenant's corpora or of all.

    Spans begin at multiples of their length since 1970, so they are the same for everybody who asks. Of each corpus at
    most `most` rows are read, the newest.
    """
    values = {"corpora": _corpora(connection, tenant), "most": most}
    last = int(connection.execute(text(f"SELECT {_SLOT.format(moment='now()')}")).scalar_one())
    found = {number: Slot(_begin(number), Counter(), 0, known=True) for number in range(last - SLOTS, last + 1)}
    read: Counter[int] = Counter()
    oldest: dict[int, int] = {}
    for corpus, kind, number, done, orthos in connection.execute(text(_SLOTS), values):
        read[corpus] += done
        oldest[corpus] = min(number, oldest.get(corpus, number))
        if number in found:
            slot = found[number]
            slot.done[kind] += done
            found[number] = slot._replace(orthos=slot.orthos + int(orthos))
    unknown = max((oldest[corpus] for corpus, rows in read.items() if rows >= most), default=last - SLOTS - 1)
    return [slot._replace(known=number > unknown) for number, slot in sorted(found.items())]


def _begin(number: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(number * SLOT_SECONDS, dt.UTC)


_SLOT = f"CAST(floor(extract(epoch FROM {{moment}}) / {SLOT_SECONDS}) AS bigint)"
_SLOTS = f"""
SELECT mine.corpus, kind, slot, count(*), sum(found)
  {_OF_EACH} (
       SELECT kind, found, {_SLOT.format(moment="finished_at")} AS slot
         FROM work
        WHERE work.corpus = mine.corpus AND state = 'done'
          AND finished_at > now() - interval '{LONGEST + SLOT_SECONDS} seconds'
        ORDER BY finished_at DESC LIMIT :most
       ) AS done
 GROUP BY mine.corpus, kind, slot
"""
