"""The checker of histories finds what is wrong with one that is made up."""

from __future__ import annotations

import itertools

import pytest

from tests.support import history
from tests.support.history import Change, Seen


def changes(subject: str, *states: str) -> list[Change]:
    """One that was made, and went this way."""
    steps = [None, *({"state": state} for state in states)]
    return [Change(subject, before, after) for before, after in itertools.pairwise(steps)]


GOOD = changes("text 1", "accepted", "failed", "accepted", "ingested", "current")
KINDS = {"work a": "search", "work b": "ingest"}


def test_legal_paths_are_accepted() -> None:
    """Of texts and work, and also where another subject has a history of its own."""
    work = changes("work a", "open", "open", "failed", "open", "done") + changes("work b", "open", "done", "open")
    other = [Change("key 7", {"name": "x"}, None)]
    ends = {"text 1": "current", "work a": "done", "work b": "open"}
    history.paths([*GOOD, *work, *other], KINDS, ends)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (changes("text 2", "accepted", "current"), "went from accepted to current"),
        (changes("text 2", "accepted", "ingested", "current", "accepted"), "went from current to accepted"),
        (changes("text 2", "ingested"), "begins as ingested"),
        (changes("work a", "open", "done", "open"), "went from done to open"),
        (changes("work a", "open", "done", "done"), "went from done to done"),
        (changes("work a", "open") + changes("work a", "open"), "made twice"),
        (changes("work a", "open", "done")[1:], "begins with"),
        ([*changes("work a", "open"), Change("work a", {"state": "failed"}, {"state": "open"})], "was open, and then"),
    ],
)
def test_an_illegal_path_is_named(bad: list[Change], says: str) -> None:
    """What, and from which state to which."""
    with pytest.raises(AssertionError, match=says):
        history.paths([*GOOD, *bad], KINDS, {"text 1": "current"})


@pytest.mark.parametrize(
    ("ends", "says"),
    [({"text 1": "failed"}, "is failed, its history ends as current"), ({"work z": "open"}, "without")],
)
def test_a_history_ends_where_things_are(ends: dict[str, str], says: str) -> None:
    """And everything that is there has one."""
    with pytest.raises(AssertionError, match=says):
        history.paths(GOOD, KINDS, ends)


def test_reads_that_go_back_are_found() -> None:
    """A version, or a number of orthos, that is smaller than what any client has read."""
    seen = Seen()
    seen.read("harbour", 1, 10)
    seen.read("harbour", 2, 10)
    seen.read("market", 1, 1)
    with pytest.raises(AssertionError, match="was at version 2, and is at 1"):
        seen.read("harbour", 1, 10)
    with pytest.raises(AssertionError, match="had 10 orthos, and has 9"):
        seen.read("harbour", 2, 9)


def test_what_was_told_and_is_lost_is_found() -> None:
    """An accepted text, or an ortho."""
    seen = Seen()
    seen.accepted("harbour", "text-1", "a b")
    seen.found("harbour", ["1" * 32])
    seen.check("harbour", {"text-1": "a b", "text-2": "c d"}, {"1" * 32, "2" * 32})
    with pytest.raises(AssertionError, match="text-1 of harbour was accepted and is lost"):
        seen.check("harbour", {"text-2": "c d"}, {"1" * 32})
    with pytest.raises(AssertionError, match="they are gone"):
        seen.check("harbour", {"text-1": "a b"}, set())
