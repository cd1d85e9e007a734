"""Messages of two releases: each reads what the other one writes, or knows at least whose work it is."""

from __future__ import annotations

import uuid
from typing import ClassVar

import pytest
from pydantic import ValidationError

from crochet_tasks.broker import messages
from crochet_tasks.broker.messages import Envelope, SearchResult, Trigger

WORK = uuid.UUID(int=1)


class Next(Trigger):
    """As a release after this one may have it."""

    FORMAT: ClassVar[int] = 2

    format: int = 2
    hat: str = "none"


def test_the_first_format_is_not_written() -> None:
    """Releases that know no formats refuse it."""
    call = Trigger(corpus=1, work=WORK)
    result = SearchResult(corpus=1, work=WORK, found=[], left_over=[])
    assert call.payload() == {"corpus": 1, "work": str(WORK)}
    assert result.payload() == {**call.payload(), "written": None, "found": [], "left_over": []}


def test_an_older_format_is_read() -> None:
    read = messages.read(Next, Trigger(corpus=1, work=WORK).payload() | {"format": 1})
    assert (type(read), read.items) == (Next, [WORK])


def test_of_a_newer_format_the_work_is_read() -> None:
    payload = Next(corpus=1, work=WORK).payload()
    assert payload == {"format": 2, "corpus": 1, "work": str(WORK), "hat": "none"}
    read = messages.read(Trigger, payload)
    assert (type(read), read.format, read.corpus, read.items) == (Envelope, 2, 1, [WORK])


@pytest.mark.parametrize("payload", [{"corpus": 1}, {"corpus": 1, "work": str(WORK), "hat": "none"}, None, []])
def test_what_is_no_message_is_refused(payload: object) -> None:
    with pytest.raises(ValidationError):
        messages.read(Trigger, payload)
