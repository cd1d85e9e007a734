"""Split a text into sentences and words.

The rules: NFC; one kind of line break and apostrophe; invisible characters vanish; a sentence ends at terminal
punctuation (but for colons and word dividers), at an ellipsis and at a blank line; letters, marks and apostrophes make
words, everything else separates them; lower case.

Which characters are letters and marks and which end sentences comes from `regex`, a pinned package, and not from the
version of Python: a corpus read in parts by two Pythons is one reading.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import regex

RULES = 2
"""number of the reading rules that `sentences` follows"""
UNICODE = "18.0"
"""version of the Unicode properties that the pinned `regex` has"""
READING = f"{RULES}/{UNICODE}"
"""how a text was read, as a corpus records it: texts that were read differently make no common closure"""

END = "\0"
"""stands where a sentence ended"""
# Colons and word dividers; and the Greek ano teleia, which NFC makes a middle dot before any sentence is cut.
_NO_END = "\u003a\uff1a\u1361\u16eb\u16ec\u16ed\U0001039f\U000103d0\U0001091f\U00012470\u0387"
_END_OF_SENTENCE = regex.compile(rf"[\p{{Terminal_Punctuation}}\u2026--{_NO_END}]", regex.V1)
_BLANK_LINE = regex.compile(r"\n\p{White_Space}*\n")
_BROKEN_WORD = regex.compile(
    r"\u00ad[\p{White_Space}--\n]*\n(?![\p{White_Space}--\n]*\n)[\p{White_Space}--\n]*", regex.V1
)
_PART_OF_WORD = regex.compile(r"[\p{L}\p{M}'\p{White_Space}]")
_LETTER = regex.compile(r"\p{L}")
_TYPOGRAPHY = str.maketrans(
    {
        "\r": "\n",
        "\u0085": "\n",
        "\u2028": "\n",
        "\u2029": "\n\n",
        "\u2019": "'",
        "\u200b": " ",
        END: " ",
        # Invisible inside words:
        "\u200c": None,
        "\u200d": None,
        "\u2060": None,
        "\ufeff": None,
    }
)


def sentences(text: str) -> list[list[str]]:
    """The words of each sentence of `text`, in reading order; sentences without words are left out."""
    one: dict[str, str] = {}  # a word that comes again is the same object: a book would hold a million of them
    words_of_each = (
        [one.setdefault(word, word) for word in part.split() if is_word(word)] for part in plain(text).split(END)
    )
    return [words for words in words_of_each if words]


def plain(text: str) -> str:
    """The words in lower case, with white space between them; END is a word of its own, too."""
    text = _BLANK_LINE.sub(END, _lines(text))
    # One table for the text's own alphabet, a character for a character: translate() is fast then whatever the script.
    table = {}
    for char in set(text) - {END}:
        if _END_OF_SENTENCE.match(char):
            table[ord(char)] = END
        elif not _PART_OF_WORD.match(char):
            table[ord(char)] = " "
    # Lower-casing can take letters apart, so NFC comes once more.
    return unicodedata.normalize("NFC", text.translate(table).replace(END, f" {END} ").lower())


def is_word(token: str) -> bool:
    """Whether what stands between white space is a word: it has a letter."""
    return (token.isascii() and token[:1].isalpha()) or _LETTER.search(token) is not None


def portions(text: str, size: int) -> Iterator[str]:
    """The text in pieces of `size` characters and a little more, each of which ends where a sentence does."""
    begin = 0
    while begin < len(text):
        mark = _END_OF_SENTENCE.search(text, begin + size)
        end = mark.end() if mark else len(text)
        yield text[begin:end]
        begin = end


def normalised(word: str) -> str:
    """A word as a user typed it, as it would stand in a sentence; it need not be one."""
    return unicodedata.normalize("NFC", _lines(word).lower()).strip()


def _lines(text: str) -> str:
    """Rule 1: NFC, one kind of line break and apostrophe, nothing invisible, words broken at a soft hyphen joined."""
    text = text.replace("\r\n", "\n")
    if text.isascii():  # the same, quicker
        return text.replace("\r", "\n").replace(END, " ")
    text = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY)
    return _BROKEN_WORD.sub("", text).replace("\u00ad", "") if "\u00ad" in text else text
