"""Messages of two releases: each reads what the other one writes, or knows at least whose work it is."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from crochet_tasks.broker import messages
from crochet_tasks.broker.messages import Envelope, FoundBatch, Message, SearchResult, Trigger

WORK = uuid.UUID(int=1)
BATCH = FoundBatch(sides=(2, 2), count=1, first="a b", last="a b", packed=b"rows", phrases=b"set")
RESULT = SearchResult(corpus=1, work=WORK, found=[BATCH], left_over=[(1, 2), b"box"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
"""what msgpack and JSON can hold"""


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


def _read(kind: type[Message], payload: object) -> Message | None:
    try:
        return messages.read(kind, payload)
    except ValidationError:
        return None


@given(st.sampled_from([Trigger, SearchResult]), ANY)
def test_any_value_is_refused(kind: type[Message], payload: object) -> None:
    assert _read(kind, payload) is None


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [path, *(found for key in keys for found in _places(value[key], (*path, key)))]


def _replaced(value: Any, path: tuple[Any, ...], by: object) -> Any:
    if not path:
        return by
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = _replaced(value[path[0]], path[1:], by)
    return changed


@given(st.sampled_from(_places(RESULT.payload())), ANY)
def test_a_result_with_any_value_at_any_place_is_a_message_or_refused(path: tuple[Any, ...], value: object) -> None:
    """One that is read can be shown and sent again, and is the same then."""
    found = _read(SearchResult, _replaced(RESULT.payload(), path, value))
    if isinstance(found, SearchResult):
        assert str(found).startswith("corpus ")
        assert messages.read(SearchResult, found.payload()) == found
