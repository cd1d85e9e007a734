"""From text to the words of its sentences (1-domain, "Text to phrases", rules 1 to 3)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

END = "\0"
"""stands where a sentence ended"""
_SENTENCE_END = re.compile(r"[.?!;,]|\n\s*\n")
_MARK = re.compile("[.?!;,]")


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence of `text`, in reading order; sentences without words are left out."""
    words_of_each = ([word for word in part.split() if is_word(word)] for part in plain(text).split(END))
    return [words for words in words_of_each if words]


def plain(text: str) -> str:
    """The words in lower case, with white space between them; END is a word of its own, too."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").replace("\u2019", "'")
    text = f" {END} ".join(_SENTENCE_END.split(text.replace(END, " ")))
    # One table for the text's own alphabet: translate() then works at C speed whatever the script.
    separators = {ord(char): " " for char in set(text) if char != END and not _belongs_to_words(char)}
    return text.translate(separators).lower()


def is_word(token: str) -> bool:
    """Whether what stands between white space is a word: it has a letter."""
    return any(map(str.isalpha, token))


def portions(text: str, size: int) -> Iterator[str]:
    """The text in pieces of `size` characters and a little more, each of which ends where a sentence does."""
    begin = 0
    while begin < len(text):
        mark = _MARK.search(text, begin + size)
        end = mark.end() if mark else len(text)
        yield text[begin:end]
        begin = end


def _belongs_to_words(char: str) -> bool:
    return char == "'" or char.isspace() or unicodedata.category(char)[0] in "LM"


def normalised(word: str) -> str:
    """A word that somebody typed, as it would stand in a sentence; it need not be one."""
    return unicodedata.normalize("NFC", word).replace("\u2019", "'").lower().strip()
