"""How people name texts, dead letters and searches for the best: `text-7`, `dead-3`, `best-2`.

Work items go by the beginning of their ids.
"""

from __future__ import annotations

import re

BEST, DEAD, TEXT = "best", "dead", "text"
NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""what corpora and tenants may be called"""
TITLE = r"^[^\x00-\x1f\x7f]*$"
UNTITLED = "untitled"
"""the title of a text that is given none"""
TITLE_LENGTH = 200
"""a title of a text that comes by the API or a task: so many characters at the most, and none a control character"""


def number_in(name: str, kind: str) -> int | None:
    """The number in the name of a text, dead letter or search; None where it is no such name."""
    found = re.fullmatch(rf"{kind}-([1-9][0-9]{{0,17}})", name)
    return None if found is None else int(found[1])


def text_name(number: int) -> str:
    return f"{TEXT}-{number}"


def best_name(job: int) -> str:
    return f"{BEST}-{job}"


def title_of(file: str) -> str:
    """A title for a text that came as a file of this name, which may be any name: its end counts most."""
    return re.sub(r"[\x00-\x1f\x7f]+", " ", file.encode(errors="replace").decode()).strip()[-TITLE_LENGTH:] or UNTITLED
