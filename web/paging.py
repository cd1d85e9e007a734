"""Lists, newest first, paged both ways: the address says from which row on, so a page stays where it is.

`?after=CURSOR` are the rows that are older than that one, `?before=CURSOR` those that are newer. A cursor is the key of
a row, in plain sight: made up, it only leads to another place of the same list.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from flask import request

from crochet_tasks.db.operators import Place
from crochet_tasks.errors import InvalidCursor

R = TypeVar("R")
AT_ONCE = 50
LARGEST = 2**63 - 1
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


@dataclass(frozen=True)
class Page(Generic[R]):
    """Rows, newest first, and the cursors that lead to newer and older ones; None: there are none."""

    rows: list[R]
    newer: str | None
    older: str | None


class Turn(NamedTuple):
    """Where a page begins: behind the row of a cursor, to newer rows or to older ones. Without one: at the newest."""

    cursor: str | None = None
    newer: bool = False


def turned(load: Callable[[Turn, int], list[R]], cursor: Callable[[R], str]) -> Page[R]:
    """The page that the address asks for. `load` returns at most so many rows, those next to the cursor first."""
    most = AT_ONCE
    before = request.args.get("before")
    turn = Turn(before, newer=True) if before else Turn(request.args.get("after") or None)
    found = load(turn, most + 1)
    if turn.newer and len(found) <= most:  # there are no more: the first page, and that is full
        turn = Turn()
        found = load(turn, most + 1)
    rows, more = found[:most], len(found) > most
    if turn.newer:
        rows.reverse()
        return Page(rows, cursor(rows[0]), cursor(rows[-1]))
    return Page(rows, cursor(rows[0]) if turn.cursor and rows else None, cursor(rows[-1]) if more else None)


def numbered(load: Callable[..., list[tuple[int, R]]]) -> Page[R]:
    """The page of a list whose cursors are the numbers of its rows: `load(begin, most, newer=...)`."""
    page = turned(
        lambda turn, most: load(number(turn.cursor), most, newer=turn.newer), lambda numbered: str(numbered[0])
    )
    return Page([row for _, row in page.rows], page.newer, page.older)


def number(cursor: str | None) -> int | None:
    """Raises InvalidCursor."""
    if cursor is None:
        return None
    if not re.fullmatch("[1-9][0-9]{0,18}", cursor, re.ASCII) or int(cursor) > LARGEST:
        raise InvalidCursor
    return int(cursor)


def of_place(place: Place) -> str:
    return f"{(place.at - _EPOCH) // _MICROSECOND}.{place.id.hex}"


def place(turn: Turn) -> Place | None:
    """The row of the list of work that a cursor stands for. Raises InvalidCursor."""
    if turn.cursor is None:
        return None
    parts = re.fullmatch(r"([0-9]{1,17})\.([0-9a-f]{32})", turn.cursor, re.ASCII)
    if parts is None:
        raise InvalidCursor
    return Place(_EPOCH + int(parts[1]) * _MICROSECOND, uuid.UUID(parts[2]), turn.newer)
