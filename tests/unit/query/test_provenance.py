"""Texts as numbers, in which phrases are looked up."""

import pytest
from hypothesis import given
from hypothesis.strategies import integers

from crochet_tasks.engine.phrases import index_of
from crochet_tasks.query import provenance
from crochet_tasks.query.provenance import Parsed
from tests.support import oracle
from tests.support.strategies import unicode_texts


@given(unicode_texts(), integers(0, 9))
def test_a_text_is_read_in_pieces(text: str, size: int) -> None:
    """However small they are, its sentences are those of the oracle, and each phrase stands first where it does."""
    parsed_sentences = oracle.sentences(text)
    index = index_of([parsed_sentences], 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(provenance, "PIECE", size)
        parsed = Parsed.of(text, index)
    assert [list(parsed.sentence(number, index)) for number in range(len(parsed.start))] == parsed_sentences
    for number, words in enumerate(parsed_sentences):
        for word in words:
            first = next(place for place, other in enumerate(parsed_sentences) if word in other)
            assert parsed.first([index.number(word)]) == first <= number
