"""Checks of orthos against the oracle: exact ones, and probable ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from crochet_tasks import publish
from crochet_tasks.db import bulk
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.checks import Reason
from tests.support import oracle, steps
from tests.support.catalog import ALL, Snapshot, best_first, stored
from tests.support.statements import Statements
from tests.support.steps import TEXTS, ingest_all, new_corpus

pytestmark = pytest.mark.integration


def grid(sides: tuple[int, ...], words: tuple[str, ...], axes: Sequence[int]) -> Any:
    return np.array(words, object).reshape(sides).transpose(axes).tolist()


def test_ids_and_boxes_in_any_order_of_their_axes_are_found(catalog: Catalog, snapshot: Snapshot) -> None:
    assert stored(catalog.check(*snapshot.args, [ortho.id for ortho in ALL])) == [True] * len(ALL)
    for ortho in ALL:
        boxes = [grid(ortho.sides, ortho.words, axes) for axes in itertools.permutations(range(len(ortho.sides)))]
        result = catalog.check(*snapshot.args, boxes)
        assert (result.exact, result.version) == (True, 3)
        assert {tuple(checked) for checked in result.results} == {(True, ortho.id, ortho.sides, ortho.words, None)}


def test_a_snapshot_shows_its_own_orthos_whatever_came_since(process: Process, catalog: Catalog) -> None:
    corpus = new_corpus(process)
    found = [[ortho.id for ortho in best_first(TEXTS[:number])] for number in (1, 2, 3)]
    every, snapshots = found[-1], []
    with ExitStack() as opened:
        for text, shown in zip(TEXTS, found, strict=True):
            ingest_all(corpus, [text])
            snapshots.append(Snapshot(opened.enter_context(process.database.snapshot()), corpus))
            assert stored(catalog.check(*snapshots[-1].args, every)) == [one in shown for one in every]
        for snapshot, shown in zip(snapshots, found, strict=True):
            assert stored(catalog.check(*snapshot.args, every)) == [one in shown for one in every]
            for one in every[:: len(every) // 20]:
                ortho = catalog.by_id(*snapshot.args, one)
                assert (None if ortho is None else ortho.id) == (one if one in shown else None)


def test_what_is_no_ortho_is_refused_with_the_reason(catalog: Catalog, snapshot: Snapshot) -> None:
    cases: list[tuple[Any, Reason]] = [
        ("", Reason.MALFORMED_ID),
        ("g" * 32, Reason.MALFORMED_ID),
        ("0" * 32, Reason.NOT_FOUND),
        ([], Reason.NOT_A_BOX),
        (["a", "b"], Reason.NOT_A_BOX),
        ([["a", "b"], ["c"]], Reason.NOT_A_BOX),
        ([["a"], ["c"]], Reason.NOT_A_BOX),
        ([["a", ["b"]], ["c", "d"]], Reason.NOT_A_BOX),
        ([["a", "b"], "cd"], Reason.NOT_A_BOX),
        ([[[[[[[[["a"]]]]]]]]], Reason.NOT_A_BOX),
        ([["a", "b"], ["b", "d"]], Reason.SHELL),
        ([["a", "b"], ["c", "d"]], Reason.LINE),
        ([["a", "\ud800"], ["c", "d"]], Reason.LINE),
        ([[chr(97 + 9 * i + j) for j in range(9)] for i in range(2)], Reason.LIMITS),
    ]
    result = catalog.check(*snapshot.args, [case for case, _ in cases])
    assert [checked.reason for checked in result.results] == [reason for _, reason in cases]
    assert not any(stored(result))


def not_searched(process: Process) -> Corpus:
    """A corpus of one text, which is a version and whose searches are open."""
    corpus = new_corpus(process)
    steps.accept(corpus, TEXTS[0])
    while steps.version(process, corpus) == 0:
        publish.publish_next(corpus.id)
    return corpus


def test_a_box_that_is_still_to_be_found_says_so(catalog: Catalog, process: Process) -> None:
    corpus = not_searched(process)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        here = best_first(TEXTS[:1])[0]
        checked = catalog.check(*snapshot.args, [grid(here.sides, here.words, (1, 0))]).results[0]
    assert (checked.reason, checked.id) == (Reason.NOT_FOUND, here.id)


def test_probable_answers_miss_nothing_and_say_how_often_they_err(catalog: Catalog, snapshot: Snapshot) -> None:
    """Of ids: as often as a random half is a phrase's hash; of boxes never, as there is nothing left to be searched."""
    absent = [f"{number:032x}" for number in np.random.default_rng(1).integers(0, 1 << 62, 1000)]
    result = catalog.check(*snapshot.args, [ortho.id for ortho in ALL], exact=False)
    phrases = len(oracle.phrases(TEXTS, 8))
    assert (stored(result), result.exact, result.false_positives) == ([True] * len(ALL), False, phrases / 2**64)
    result = catalog.check(*snapshot.args, absent, exact=False)
    assert (any(stored(result)), result.exact, result.false_positives) == (False, True, 0.0)
    boxes = [grid(ortho.sides, ortho.words, range(len(ortho.sides))) for ortho in ALL]
    result = catalog.check(*snapshot.args, boxes, exact=False)
    assert (stored(result), result.exact, result.false_positives) == ([True] * len(ALL), False, 0.0)
    alike = ALL[0].id[:16] + "0" * 16  # made up from one that is stored
    assert stored(catalog.check(*snapshot.args, [alike], exact=False)) == [True]
    assert stored(catalog.check(*snapshot.args, [alike])) == [False]


def test_probable_answers_do_not_know_their_rate_while_searches_are_open(catalog: Catalog, process: Process) -> None:
    corpus = not_searched(process)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        boxes = [grid(ortho.sides, ortho.words, (1, 0)) for ortho in best_first(TEXTS[:1]) if len(ortho.sides) == 2]
        result = catalog.check(*snapshot.args, boxes, exact=False)
        assert (set(stored(result)), result.exact, result.false_positives) == ({True}, False, None)


def test_what_is_no_phrase_costs_no_statement(
    catalog: Catalog, snapshot: Snapshot, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A box with a line that is none, an id that begins as none: exact or not, once the phrases are known."""
    catalog.vocabulary(*snapshot.args)
    absent: list[Any] = [[["a", "b"], ["c", "d"]], [["a", "b"], ["b", "d"]], "x", ["a"], "0" * 32]
    monkeypatch.setattr(bulk, "_driver", None)
    statements = Statements(process, table="")
    with statements.noted():
        for exact in (True, False):
            assert stored(catalog.check(*snapshot.args, absent, exact=exact)) == [False] * 5
        assert all(stored(catalog.check(*snapshot.args, [ortho.id for ortho in ALL], exact=False)))
    assert statements.number == 0


def test_anybody_may_ask_which_database_this_is(process: Process) -> None:
    """Some managed servers give no user the superuser's rights."""
    rows = steps.sql(process, "SELECT proacl FROM pg_proc WHERE proname = 'pg_control_system'")
    assert [acl for (acl,) in rows] == [None]
