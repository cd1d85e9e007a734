"""Sentences with a phrase marked in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """Words of a sentence that follow each other; `marked`: they are the phrase."""

    words: str
    marked: bool


def marked(sentence: Sequence[str], phrase: Sequence[str]) -> list[Part]:
    """A sentence in parts. Where the phrase stands in it several times, also with words in common, all are marked."""
    inside = [False] * len(sentence)
    for place in range(len(sentence) - len(phrase) + 1):
        if list(sentence[place : place + len(phrase)]) == list(phrase):
            inside[place : place + len(phrase)] = [True] * len(phrase)
    parts: list[Part] = []
    for word, is_marked in zip(sentence, inside, strict=True):
        if parts and parts[-1].marked == is_marked:
            parts[-1] = Part(f"{parts[-1].words} {word}", is_marked)
        else:
            parts.append(Part(word, is_marked))
    return parts
