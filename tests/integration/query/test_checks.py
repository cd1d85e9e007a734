"""Checks of orthos against the oracle: exact ones, and probable ones."""

from __future__ import annotations

import itertools
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
from tests.support import steps
from tests.support.catalog import ALL, SECRET, Look, best_first, stored
from tests.support.steps import TEXTS, ingest_all, new_corpus

pytestmark = pytest.mark.integration


def grid(sides: tuple[int, ...], words: tuple[str, ...], axes: tuple[int, ...]) -> Any:
    return np.array(words, object).reshape(sides).transpose(axes).tolist()


def test_ids_and_boxes_in_any_order_of_their_axes_are_found(catalog: Catalog, look: Look) -> None:
    assert stored(catalog.check(*look.args, [ortho.id for ortho in ALL])) == [True] * len(ALL)
    for ortho in ALL:
        boxes = [grid(ortho.sides, ortho.words, axes) for axes in itertools.permutations(range(len(ortho.sides)))]
        result = catalog.check(*look.args, boxes)
        assert (result.exact, result.version) == (True, 3)
        assert {tuple(checked) for checked in result.results} == {(True, ortho.id, ortho.sides, ortho.words, None)}


def test_a_snapshot_shows_its_own_orthos_whatever_is_merged(
    process: Process, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids of batches that came since are in the runs and not in the answer, others are found though in no run."""
    monkeypatch.setattr("crochet_tasks.query.runs.FEW", 1)
    corpus = new_corpus(process)
    found = [[ortho.id for ortho in best_first(TEXTS[:number])] for number in (1, 2, 3)]
    every, looks = found[-1], []
    with ExitStack() as opened:
        for text, shown in zip(TEXTS, found, strict=True):
            ingest_all(corpus, [text])
            looks.append(Look(opened.enter_context(process.database.snapshot()), corpus))
            assert stored(catalog.check(*looks[-1].args, every)) == [one in shown for one in every]
            if len(looks) == 2:
                catalog.warm(corpus)
                refs = catalog.store.batch_list(looks[-1].connection, corpus.id).refs
                assert refs
                assert not catalog.runs.of(corpus.id).lacks(refs)
        for look, shown in zip(looks, found, strict=True):
            assert stored(catalog.check(*look.args, every)) == [one in shown for one in every]
            for one in every[:: len(every) // 20]:
                ortho = catalog.by_id(*look.args, one)
                assert (None if ortho is None else ortho.id) == (one if one in shown else None)


def test_what_is_no_ortho_is_refused_with_the_reason(catalog: Catalog, look: Look) -> None:
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
    result = catalog.check(*look.args, [case for case, _ in cases])
    assert [checked.reason for checked in result.results] == [reason for _, reason in cases]
    assert not any(stored(result))


def test_a_box_that_is_still_to_be_found_says_so(catalog: Catalog, process: Process) -> None:
    corpus = new_corpus(process)
    steps.accept(corpus, TEXTS[0])
    while steps.version(process, corpus) == 0:
        publish.publish_next(corpus.id)
    with process.database.snapshot() as connection:
        look = Look(connection, corpus)
        here = best_first(TEXTS[:1])[0]
        checked = catalog.check(*look.args, [grid(here.sides, here.words, (1, 0))]).results[0]
    assert (checked.reason, checked.id) == (Reason.NOT_FOUND, here.id)


def in_memory(process: Process, monkeypatch: pytest.MonkeyPatch) -> tuple[Catalog, Corpus]:
    """A catalog that has merged the batches of two of three texts into its runs, and a corpus with all three."""
    monkeypatch.setattr("crochet_tasks.query.runs.FEW", 1)
    catalog, corpus = Catalog(process, SECRET), new_corpus(process)
    ingest_all(corpus, TEXTS[:2])
    catalog.warm(corpus)
    ingest_all(corpus, TEXTS[2:])
    return catalog, corpus


def test_probable_answers_miss_nothing_and_seldom_err(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is in the runs nor what came since."""
    catalog, corpus = in_memory(process, monkeypatch)
    absent = [f"{number:032x}" for number in np.random.default_rng(1).integers(0, 1 << 62, 1000)]
    with process.database.snapshot() as connection:
        look = Look(connection, corpus)
        result = catalog.check(*look.args, [ortho.id for ortho in ALL], exact=False)
        assert (stored(result), result.exact) == ([True] * len(ALL), False)
        assert sum(stored(catalog.check(*look.args, absent, exact=False))) <= 10


def test_probable_answers_of_an_older_snapshot_know_nothing_newer(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id is looked up in the batches that the snapshot shows, whatever else is in the runs."""
    monkeypatch.setattr("crochet_tasks.query.runs.FEW", 1)
    catalog, corpus = Catalog(process, SECRET), new_corpus(process)
    ingest_all(corpus, TEXTS[:1])
    before = {ortho.id for ortho in best_first(TEXTS[:1])}
    with process.database.snapshot() as older:
        look = Look(older, corpus)
        catalog.shapes(*look.args)  # the snapshot begins with its first statement
        ingest_all(corpus, TEXTS[1:])
        catalog.warm(corpus)
        result = catalog.check(*look.args, [ortho.id for ortho in ALL], exact=False)
    assert stored(result) == [ortho.id in before for ortho in ALL]


def test_a_process_that_has_merged_nothing_answers_exactly(catalog: Catalog, look: Look) -> None:
    items: list[Any] = [ALL[0].id, "0" * 32, grid(ALL[-1].sides, ALL[-1].words, (0, 1))]
    result = catalog.check(*look.args, items, exact=False)
    assert (stored(result), result.exact) == ([True, False, True], True)


def test_what_memory_refutes_costs_no_read(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that is no ortho asks for no batch, exact or not; a probable answer reads none that is in a run."""
    catalog, corpus = in_memory(process, monkeypatch)
    catalog.warm(corpus)
    read: list[object] = []
    rows = bulk.rows
    with process.database.snapshot() as connection:
        look = Look(connection, corpus)
        catalog.store.index(*look.args)

        def counted(*of: Any) -> Any:
            read.append(of)
            return rows(*of)

        monkeypatch.setattr(bulk, "rows", counted)
        for exact in (True, False):
            boxes = [[["a", "b"], ["c", "d"]], [["a", "b"], ["b", "d"]], "x", ["a"]]
            assert stored(catalog.check(*look.args, boxes, exact=exact)) == [False] * 4
        assert read == []
        assert all(stored(catalog.check(*look.args, [ortho.id for ortho in ALL], exact=False)))
        assert len(read) == 1  # which batches there are


def test_anybody_may_ask_which_database_this_is(process: Process) -> None:
    """Some managed servers give nobody the superuser."""
    rows = steps.sql(process, "SELECT proacl FROM pg_proc WHERE proname = 'pg_control_system'")
    assert [acl for (acl,) in rows] == [None]
