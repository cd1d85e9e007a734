"""How people name texts and dead letters: `text-7`, `dead-3`. Work items go by the beginning of their ids."""

from __future__ import annotations

DEAD, TEXT = "dead", "text"


def text_name(number: int) -> str:
    return f"{TEXT}-{number}"
