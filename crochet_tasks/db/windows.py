"""Windows: what each version's searches cover. Each phrase is new in exactly one of them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from crochet_tasks.db import bulk
from crochet_tasks.db.tables import windows, work
from crochet_tasks.engine import runs, search
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import StoreCorrupt

UNFINISHED = ("open", "failed", "cancelled")
"""states of work whose outcome the store lacks; a dropped search is cancelled"""


class Window(NamedTuple):
    """What is searched because of a version: boxes that hold a line born in (since, version]."""

    version: int
    since: int
    due: bytes | None
    """packed ids of the due phrases in the numbering of `version`; None: all boxes are enumerated by origin word"""
    starts: int


def add(connection: Connection, corpus: int, window: Window) -> None:
    connection.execute(windows.insert().values(corpus=corpus, orthos=0, **window._asdict()))


def read(connection: Connection, corpus: int, version: int) -> Window:
    """The window that ends with a version. Raises StoreCorrupt where there is none."""
    query = "SELECT version, since, due, starts FROM windows WHERE corpus = %(corpus)s AND version = %(version)s"
    for row in bulk.rows(connection, query, {"corpus": corpus, "version": version}):
        return Window(*row)
    raise StoreCorrupt(problem=f"version {version} has no window; see 'crochet verify'")


def searched(window: Window, tree: Tree) -> search.Window:
    """A window as it is searched; `tree`: of its version. Raises StoreCorrupt where it is not what was written."""
    try:
        due = None if window.due is None else runs.unpack_set(window.due, tree.size)
    except runs.DamagedRun as error:
        problem = f"the window of version {window.version} is damaged ({error}); see 'crochet verify'"
        raise StoreCorrupt(problem=problem) from error
    found = search.Window(tree, window.since, due)
    if found.starts != window.starts:
        problem = f"the window of version {window.version} records {window.starts} starts, and has {found.starts}"
        raise StoreCorrupt(problem=f"{problem}; see 'crochet verify'")
    return found


def every(connection: Connection, corpus: int) -> list[Window]:
    """All windows of a corpus in their order."""
    query = "SELECT version, since, due, starts FROM windows WHERE corpus = %(corpus)s ORDER BY version"
    return [Window(*row) for row in bulk.rows(connection, query, {"corpus": corpus})]


def last(connection: Connection, corpus: int) -> int:
    """The version up to which the windows reach; 0 where there is none."""
    query = select(func.coalesce(func.max(windows.c.version), 0)).where(windows.c.corpus == corpus)
    return int(connection.execute(query).scalar_one())


def stored(connection: Connection, corpus: int, version: int, orthos: int) -> None:
    """Count what a search of a window stored. Call it behind tally.count, whose lock keeps it short."""
    mine = windows.c.corpus == corpus, windows.c.version == version
    connection.execute(update(windows).where(*mine).values(orthos=windows.c.orthos + orthos))


def growth(connection: Connection, corpus: int, total: int) -> dict[int, int]:
    """By the last version of each window: how many orthos of the corpus all lines of which are as old were stored.

    `total` are stored in all. Counted back from it, as far as it is known what each window brought.
    """
    query = select(windows.c.version, windows.c.orthos).where(windows.c.corpus == corpus)
    rows = [(version, brought) for version, brought in connection.execute(query.order_by(windows.c.version.desc()))]
    if all(brought is not None for _, brought in rows) and sum(brought for _, brought in rows) != total:
        rows = [(version, None) for version, _ in rows]  # a program that does not count stored some
    found: dict[int, int] = {}
    for version, brought in rows:
        found[version] = total
        if brought is None:
            break
        total -= brought
    return found


class Left(NamedTuple):
    """What is left of the search of a window: boxes that hold a line born in (since, version]."""

    version: int
    since: int
    starts: int
    starts_left: int
    """that no search has begun with"""
    left_over: int
    """parts that searches which began left over"""


def left(connection: Connection, corpus: int) -> list[Left]:
    """The windows whose search is not done."""
    return [Left(*row) for row in bulk.rows(connection, _LEFT, {"corpus": corpus})]


_LEFT = """
SELECT version, since, starts, starts_left, left_over
  FROM windows JOIN (
       SELECT subject, coalesce(sum(upper(part) - lower(part)), 0)::int AS starts_left, count(boxes)::int AS left_over
         FROM work WHERE corpus = %(corpus)s AND kind = 'search' AND state IN ('open', 'failed', 'cancelled')
        GROUP BY subject
       ) AS searches ON searches.subject = windows.version
 WHERE corpus = %(corpus)s ORDER BY version
"""


def unfinished(connection: Connection, corpus: int) -> bool:
    """Whether a search of the corpus is not done: orthos may be missing, and with them what they wait on."""
    of = work.c.corpus == corpus, work.c.kind == "search"
    first = (select(work.c.id).where(*of, work.c.state == state).order_by(work.c.created_at) for state in UNFINISHED)
    any_of_them = func.coalesce(*(each.limit(1).scalar_subquery() for each in first))
    return connection.execute(select(any_of_them)).scalar() is not None
