"""Texts for deployments to work on: the samples, cut."""

from __future__ import annotations

import itertools
import re

from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"


def pieces(name: str, number: int) -> list[str]:
    """A sample text as so many texts, each of some of its sentences: the first ones have one more where it must be."""
    sentences = re.findall(r"[^.?!]+[.?!]", (EXAMPLES / name).read_text(encoding="utf-8"))
    assert len(sentences) >= number
    least, more = divmod(len(sentences), number)
    ends = [least * place + min(place, more) for place in range(number + 1)]
    return ["".join(sentences[start:end]) for start, end in itertools.pairwise(ends)]
