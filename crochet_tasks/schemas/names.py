"""How people name texts and dead letters: `text-7`, `dead-3`. Work items go by the beginning of their ids."""

from __future__ import annotations

DEAD, TEXT = "dead", "text"
TITLE = r"^[^\x00-\x1f\x7f]*$"
UNTITLED = "untitled"
"""the title of a text that is given none"""
TITLE_LENGTH = 200
"""a title of a text that comes by the API or a task: so many characters at the most, and none a control character"""


def text_name(number: int) -> str:
    return f"{TEXT}-{number}"
