"""From text to the words of its sentences (1-domain, "Text to phrases", rules 1 to 3)."""

from __future__ import annotations

import re
import unicodedata

_SENTENCE_END = re.compile(r"[.?!;,]|\n\s*\n")


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence of `text`, in reading order; sentences without words are left out."""
    text = unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").replace("\u2019", "'")
    # One table for the text's own alphabet: translate() then works at C speed whatever the script.
    separators = {ord(char): " " for char in set(text) if not _belongs_to_words(char)}
    words_of_each = (
        [word for word in part.translate(separators).lower().split() if any(map(str.isalpha, word))]
        for part in _SENTENCE_END.split(text)
    )
    return [words for words in words_of_each if words]


def _belongs_to_words(char: str) -> bool:
    return char == "'" or char.isspace() or unicodedata.category(char)[0] in "LM"


def normalised(word: str) -> str:
    """A word that somebody typed, as it would stand in a sentence; it need not be one."""
    return unicodedata.normalize("NFC", word).replace("\u2019", "'").lower().strip()
