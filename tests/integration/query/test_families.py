"""Families of orthos, places of phrases, and in how many orthos a word stands: each from its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crochet_tasks import merging
from crochet_tasks.db import schema, texts
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.engine import geometry
from crochet_tasks.errors import PhraseUnknown
from crochet_tasks.query import holding, relatives
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.store import Reader
from tests.support import oracle
from tests.support.catalog import ALL, MORE, SECRET, Snapshot
from tests.support.steps import TEXTS, ingest_all, new_corpus, sql

pytestmark = pytest.mark.integration
SENTENCES = [(number, words) for number, text in enumerate(TEXTS, start=1) for words in oracle.sentences(text)]


def without_last_slab(sides: tuple[int, ...], words: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[str, ...]] | None:
    """The canonical parent, by its definition: without the last slab of the leading axis, which is the last one."""
    if sides[-1] == 2:
        return None
    kept = [word for at, word in zip(geometry.coordinates(sides), words, strict=True) if at[-1] < sides[-1] - 1]
    return geometry.canonical((*sides[:-1], sides[-1] - 1), tuple(kept))


def test_every_ortho_is_among_the_children_of_its_parent(catalog: Catalog, snapshot: Snapshot) -> None:
    """And nothing else is: together, parents and children are one tree over all orthos."""
    reader = Reader(catalog.store, *snapshot.args)
    parents = {each[1:3]: without_last_slab(each.sides, each.words) for each in ALL}
    for each in ALL:
        assert relatives.parent(each.sides, each.words) == parents[each[1:3]]
        found = relatives.children(reader, each.sides, each.words, len(ALL))
        expected = {child for child, parent in parents.items() if parent == each[1:3]}
        assert {child[1:3] for child in found.orthos} == expected
        assert (len(found.orthos), found.more) == (len(expected), False)
        parent = parents[each[1:3]]
        detail = catalog.by_id(*snapshot.args, each.id)
        assert detail is not None
        shown = catalog.parent(*snapshot.args, detail)
        assert (None if shown is None else (shown.sides, shown.words, shown.stored)) == (parent and (*parent, True))


def test_some_children_are_as_good_as_all_if_it_says_so(catalog: Catalog, snapshot: Snapshot) -> None:
    reader = Reader(catalog.store, *snapshot.args)
    several = [each for each in ALL if len(relatives.children(reader, *each[1:3], len(ALL)).orthos) > 1]
    for each in several:
        found = relatives.children(reader, *each[1:3], 1)
        assert (len(found.orthos), found.more) == (1, True)
    assert several


def test_a_sentence_with_those_around_it(catalog: Catalog, snapshot: Snapshot) -> None:
    for text in texts.versions(snapshot.connection, snapshot.corpus.id, 1, len(TEXTS)):
        said = oracle.sentences(TEXTS[text.version - 1])
        for place in range(len(said)):
            for wide in (0, 2, 100):
                found = catalog.around(*snapshot.args, text.id, place + 1, wide)
                assert found is not None
                assert found.sentences == said[max(0, place - wide) : place + wide + 1]
                assert (found.first, found.total) == (max(0, place - wide) + 1, len(said))
        for outside in (0, len(said) + 1, 2**70):
            assert catalog.around(*snapshot.args, text.id, outside, 1) is None


@pytest.mark.parametrize("phrase", ["a", "a d", "l m", "b c", "j k"])
def test_a_concordance_has_every_place_in_order(catalog: Catalog, snapshot: Snapshot, phrase: str) -> None:
    """With the words before and behind it in its sentence, which never come from another sentence."""
    words = phrase.split()
    expected = [
        (number, sentence[:place], sentence[place + len(words) :])
        for number, sentence in SENTENCES
        for place in range(len(sentence) - len(words) + 1)
        if sentence[place : place + len(words)] == words
    ]
    found = catalog.concordance(*snapshot.args, words, 1000)
    assert [(each.version, each.before, each.after) for each in found.occurrences] == expected != []
    assert not found.more
    for each in found.occurrences:
        sentence = [*each.before, *words, *each.after]
        assert oracle.sentences(TEXTS[each.version - 1])[each.sentence - 1] == sentence
    few = catalog.concordance(*snapshot.args, words, 1)
    assert (len(few.occurrences), few.more) == (1, len(expected) > 1)


def test_a_concordance_of_no_phrase(catalog: Catalog, snapshot: Snapshot) -> None:
    with pytest.raises(PhraseUnknown):
        catalog.concordance(*snapshot.args, ["nowhere"], 10)
    assert catalog.concordance(*snapshot.args, [], 10).occurrences == []


def test_a_word_counts_once_for_each_ortho_that_has_it(catalog: Catalog, snapshot: Snapshot) -> None:
    tree, held = catalog.holding(*snapshot.args)
    expected = [sum(word in each.words for each in ALL) for word in tree.words]
    assert held.orthos.tolist() == expected
    assert (held.counted, held.complete) == (len(ALL), True)
    assert catalog.holding(*snapshot.args)[1] is held


@pytest.mark.parametrize("most", [1, 5, len(ALL) - 1, len(ALL)])
def test_of_many_orthos_the_best_are_counted(catalog: Catalog, snapshot: Snapshot, most: int) -> None:
    reader = Reader(catalog.store, *snapshot.args)
    held = holding.holding(reader, most)
    expected = [sum(word in each.words for each in ALL[:most]) for word in reader.tree.words]
    assert held.orthos.tolist() == expected
    assert (held.counted, held.complete) == (most, most == len(ALL))


def test_a_text_in_pieces_is_the_text(catalog: Catalog, snapshot: Snapshot) -> None:
    """Each word as it was written, with the word of the vocabulary that it is."""
    tree, held = catalog.holding(*snapshot.args)
    body = "A b\u00ad, “C” - 12 d’x!\n\nnowhere\u200d"
    found = list(holding.pieces(body, tree, held))
    assert "".join(each.text for each in found) == body
    assert [(each.text, each.word) for each in found if each.word] == [("A", "a"), ("b\u00ad", "b"), ("C", "c")]
    assert all(each.orthos == held.orthos[tree.number(each.word)] for each in found if each.word)


def test_growth_counts_what_each_version_brought(catalog: Catalog, snapshot: Snapshot) -> None:
    found = catalog.growth(*snapshot.args)
    assert [each.version for each in found] == [1, 2, 3]
    for each in found:
        read = [words for number, words in SENTENCES if number <= each.version]
        assert each.words == len({word for words in read for word in words})
        runs = {
            tuple(words[begin:end])
            for words in read
            for begin in range(len(words))
            for end in range(begin + 1, min(len(words), begin + snapshot.corpus.limits.max_side) + 1)
        }
        assert each.phrases == len(runs)
        assert each.orthos == (len(ALL) if each.version == 3 else None)  # nothing counted what these windows brought
    assert np.all(np.diff([each.phrases for each in found]) >= 0)


def orthos_of(process: Process, corpus: Corpus) -> list[int | None]:
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        return [each.orthos for each in Catalog(process, SECRET).growth(*snapshot.args)]


def test_growth_counts_the_orthos_of_each_version(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it is known: from the newest version back to one that was searched by a program that did not count."""
    said = [*TEXTS, MORE]
    expected = [len(oracle.closure(said[:version])) for version in range(1, len(said) + 1)]
    corpus = new_corpus(process)
    ingest_all(corpus, said)
    assert orthos_of(process, corpus) == expected
    monkeypatch.setattr(merging, "MOST", 2)
    merging.merge_all(corpus.id)
    assert orthos_of(process, corpus) == expected
    sql(process, "UPDATE windows SET orthos = orthos - 1 WHERE corpus = :corpus AND version = 2", corpus=corpus.id)
    assert orthos_of(process, corpus) == [None, None, None, expected[-1]]
    sql(process, "UPDATE windows SET orthos = NULL WHERE corpus = :corpus AND version = 2", corpus=corpus.id)
    assert orthos_of(process, corpus) == [None, *expected[1:]]


def test_the_migration_counts_what_the_work_tells(process: Process) -> None:
    """Only of a corpus whose work is there as a whole."""
    script = (Path(schema.__file__).parent / "migrations/versions/0014_growth.sql").read_text(encoding="utf-8")
    backfill = script[script.index("WITH found") :].rstrip().rstrip(";")
    whole, partial = new_corpus(process), new_corpus(process)
    for corpus in (whole, partial):
        ingest_all(corpus, TEXTS)
    expected = orthos_of(process, whole)
    sql(process, "UPDATE work SET found = 0 WHERE corpus = :corpus AND version = 1", corpus=partial.id)
    for corpus in (whole, partial):
        sql(process, "UPDATE windows SET orthos = NULL WHERE corpus = :corpus", corpus=corpus.id)
    sql(process, backfill)
    assert orthos_of(process, whole) == expected
    assert None not in expected
    assert orthos_of(process, partial) == [None, None, expected[-1]]


def test_versions_that_are_searched_together_grow_together(process: Process) -> None:
    said = [*TEXTS, MORE]
    corpus = new_corpus(process)
    ingest_all(corpus, said[:1])
    ingest_all(corpus, said[1:], at_once=True)
    found = orthos_of(process, corpus)
    expected = [len(oracle.closure(said[:version])) for version in range(1, len(said) + 1)]
    assert (found[0], found[-1]) == (expected[0], expected[-1])
    assert all(one in (None, other) for one, other in zip(found, expected, strict=True))
