"""Checks histories: each text and piece of work went a legal way, and clients never read that something went back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from crochet_tasks.db.process import Process
from tests.support import steps

WORK = {
    ("open", "open"),  # postponed
    ("open", "done"),
    ("open", "failed"),
    ("open", "cancelled"),
    ("failed", "open"),
    ("failed", "cancelled"),
    ("cancelled", "open"),
}
"""legal changes of a piece of work: docs/pipeline.md"""
AGAIN = WORK | {("done", "open")}
"""of work that is done again: its text is accepted again after its context failed; its job is planned again"""
TEXT = {
    ("accepted", "ingested"),
    ("ingested", "current"),
    ("accepted", "failed"),
    ("ingested", "failed"),
    ("accepted", "cancelled"),
    ("ingested", "cancelled"),
    ("failed", "accepted"),
    ("failed", "cancelled"),
    ("cancelled", "accepted"),
}

State = Mapping[str, Any]


class Change(NamedTuple):
    """A row of the audit trail; `before` is None where the subject was made, `after` where it was deleted."""

    subject: str
    before: State | None
    after: State | None


def paths(changes: Iterable[Change], kinds: Mapping[str, str], ends: Mapping[str, str]) -> None:
    """Raise AssertionError unless each "text N" and "work N" went a legal way to the state that it has.

    `changes` in the order in which they happened, `kinds` of work, and of what there is the state.
    """
    history: dict[str, list[Change]] = {}
    for change in changes:
        if change.subject.startswith(("text ", "work ")):
            history.setdefault(change.subject, []).append(change)
    assert set(ends) <= set(history), f"without a history: {sorted(set(ends) - set(history))[:3]}"
    for subject, (first, *rest) in history.items():
        is_text = subject.startswith("text")
        assert first.before is None, f"{subject} begins with {first}"
        assert first.after is not None
        state = first.after["state"]
        assert state == ("accepted" if is_text else "open"), f"{subject} begins as {state}"
        kind = first.after.get("kind") or kinds.get(subject)
        legal = TEXT if is_text else AGAIN if kind in ("ingest", "context", "best") else WORK
        for _, before, after in rest:
            assert before is not None, f"{subject} was made twice"
            assert before["state"] == state, f"{subject} was {state}, and then {before['state']}"
            if after is None:
                continue
            state = after["state"]
            assert (before["state"], state) in legal, f"{subject} went from {before['state']} to {state}"
        assert ends.get(subject, state) == state, f"{subject} is {ends[subject]}, its history ends as {state}"


def check_paths(process: Process) -> int:
    """`paths` of a whole database; how many changes there were."""
    rows = steps.sql(process, "SELECT subject, before, after FROM audit ORDER BY id")
    changes = [Change(str(subject), before, after) for subject, before, after in rows]  # type: ignore[arg-type]
    kinds = {str(name): str(kind) for name, kind in steps.sql(process, "SELECT 'work ' || id, kind FROM work")}
    states = "SELECT 'work ' || id, state FROM work UNION ALL SELECT 'text ' || id, state::text FROM texts"
    paths(changes, kinds, {str(name): str(state) for name, state in steps.sql(process, states)})
    return len(changes)


class Seen:
    """What clients have read, from any server. Reads that follow on each other never go back."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[int, int]] = {}
        self._texts: dict[str, dict[str, str]] = {}
        self._orthos: dict[str, set[str]] = {}

    def read(self, corpus: str, version: int, orthos: int) -> None:
        """A read that began when all those before it had ended."""
        before = self._read.get(corpus, (0, 0))
        assert version >= before[0], f"{corpus} was at version {before[0]}, and is at {version}"
        assert orthos >= before[1], f"{corpus} had {before[1]} orthos, and has {orthos}"
        self._read[corpus] = (version, orthos)

    def accepted(self, corpus: str, text: str, body: str) -> None:
        """A client has read that its text is accepted."""
        self._texts.setdefault(corpus, {})[text] = body

    def found(self, corpus: str, orthos: Iterable[str]) -> None:
        """A client read orthos of these ids."""
        self._orthos.setdefault(corpus, set()).update(orthos)

    def bodies(self, corpus: str) -> list[str]:
        return list(self._texts.get(corpus, {}).values())

    def ids(self, corpus: str) -> set[str]:
        return self._orthos.get(corpus, set())

    def check(self, corpus: str, texts: Mapping[str, str], orthos: set[str]) -> None:
        """Raise AssertionError unless the texts and orthos that are there hold all that clients have read."""
        for text, body in self._texts.get(corpus, {}).items():
            assert texts.get(text) == body, f"{text} of {corpus} was accepted and is lost"
        gone = self.ids(corpus) - orthos
        assert not gone, f"{corpus} had the orthos {sorted(gone)[:3]}, and they are gone"
