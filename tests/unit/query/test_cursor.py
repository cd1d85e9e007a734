"""Cursors: only what this deployment made for this question is taken; anything else is InvalidCursor, never a crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.errors import InvalidCursor
from crochet_tasks.query.cursor import MOST_CHARACTERS, opened, sealed

SECRET, QUESTION = b"a secret", ["orthos", 7, None]


@given(st.binary(max_size=60))
def test_a_position_comes_back(position: bytes) -> None:
    assert opened(SECRET, QUESTION, sealed(SECRET, QUESTION, position)) == position


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda each: each.decode("latin-1"))))
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        opened(SECRET, QUESTION, cursor)


@given(st.binary(max_size=40), st.data())
def test_a_changed_one_is_refused(position: bytes, data: st.DataObject) -> None:
    """A character that is another one, is missing or too many; also where base64 would decode to the same bytes."""
    cursor = sealed(SECRET, QUESTION, position)
    place = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.one_of(st.just(""), st.characters(), st.text(min_size=2, max_size=4)))
    changed = cursor[:place] + other + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidCursor):
            opened(SECRET, QUESTION, changed)


def test_that_of_another_question_or_deployment_is_refused() -> None:
    cursor = sealed(SECRET, QUESTION, b"here")
    for secret, question in ((SECRET, ["orthos", 8, None]), (b"another", QUESTION)):
        with pytest.raises(InvalidCursor):
            opened(secret, question, cursor)
    with pytest.raises(InvalidCursor):
        opened(SECRET, QUESTION, sealed(SECRET, QUESTION, bytes(MOST_CHARACTERS)))
