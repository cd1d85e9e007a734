"""The texts that are measured: a real one where it is there, and one with a Zipf vocabulary made on the spot."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared"
GENESIS = SHARED / "texts" / "genesis.txt"
YARDSTICK = SHARED / "yardstick" / "two_rows.cpp"


def genesis() -> list[str] | None:
    """The verses of Genesis; None where the text is not at hand."""
    return GENESIS.read_text(encoding="utf-8").split("\n\n") if GENESIS.exists() else None


def renamed(paragraphs: list[str], copy: int) -> list[str]:
    """The same paragraphs in other words, of which no other copy has one; copy 0 is the text itself."""
    mark = "".join("abcdefghij"[int(digit)] for digit in str(copy))
    return [re.sub(r"[^\W\d_]+", rf"\g<0>q{mark}", paragraph) for paragraph in paragraphs] if copy else paragraphs


def zipf(words: int = 24_000, vocabulary: int = 4_000, seed: int = 1) -> list[str]:
    """Paragraphs of made-up sentences, the same ones at every call.

    Word frequencies follow Zipf's law; and as in real texts what follows what is not left to chance: after each word
    come mostly its own few followers, themselves drawn by frequency.
    """
    random = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, vocabulary + 1)
    frequency /= frequency.sum()
    followers = random.choice(vocabulary, (vocabulary, 12), p=frequency)
    names = [_name(number) for number in range(vocabulary)]
    paragraphs: list[str] = []
    made = 0
    while made < words:
        sentences = []
        for length in random.integers(4, 13, 4):
            word = int(random.choice(vocabulary, p=frequency))
            sentence = [names[word]]
            for _ in range(length - 1):
                own = random.random() < 0.9
                word = int(
                    followers[word, min(11, random.geometric(0.35) - 1)]
                    if own
                    else random.choice(vocabulary, p=frequency)
                )
                sentence.append(names[word])
            sentences.append(" ".join(sentence))
            made += int(length)
        paragraphs.append(", ".join(sentences) + ".")
    return paragraphs


def _name(number: int) -> str:
    """A pronounceable word for a number, frequent ones short."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    name = ""
    while True:
        number, rest = divmod(number, len(syllables))
        name += syllables[rest]
        if not number:
            return name
        number -= 1
