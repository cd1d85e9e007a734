"""How operators name work: by the beginning of its id, a text by `text-NUMBER`, a dead letter by `dead-NUMBER`."""

from __future__ import annotations

import re
import uuid

from crochet_tasks.db import Connection, dead_letters, operators
from crochet_tasks.db.dead_letters import DeadLetterRow
from crochet_tasks.db.operators import ENDED, WorkRow
from crochet_tasks.db.tally import OF_A_TEXT, OPEN
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import (
    WorkAmbiguous,
    WorkUnknown,
    WrongCall,
)
from crochet_tasks.schemas.names import DEAD, TEXT, number_in

STATES = ("open", *OPEN, *ENDED, DEAD)
"""states to list work by; `open` is every state of open work, `dead` the dead letters"""
FEWEST_DIGITS = 4
Target = WorkRow | TextRow | DeadLetterRow


def find(connection: Connection, name: str) -> Target:
    """The work, text or dead letter of that name; raises WorkUnknown, WorkAmbiguous, or WrongCall (too short)."""
    found: Target | None
    if (number := number_in(name, TEXT)) is not None:
        found = operators.text_row(connection, number)
    elif (number := number_in(name, DEAD)) is not None:
        found = dead_letters.one(connection, number)
    else:
        return _by_beginning(connection, name)
    if found is None:
        raise WorkUnknown(work=name)
    return found


def _by_beginning(connection: Connection, name: str) -> WorkRow:
    digits = name.lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        raise WorkUnknown(work=name)
    if len(digits) < FEWEST_DIGITS:
        raise WrongCall(problem=f"'{name}' is too short: give {FEWEST_DIGITS} or more digits of the id")
    low, high = (uuid.UUID(digits.ljust(32, end)) for end in "0f")
    if "-" in name and not str(low).startswith(name.lower()):
        raise WorkUnknown(work=name)
    found = operators.with_ids_between(connection, low, high)
    if not found:
        raise WorkUnknown(work=name)
    if len(found) > 1:
        raise WorkAmbiguous(work=name)
    return found[0]


def text_of(connection: Connection, target: Target) -> TextRow | None:
    """The text itself, or the text that a work item belongs to."""
    if isinstance(target, WorkRow) and target.kind in OF_A_TEXT:
        return operators.text_row(connection, target.subject)
    return target if isinstance(target, TextRow) else None
