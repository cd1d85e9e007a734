"""The context against the oracle: words and phrases, and what waits on them."""

from __future__ import annotations

from collections import Counter

import pytest

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.errors import PhraseUnknown, StoreCorrupt
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.vocabulary import Branch
from tests.support import oracle, steps
from tests.support.catalog import ALL, MORE, SECRET, Snapshot, all_waiting, best_first, in_runs, joined, pages
from tests.support.steps import TEXTS, ingest_all

pytestmark = pytest.mark.integration


def test_words_and_phrases_are_those_of_the_texts(catalog: Catalog, snapshot: Snapshot) -> None:
    expected = oracle.phrases(TEXTS, 8)
    words = sorted((phrase[0], born) for phrase, born in expected.items() if len(phrase) == 1)
    for limit in (1, 4, 1000):
        read: list[tuple[str, int]] = []
        cursor = None
        while True:
            page = catalog.vocabulary(*snapshot.args, limit=limit, cursor=cursor)
            read += [(each.word, each.born) for each in page.words]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert read == words
    assert [each.word for each in catalog.vocabulary(*snapshot.args, "A").words] == ["a"]
    assert catalog.vocabulary(*snapshot.args, "zz").words == []
    for prefix in [(), *expected]:
        longer = sorted(phrase for phrase in expected if phrase[:-1] == prefix)
        found: list[tuple[tuple[str, ...], int, int]] = []
        cursor = None
        while True:
            some = catalog.phrases(*snapshot.args, prefix, 2, cursor)
            found += [(tuple(each.words), each.born, each.continuations) for each in some.phrases]
            cursor = some.next_cursor
            if cursor is None:
                break
        follow = [sum(1 for other in expected if other[:-1] == phrase) for phrase in longer]
        assert found == [(p, expected[p], n) for p, n in zip(longer, follow, strict=True)]
        assert (tuple(some.prefix), some.born) == (prefix, expected.get(prefix, 0))
    with pytest.raises(PhraseUnknown):
        catalog.phrases(*snapshot.args, ["a", "a"])


def test_an_older_snapshot_shows_its_own_version(
    catalog: Catalog, process: Process, closed: Corpus, snapshot: Snapshot
) -> None:
    words, phrases = catalog.vocabulary(*snapshot.args), catalog.phrases(*snapshot.args, ["b"])
    waiting = all_waiting(catalog, snapshot)
    ingest_all(closed, [MORE])
    with process.database.snapshot() as connection:
        newer = Snapshot(connection, closed)
        assert len(catalog.vocabulary(*newer.args).words) > len(words.words)
        assert joined(pages(catalog, newer, 100)) == best_first([*TEXTS, MORE])
        assert all_waiting(catalog, newer) == all_waiting(Catalog(process, SECRET), newer)
        assert all_waiting(catalog, newer) != waiting
    assert all_waiting(catalog, snapshot) == waiting
    assert catalog.vocabulary(*snapshot.args) == words
    assert catalog.phrases(*snapshot.args, ["b"]) == phrases
    assert joined(pages(catalog, snapshot, 100)) == ALL
    assert not catalog.check(*snapshot.args, [[["a", "b"], ["x", "z"]]]).results[0].stored


def test_the_orthos_of_which_a_phrase_is_a_line_wait_on_it(catalog: Catalog, process: Process) -> None:
    """In as many batches as there are orthos, so each of them counts by itself."""
    corpus = in_runs(process, TEXTS, 1000)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        for phrase in oracle.phrases(TEXTS, 8):
            found = catalog.waiting_on(*snapshot.args, phrase, 2)
            due = [ortho for ortho in ALL if phrase in oracle.lines(ortho.sides, ortho.words)]
            shapes = Counter(ortho.sides for ortho in due)
            assert {tuple(shape.shape): shape.orthos for shape in found.shapes} == shapes
            assert sum(shape.batches for shape in found.shapes) == len(found.batches) + found.more
            assert len(found.batches) == min(2, len(found.batches) + found.more)
            assert (tuple(found.phrase), found.at_least) == (phrase, False)
        with pytest.raises(PhraseUnknown):
            catalog.waiting_on(*snapshot.args, ["none"])


def test_what_waits_is_counted_in_a_bounded_number_of_batches(
    catalog: Catalog, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = catalog.waiting_on(*snapshot.args, ["a", "b"])
    monkeypatch.setattr("crochet_tasks.query.vocabulary.READ_AT_ONCE", 2)
    part = catalog.waiting_on(*snapshot.args, ["a", "b"])
    assert (whole.at_least, part.at_least) == (False, True)
    assert [batch.id for batch in part.batches] == [batch.id for batch in whole.batches][: len(part.batches)]
    assert len(part.batches) <= 2 < len(whole.batches)


def test_a_damaged_remediation_is_an_error_that_names_its_batch(catalog: Catalog, process: Process) -> None:
    corpus = in_runs(process, TEXTS, 1)
    damage = "UPDATE remediations SET phrases = '' FROM batches WHERE id = batch AND corpus = :c RETURNING batch"
    numbers = {number for (number,) in steps.sql(process, damage, c=corpus.id)}
    with process.database.snapshot() as connection, pytest.raises(StoreCorrupt) as raised:
        catalog.waiting_on(*Snapshot(connection, corpus).args, ["a", "b"])
    assert any(
        f"the remediation of batch {number} of corpus '{corpus.name}' is damaged" in str(raised.value)
        for number in numbers
    )


def test_a_phrase_goes_on_as_a_tree(catalog: Catalog, snapshot: Snapshot) -> None:
    """The first words of each level in order, and how many there are; compared with all runs of words of the texts."""
    runs = set(oracle.phrases(TEXTS, 8))

    def expected(phrase: tuple[str, ...], widths: tuple[int, ...]) -> Branch:
        longer = sorted(run for run in runs if len(run) == len(phrase) + 1 and run[:-1] == phrase)
        return Branch(phrase, len(longer), [expected(run, widths[1:]) for run in longer[: (*widths, 0)[0]]])

    some = sorted(runs)
    for widths in ((), (2,), (2, 1), (100, 100, 100)):
        found = catalog.branches(*snapshot.args, some, widths)
        assert found == [expected(run, widths) for run in some]
    assert any(each.others for each in catalog.branches(*snapshot.args, some, (1,)))
