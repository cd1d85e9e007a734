"""How many rows the statements of a piece of code read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event

from crochet_tasks.db.process import Process


def rows_read(plan: dict[str, Any], table: str) -> int:
    """How many rows of the table a plan read, those that a condition removed included."""
    removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
    of_this = plan["Actual Rows"] + removed if plan.get("Relation Name") == table else 0
    return int(of_this * plan["Actual Loops"]) + sum(rows_read(part, table) for part in plan.get("Plans", []))


class Statements:
    """The statements that name a table, and how many of its rows each reads."""

    def __init__(self, process: Process, table: str = "work") -> None:
        self._engine, self._table = process.database.engine, table
        self._seen: list[tuple[str, Any]] = []

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
            if self._table in statement:
                self._seen.append((statement, parameters))

        event.listen(self._engine, "before_cursor_execute", note)
        try:
            yield
        finally:
            event.remove(self._engine, "before_cursor_execute", note)

    @property
    def number(self) -> int:
        return len(self._seen)

    def rows(self) -> dict[str, int]:
        """Per statement, how many rows of the table it reads; it is run again for that, and rolled back."""
        read = {}
        for statement, parameters in self._seen:
            with contextlib.closing(self._engine.raw_connection()) as connection:
                cursor = connection.cursor()
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                found: Any = cursor.fetchone()
                connection.rollback()
            read[statement] = rows_read(found[0][0]["Plan"], self._table)
        return read
