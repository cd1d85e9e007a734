"""Values from outside: numbers in one notation, and what is wrong with a value in our words.

For settings, options of commands, and requests to the API.
"""

from __future__ import annotations

import re
from typing import Any, Literal

_MESSAGES: dict[str, str] = {
    "extra_forbidden": "is unknown here",
    "missing": "is missing",
    "string_type": "must be a string",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "string_unicode": "must be Unicode text, without half surrogate pairs",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number, in decimal digits",
    "int_parsing_size": "must be a whole number that is not as long as that",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number, such as 2.5",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be on or off",
    "path_type": "must be a path",
    "datetime_parsing": "must be a time, such as 2026-11-28T12:00",
    "datetime_from_date_parsing": "must be a time, such as 2026-11-28T12:00",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "too_long": "must have at most {max_length} items",
    "too_short": "must have at least {min_length} items",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
"""by pydantic's types of errors, which the API's answers have as codes"""


def problem(kind: str, context: dict[str, Any]) -> str:
    """Return the words for an error of this type, with its context, as pydantic's `errors()` lists them."""
    if kind == "value_error":  # a validator of ours raised it
        return str(context.get("error", "is not valid"))
    if kind == "string_too_short" and context.get("min_length") == 1:
        return "must not be empty"
    named = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    return _MESSAGES.get(kind, "is not valid").format(**named)


def whole(text: str) -> int:
    """Return a whole number. Raises ValueError for what others read otherwise or not: 1_000, +5, 1.0, 010, ٣."""
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text):
        raise ValueError("must be a whole number, in decimal digits")
    return int(text)


def decimal(text: str) -> float:
    """As `whole`, for a number with or without a fraction."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", text):
        raise ValueError("must be a number, such as 30 or 2.5")
    return float(text)


MOST_ORTHOS = 2**53 - 1
"""the largest budget: JSON has no larger whole numbers that every program reads"""


def budget(value: object) -> int | Literal["all"]:
    """Return a budget of orthos, as options and settings have it; raises ValueError."""
    text = str(value)
    if text == "all":
        return "all"
    if not re.fullmatch(r"[1-9][0-9]{0,15}", text) or int(text) > MOST_ORTHOS:
        raise ValueError("must be a number of orthos, at least 1, or 'all'")
    return int(text)
