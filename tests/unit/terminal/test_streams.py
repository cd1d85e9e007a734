"""Text from outside does nothing to a terminal."""

from __future__ import annotations

import json

import pytest

from crochet_tasks.terminal.streams import plain


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Genesis, chapter 1", "Genesis, chapter 1"),
        ("\x1b]0;owned\x07", "\\u001b]0;owned\\u0007"),
        ("\x9b31m", "\\u009b31m"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
        ("\u2066a\u2069", "\\u2066a\\u2069"),
        ("a\nb\tc\r", "a\\u000ab\\u0009c\\u000d"),
        ("\U000e0001", "\\udb40\\udc01"),
        ("\udcff", "\\udcff"),
        *[(text, text) for text in ("caf\u00e9 \u00a0 \u6771\u4eac", "\u0645\u06cc\u200c\u062e\u0648\u0627")],
    ],
)  # fmt: skip
def test_what_is_no_visible_character_is_escaped(raw: str, shown: str) -> None:
    assert plain(raw) == shown


def test_what_is_to_be_kept_stays() -> None:
    assert plain("a\n\x1bb", keep="\n") == "a\n\\u001bb"


def test_escaped_json_means_the_same() -> None:
    """So the one JSON object of a command can be escaped as a whole."""
    value = {"title": "\u202e\x9b\U000e0001 x"}
    escaped = plain(json.dumps(value, ensure_ascii=False))
    assert json.loads(escaped) == value
    assert escaped.isprintable()
