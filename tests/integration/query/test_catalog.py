"""Reads of orthos against the oracle: pages, single ones, and where their lines were read."""

from __future__ import annotations

import itertools
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import shape_name
from crochet_tasks.errors import InvalidCursor, InvalidOrthoId
from crochet_tasks.query.answers import Page
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.checks import Reason
from crochet_tasks.query.pages import FoundOrtho
from crochet_tasks.settings import Settings
from tests.support import oracle
from tests.support.catalog import ALL, MORE, SECRET, Look, all_waiting, best_first, joined, pages, stored
from tests.support.steps import TEXTS, ingest_all, new_corpus

pytestmark = pytest.mark.integration


# ── pages ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 1000])
def test_pages_of_any_size_make_up_all_orthos_best_first(catalog: Catalog, look: Look, limit: int) -> None:
    read = pages(catalog, look, limit)
    assert joined(read) == ALL
    assert all(len(page.orthos) == limit for page in read[:-1])
    assert {page.version for page in read} == {3}


def test_filters_leave_what_they_say(catalog: Catalog, look: Look) -> None:
    for shape in {ortho.sides for ortho in ALL} | {(9, 9)}:
        assert joined(pages(catalog, look, 2, shape=shape)) == [o for o in ALL if o.sides == shape]
    for word in {word for ortho in ALL for word in ortho.words} | {"none", "x"}:
        for limit in (1, 3, 1000):
            assert joined(pages(catalog, look, limit, contains=word)) == [o for o in ALL if word in o.words]
    for least in range(6):
        assert joined(pages(catalog, look, 4, min_volume=least)) == [o for o in ALL if o.volume >= least]
    both = [o for o in ALL if "a" in o.words and o.sides == (2, 3)]
    assert joined(pages(catalog, look, 1, contains=" A ", shape=(2, 3), min_volume=1)) == both


def test_a_page_that_looked_at_enough_is_short_and_goes_on(
    catalog: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crochet_tasks.query.pages.SCANNED_AT_ONCE", 3)
    every = {word: pages(catalog, look, 5, contains=word) for word in ("a", "e", "m", "s")}
    for word, read in every.items():
        assert joined(read) == [o for o in ALL if word in o.words]
    assert any(not page.orthos for page in every["s"])


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_go_on_while_texts_come_in_and_batches_are_rewritten(process: Process, limit: int) -> None:
    """What was there at the first page comes once, nothing comes twice."""
    corpus = new_corpus(process)
    catalog = Catalog(process, SECRET)
    ingest_all(corpus, TEXTS[:1])
    read: list[FoundOrtho] = []
    ids: set[int] = set()
    cursor, left = None, [*TEXTS[1:], MORE]
    while True:
        with process.database.snapshot() as connection:
            page = catalog.page(connection, Look(connection, corpus).corpus, limit=limit, cursor=cursor)
            ids |= {ref.id for ref in catalog.store.batch_list(connection, corpus.id).refs}
        read += page.orthos
        cursor = page.next_cursor
        if cursor is None:
            break
        if left:
            ingest_all(corpus, [left.pop(0)])
    known = {ortho.id for ortho in read}
    assert len(known) == len(read)
    assert {ortho.id for ortho in best_first(TEXTS[:1])} <= known
    ranked = [(-o.volume, -math.prod(o.sides), o.id) for o in read]
    assert ranked == sorted(ranked)
    with process.database.snapshot() as connection:
        assert ids - {ref.id for ref in catalog.store.batch_list(connection, corpus.id).refs}, "no batch was rewritten"


def test_small_batches_and_little_memory_change_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_process(Settings(batch_orthos=2, api_cache_bytes=1_000_000), database) as process:
        corpus = new_corpus(process)
        ingest_all(corpus, TEXTS)
        roomy = Catalog(process, SECRET)
        monkeypatch.setattr("crochet_tasks.query.batches_cache.BATCHES_SHARE", 0.003)
        monkeypatch.setattr("crochet_tasks.query.vocabulary.WAITS_SHARE", 0.0007)
        catalog = Catalog(process, SECRET)
        with process.database.snapshot() as connection:
            look = Look(connection, corpus)
            assert joined(pages(catalog, look, 3)) == ALL
            assert len(catalog.store.batches) < len(catalog.store.batch_list(connection, corpus.id).refs)
            assert catalog.store.batches.bytes <= 3000
            assert joined(pages(catalog, look, 3, contains="a")) == [o for o in ALL if "a" in o.words]
            assert all(catalog.by_id(*look.args, ortho.id) for ortho in ALL)
            assert all_waiting(catalog, look) == all_waiting(roomy, look)


def test_the_order_holds_where_first_halves_of_ids_are_equal(
    catalog: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = geometry.ids

    def alike(*args: Any) -> Any:
        ids = whole(*args)
        ids[:, 0] %= 2
        return ids

    monkeypatch.setattr(geometry, "ids", alike)
    for limit in (1, 2, 5, 1000):
        read = joined(pages(catalog, look, limit))
        assert sorted(ortho[1:] for ortho in read) == sorted(ortho[1:] for ortho in ALL)
        ranked = [(-o.volume, -math.prod(o.sides), o.id) for o in read]
        assert ranked == sorted(ranked)
        for ortho in read[:10]:
            detail = catalog.by_id(*look.args, ortho.id)
            assert detail is not None
            assert detail.words == ortho.words
    there = [ortho.id for ortho in joined(pages(catalog, look, 1000))]
    absent = [f"{int(id, 16) ^ 1:032x}" for id in there]  # noqa: A001 - it is its name
    assert stored(catalog.check(*look.args, there)) == [True] * len(ALL)
    assert stored(catalog.check(*look.args, there + absent)) == [True] * len(ALL) + [False] * len(ALL)


def test_a_cursor_is_good_for_its_own_question_only(catalog: Catalog, look: Look, process: Process) -> None:
    cursor = catalog.page(*look.args, limit=2).next_cursor
    assert cursor is not None
    other = new_corpus(process)
    questions: list[tuple[Catalog, Corpus, dict[str, Any]]] = [
        (catalog, look.corpus, {"shape": (2, 2)}),
        (catalog, look.corpus, {"contains": "a"}),
        (catalog, look.corpus, {"min_volume": 1}),
        (catalog, other, {}),
        (Catalog(process, b"t" * 32), look.corpus, {}),
    ]
    for asked, corpus, filters in questions:
        with pytest.raises(InvalidCursor):
            asked.page(look.connection, corpus, cursor=cursor, **filters)
    assert catalog.page(*look.args, cursor=cursor, limit=1000).orthos == ALL[2:]


def test_a_cursor_that_was_changed_is_refused(catalog: Catalog, look: Look) -> None:
    cursor = catalog.page(*look.args, limit=2).next_cursor
    assert cursor is not None
    changed = [
        cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :] for place in range(len(cursor))
    ]
    for bad in [*changed, cursor[:-1], cursor + "A", cursor + "=", "", "Ä", "A" * 100_000, cursor + "\n", " " + cursor]:
        with pytest.raises(InvalidCursor):
            catalog.page(*look.args, cursor=bad)
    words = catalog.vocabulary(*look.args, limit=1).next_cursor
    with pytest.raises(InvalidCursor):
        catalog.page(*look.args, cursor=words)


def test_best_shapes_and_what_is_shown(catalog: Catalog, look: Look, process: Process, closed: Corpus) -> None:
    assert catalog.best(*look.args, 5) == ALL[:5]
    counted = [(tuple(count.shape), count.orthos) for count in catalog.shapes(*look.args)]
    assert counted == [(sides, len(list(same))) for sides, same in itertools.groupby(ALL, lambda ortho: ortho.sides)]
    shown = catalog.view(*look.args)
    assert (shown.version, shown.orthos) == (3, len(ALL))
    ingest_all(closed, [MORE])
    assert catalog.view(*look.args) == shown
    with process.database.snapshot() as connection:
        assert catalog.view(*Look(connection, closed).args).etag != shown.etag


def test_an_empty_corpus_has_nothing(catalog: Catalog, process: Process, redis_url: str) -> None:
    corpus = new_corpus(process)
    catalog = Catalog(Process(Settings(redis_url=SecretStr(redis_url)), process.database), SECRET)
    catalog.warm(corpus)
    with process.database.snapshot() as connection:
        look = Look(connection, corpus)
        assert catalog.page(*look.args) == Page([], None, 0)
        assert catalog.page(*look.args, contains="a").orthos == []
        assert catalog.by_id(*look.args, "0" * 32) is None
        assert catalog.vocabulary(*look.args).words == []
        assert catalog.phrases(*look.args).phrases == []
        for exact in (True, False):
            result = catalog.check(*look.args, ["0" * 32, [["a", "b"], ["c", "d"]]], exact=exact)
            assert [one.reason for one in result.results] == [Reason.NOT_FOUND, Reason.LINE]
        assert b"".join(catalog.export(*look.args)) == b""


def test_export_gives_the_orthos_of_the_pages(catalog: Catalog, look: Look) -> None:
    for filters in ({}, {"shape": (2, 3)}, {"contains": "a"}, {"contains": "none"}, {"min_volume": 2}):
        lines = [json.loads(line) for line in b"".join(catalog.export(*look.args, **filters)).splitlines()]
        wanted = [
            {"id": o.id, "shape": list(o.sides), "words": list(o.words), "born": o.born}
            for o in joined(pages(catalog, look, 100, **filters))
        ]
        assert sorted(map(str, lines)) == sorted(map(str, wanted))


# ── one ortho ───────────────────────────────────────────────────────────────────────────────────


def test_every_ortho_is_found_by_its_id(catalog: Catalog, look: Look) -> None:
    expected = oracle.phrases(TEXTS, 8)
    for ortho in ALL:
        detail = catalog.by_id(*look.args, ortho.id)
        assert detail is not None
        assert detail[:4] == ortho
        assert np.array(detail.grid, object).shape == ortho.sides
        assert tuple(np.array(detail.grid, object).ravel()) == ortho.words
        assert sorted(line.words for line in detail.lines) == sorted(oracle._lines(ortho.sides, ortho.words))
        assert all(line.born == expected[line.words] for line in detail.lines)
        assert all(len(line.words) == ortho.sides[line.axis] for line in detail.lines)
        assert max(line.born for line in detail.lines) == ortho.born


def test_no_other_id_is_found(catalog: Catalog, look: Look) -> None:
    assert catalog.by_id(*look.args, "0" * 32) is None
    one = ALL[0].id
    assert catalog.by_id(*look.args, one[:16] + "0" * 16) is None
    for bad in ("", "x" * 32, one.upper() if one.upper() != one else "A" * 32, one + "0", one + "\n"):
        with pytest.raises(InvalidOrthoId):
            catalog.by_id(*look.args, bad)


def test_each_line_is_read_where_the_texts_say_it(catalog: Catalog, look: Look) -> None:
    split = [oracle.sentences(text) for text in TEXTS]
    for ortho in ALL:
        detail = catalog.by_id(*look.args, ortho.id)
        assert detail is not None
        for found in catalog.provenance(*look.args, detail.lines):
            assert [(s.version, s.sentence, s.words) for s in found.sources] == naive(split, found.line.words)
            assert found.sources[0].version == found.line.born
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
    corpus = new_corpus(process)
    ingest_all(corpus, [f"a b, c d, a c, b d, w{chr(97 + number)}. A b" for number in range(8)])

    def sources(catalog: Catalog) -> list[tuple[int, bool]]:
        with process.database.snapshot() as connection:
            look = Look(connection, corpus)
            detail = catalog.by_id(*look.args, catalog.best(*look.args, 1)[0].id)
            assert detail is not None
            return [(len(found.sources), found.more) for found in catalog.provenance(*look.args, detail.lines)]

    assert sources(Catalog(process, SECRET)) == [(5, True)] * 4
    monkeypatch.setattr("crochet_tasks.query.provenance.PARSED_BYTES", 70)
    assert sources(Catalog(process, SECRET)) == [(3, True)] * 4


def test_large_texts_are_read_a_few_at_a_time(catalog: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines whose text was not read have no source yet; repeated requests get to all of them."""
    brought = {1, 2, 3}
    details = [catalog.by_id(*look.args, ortho.id) for ortho in ALL]
    (lines, *_) = [one.lines for one in details if one is not None and {line.born for line in one.lines} == brought]
    whole = catalog.provenance(*look.args, lines)
    assert not any(found.more for found in whole)
    fresh = Catalog(catalog.store.process, SECRET)
    for bound in ("BORN_BYTES", "PARSED_BYTES"):
        monkeypatch.setattr(f"crochet_tasks.query.provenance.{bound}", 0)
    read = [fresh.provenance(*look.args, lines) for _ in brought]
    assert [len({found.line.born for found in some if found.sources}) for some in read] == [1, 2, 3]
    assert all(found.more for found in read[0] if not found.sources)
    assert fresh.provenance(*look.args, lines) == whole


def test_warm_reads_everything_once(catalog: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.warm(look.corpus)
    shown = catalog.store.batch_list(look.connection, look.corpus.id)
    assert len(catalog.store.batches) == len(shown.refs)
    monkeypatch.setattr(catalog.store, "_read", None)
    assert joined(pages(catalog, look, 100)) == ALL
    assert {shape_name(sides) for sides in shown.shapes} == {shape_name(ortho.sides) for ortho in ALL}


def test_threads_share_a_catalog(process: Process, closed: Corpus) -> None:
    catalog = Catalog(process, SECRET)

    def read(_: int) -> list[FoundOrtho]:
        with process.database.snapshot() as connection:
            return joined(pages(catalog, Look(connection, closed), 3))

    with ThreadPoolExecutor(4) as pool:
        assert all(orthos == ALL for orthos in pool.map(read, range(12)))
