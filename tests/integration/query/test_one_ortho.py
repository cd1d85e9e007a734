"""One ortho, found by its id, and where its lines were read."""

from __future__ import annotations

import numpy as np
import pytest

from crochet_tasks.db.process import Process
from crochet_tasks.errors import InvalidOrthoId
from crochet_tasks.query.catalog import Catalog
from tests.support import oracle
from tests.support.catalog import ALL, SECRET, Snapshot, in_runs
from tests.support.steps import TEXTS

pytestmark = pytest.mark.integration


def test_every_ortho_is_found_by_its_id(catalog: Catalog, snapshot: Snapshot) -> None:
    expected = oracle.phrases(TEXTS, 8)
    for ortho in ALL:
        detail = catalog.by_id(*snapshot.args, ortho.id)
        assert detail is not None
        assert detail[:4] == ortho
        assert np.array(detail.grid, object).shape == ortho.sides
        assert tuple(np.array(detail.grid, object).ravel()) == ortho.words
        assert sorted(line.words for line in detail.lines) == sorted(oracle.lines(ortho.sides, ortho.words))
        assert all(line.born == expected[line.words] for line in detail.lines)
        assert all(len(line.words) == ortho.sides[line.axis] for line in detail.lines)
        assert max(line.born for line in detail.lines) == ortho.born


def test_no_other_id_is_found(catalog: Catalog, snapshot: Snapshot) -> None:
    assert catalog.by_id(*snapshot.args, "0" * 32) is None
    one = ALL[0].id
    assert catalog.by_id(*snapshot.args, one[:16] + "0" * 16) is None
    assert catalog.by_id(*snapshot.args, "0" * 16 + one[16:]) is None
    for bad in ("", "x" * 32, one.upper() if one.upper() != one else "A" * 32, one + "0", one + "\n"):
        with pytest.raises(InvalidOrthoId):
            catalog.by_id(*snapshot.args, bad)


def test_each_line_is_read_where_the_texts_say_it(catalog: Catalog, snapshot: Snapshot) -> None:
    split = [oracle.sentences(text) for text in TEXTS]
    for ortho in ALL:
        detail = catalog.by_id(*snapshot.args, ortho.id)
        assert detail is not None
        for found in catalog.provenance(*snapshot.args, detail.lines):
            assert [(s.version, s.sentence, tuple(s.words)) for s in found.sources] == naive(split, tuple(found.words))
            assert found.sources[0].version == found.born
            assert all(source.title == TEXTS[source.version - 1][:20] for source in found.sources)
            assert not found.more


def naive(split: list[list[list[str]]], phrase: tuple[str, ...]) -> list[tuple[int, int, tuple[str, ...]]]:
    """The first sentence of each text in which a phrase stands."""
    return [
        next((version, number, tuple(words)) for number, words in enumerate(text, start=1) if stands_in(phrase, words))
        for version, text in enumerate(split, start=1)
        if any(stands_in(phrase, words) for words in text)
    ]


def stands_in(phrase: tuple[str, ...], words: list[str]) -> bool:
    return any(tuple(words[at : at + len(phrase)]) == phrase for at in range(len(words)))


def test_provenance_is_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = in_runs(process, [f"a b, c d, a c, b d, w{chr(97 + number)}. A b" for number in range(8)], 1)

    def sources(catalog: Catalog) -> list[tuple[int, bool]]:
        with process.database.snapshot() as connection:
            snapshot = Snapshot(connection, corpus)
            detail = catalog.by_id(*snapshot.args, catalog.best(*snapshot.args, 1)[0].id)
            assert detail is not None
            return [(len(found.sources), found.more) for found in catalog.provenance(*snapshot.args, detail.lines)]

    assert sources(Catalog(process, SECRET)) == [(5, True)] * 4
    monkeypatch.setattr("crochet_tasks.query.provenance.PARSED_BYTES", 70)
    assert sources(Catalog(process, SECRET)) == [(3, True)] * 4


def test_large_texts_are_read_a_few_at_a_time(
    catalog: Catalog, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines whose text was not read have no source yet; repeated requests get to all of them."""
    brought = {1, 2, 3}
    details = [catalog.by_id(*snapshot.args, ortho.id) for ortho in ALL]
    (lines, *_) = [one.lines for one in details if one is not None and {line.born for line in one.lines} == brought]
    whole = catalog.provenance(*snapshot.args, lines)
    assert not any(found.more for found in whole)
    fresh = Catalog(catalog.store.process, SECRET)
    for bound in ("BORN_BYTES", "PARSED_BYTES"):
        monkeypatch.setattr(f"crochet_tasks.query.provenance.{bound}", 0)
    read = [fresh.provenance(*snapshot.args, lines) for _ in brought]
    assert [len({found.born for found in some if found.sources}) for some in read] == [1, 2, 3]
    assert all(found.more for found in read[0] if not found.sources)
    assert fresh.provenance(*snapshot.args, lines) == whole
