"""What forms have in common: numbers as people type them, and what is wrong in a sentence."""

from __future__ import annotations

import re

from pydantic import ValidationError

from api.problems import faults
from crochet_tasks.errors import CrochetError, LimitOutOfRange


def number(value: str | None) -> int | str | None:
    """As JSON would have it: a number, nothing, or what is wrong as it is."""
    plain = (value or "").replace(" ", "").replace("\u202f", "")
    return int(plain) if re.fullmatch("-?[0-9]{1,16}", plain) else plain or None


LABELS = {"max_axes": "Axes", "max_side": "Longest side", "max_cells": "Cells", "top": "How many"}
"""what forms call the fields that the API calls otherwise"""


def in_words(error: ValidationError | CrochetError) -> str:
    if isinstance(error, ValidationError):
        where = map(str, error.errors(include_input=False, include_url=False)[0]["loc"])
        field = [each for each in where if each.isidentifier()][-1]  # behind it may be which of several types it is
        return f"{LABELS.get(field) or field.replace('_', ' ').capitalize()} {faults(error)[0].message}."
    if isinstance(error, LimitOutOfRange) and (label := LABELS.get(str(error.context["limit"]))):
        error = LimitOutOfRange(**{**error.context, "limit": label})
    return f"{str(error)[:1].upper()}{str(error)[1:]}."
