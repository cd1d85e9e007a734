"""Pages and exports of orthos against the oracle."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from crochet_tasks import merging
from crochet_tasks.db import Connection, batches
from crochet_tasks.db.batches import Span, Stored
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process
from crochet_tasks.errors import InvalidCursor, InvalidOrthoId, NotFound, StoreCorrupt
from crochet_tasks.query import store
from crochet_tasks.query.answers import Page
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.checks import Reason
from crochet_tasks.query.pages import EVERY, SHAPES_AT_ONCE, FoundOrtho, OrthoQuery
from crochet_tasks.settings import Settings
from tests.support import oracle, steps
from tests.support.catalog import ALL, MORE, SECRET, Snapshot, best_first, in_runs, joined, pages, pages_back
from tests.support.steps import TEXTS, ingest_all, new_corpus

pytestmark = pytest.mark.integration


# ── pages ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 1000])
def test_pages_of_any_size_make_up_all_orthos_in_order(catalog: Catalog, snapshot: Snapshot, limit: int) -> None:
    read = pages(catalog, snapshot, limit)
    assert joined(read) == ALL
    assert all(len(page.orthos) == limit for page in read[:-1])
    assert {page.version for page in read} == {3}


def test_filters_leave_what_they_say(catalog: Catalog, snapshot: Snapshot) -> None:
    for shape in {ortho.sides for ortho in ALL} | {(9, 9)}:
        assert joined(pages(catalog, snapshot, 2, OrthoQuery(shape))) == [o for o in ALL if o.sides == shape]
    for word in {word for ortho in ALL for word in ortho.words} | {"none", "x"}:
        for limit in (1, 3, 1000):
            assert joined(pages(catalog, snapshot, limit, OrthoQuery.of(contains=word))) == [
                o for o in ALL if word in o.words
            ]
    for least in range(6):
        assert joined(pages(catalog, snapshot, 4, OrthoQuery(min_volume=least))) == [
            o for o in ALL if o.volume >= least
        ]
    starts = {ortho.words[:number] for ortho in ALL for number in (1, 2, 3, len(ortho.words))}
    for first in (*starts, ("x",), ("none",), ("a", "none")):
        query = OrthoQuery.of(starts_with=f" {' '.join(first).upper()} ")
        assert joined(pages(catalog, snapshot, 2, query)) == [o for o in ALL if o.words[: len(first)] == first]
    every = [o for o in ALL if o.words[0] == "a" and "b" in o.words and o.sides == (2, 3)]
    assert every
    assert joined(pages(catalog, snapshot, 1, OrthoQuery.of((2, 3), "A", " B ", 1))) == every


def holds(ortho: FoundOrtho, words: tuple[str, ...]) -> bool:
    """Whether these words stand one after another in a line."""
    text = f" {' '.join(words)} "
    return not words or any(text in f" {' '.join(line)} " for line in oracle.lines(ortho.sides, ortho.words))


def shares(ortho: FoundOrtho, other: str) -> bool:
    """Whether it is not the ortho of that id, and one of their lines is the same."""
    mine, its = (
        {line for each in ALL if each.id == id_ for line in oracle.lines(each.sides, each.words)}
        for id_ in (ortho.id, other)
    )
    return ortho.id != other and bool(mine & its)


def test_others_that_share_a_line(catalog: Catalog, snapshot: Snapshot) -> None:
    """Of every ortho, by brute force; all pages together, each once."""
    for each in ALL:
        found = joined(pages(catalog, snapshot, 3, OrthoQuery(shares_line_with=each.id)))
        assert found == [other for other in ALL if shares(other, each.id)]


def test_an_ortho_to_share_a_line_with_that_is_not_there(catalog: Catalog, snapshot: Snapshot) -> None:
    with pytest.raises(NotFound):
        catalog.page(*snapshot.args, OrthoQuery(shares_line_with="0" * 32))
    with pytest.raises(InvalidOrthoId):
        catalog.page(*snapshot.args, OrthoQuery(shares_line_with="0"))


def test_orthos_with_a_phrase(catalog: Catalog, snapshot: Snapshot) -> None:
    """In one of their lines, along any axis, wherever in it."""
    lines = {line for each in ALL for line in oracle.lines(each.sides, each.words)}
    parts = {line[low:high] for line in lines for low in range(len(line)) for high in range(low + 1, len(line) + 1)}
    for words in sorted({*parts, ("a", "none"), ("d", "a")}):
        found = joined(pages(catalog, snapshot, 1000, OrthoQuery.of(contains=" ".join(words).upper())))
        assert found == [each for each in ALL if holds(each, words)]


QUERIES = [
    EVERY,
    OrthoQuery((2, 3)),
    OrthoQuery.of(contains="a"),
    OrthoQuery.of(contains="s"),
    OrthoQuery.of(contains="none"),
    OrthoQuery.of(contains="b c"),
    OrthoQuery(min_volume=2),
    OrthoQuery(starts_with=("a", "b")),
    OrthoQuery(shares_line_with=ALL[0].id),
    OrthoQuery(shares_line_with=ALL[-1].id, min_volume=2),
    OrthoQuery.of((2, 3), "a", "b", 1),
]


@pytest.mark.parametrize("budget", [3, 1 << 19])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_read_backwards_are_the_same(
    catalog: Catalog, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, limit: int, budget: int
) -> None:
    """From wherever one turns round, whatever is filtered; and from there forwards again. Compared with the oracle."""
    monkeypatch.setattr("crochet_tasks.query.pages.SCANNED_AT_ONCE", budget)
    for query in QUERIES:
        forwards = pages(catalog, snapshot, limit, query)
        expected = [
            o
            for o in ALL
            if query.shape in (None, o.sides)
            and o.words[: len(query.starts_with)] == query.starts_with
            and holds(o, query.contains)
            and (query.shares_line_with is None or shares(o, query.shares_line_with))
            and o.volume >= (query.min_volume or 0)
        ]
        assert forwards[0].previous_cursor is None
        for place, page in enumerate(forwards):
            before = pages_back(catalog, snapshot, limit, query, page.previous_cursor)
            passed = joined(forwards[:place])
            assert joined(before) == passed == expected[: len(passed)]
            assert budget == 3 or all(len(each.orthos) == limit for each in before[1:])
            for each in before[:: max(1, len(before) // 3)]:
                again = catalog.page(*snapshot.args, query, limit=limit, cursor=each.next_cursor)
                begin = expected.index(each.orthos[-1]) + 1 if each.orthos else None
                assert begin is None or again.orthos == expected[begin : begin + len(again.orthos)]


def test_words_that_begin_alike_are_told_apart(process: Process) -> None:
    """An apostrophe comes behind a space: `sea` and `sea's` are words of their own, in this order."""
    texts = ["sea in, a b, sea a, in b, sea's in, sea's a, seas in, seas a"]
    corpus = in_runs(process, texts, 2)
    with process.database.snapshot() as connection:
        snapshot, catalog = Snapshot(connection, corpus), Catalog(process, SECRET)
        assert [o.words[0] for o in joined(pages(catalog, snapshot, 2, OrthoQuery((2, 2))))] == ["sea", "sea's", "seas"]
        for word in ("sea", "sea's", "seas"):
            (found,) = joined(pages(catalog, snapshot, 2, OrthoQuery(starts_with=(word,))))
            assert found.words[0] == word


def test_a_page_that_compared_enough_is_short_and_goes_on(
    catalog: Catalog, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crochet_tasks.query.pages.SCANNED_AT_ONCE", 3)
    every = {word: pages(catalog, snapshot, 5, OrthoQuery.of(contains=word)) for word in ("a", "e", "m", "s")}
    for word, read in every.items():
        assert joined(read) == [o for o in ALL if word in o.words]
    assert any(not page.orthos for page in every["s"])
    for page in itertools.chain(*every.values()):
        assert (page.looked is not None) == (page.next_cursor is not None and len(page.orthos) < 5)
    for read in every.values():
        passed = [page.looked.orthos for page in read if page.looked is not None]
        assert passed == sorted(passed)
        assert all(page.looked.of == len(ALL) for page in read if page.looked is not None)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_go_on_while_texts_come_in(process: Process, limit: int) -> None:
    """What was there at the first page comes once, nothing comes twice."""
    corpus = new_corpus(process)
    catalog = Catalog(process, SECRET)
    ingest_all(corpus, TEXTS[:1])
    read: list[FoundOrtho] = []
    cursor, left = None, [*TEXTS[1:], MORE]
    while True:
        with process.database.snapshot() as connection:
            page = catalog.page(connection, Snapshot(connection, corpus).corpus, limit=limit, cursor=cursor)
        read += page.orthos
        cursor = page.next_cursor
        if cursor is None:
            break
        if left:
            ingest_all(corpus, [left.pop(0)])
    known = [ortho.id for ortho in read]
    assert {ortho.id for ortho in best_first(TEXTS[:1])} <= set(known)
    assert known == [ortho.id for ortho in best_first([*TEXTS, MORE]) if ortho.id in set(known)]


def test_pages_and_look_ups_go_on_while_batches_are_merged(
    catalog: Catalog, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor of before the merge is good after it, and a snapshot of before shows the batches of then."""
    monkeypatch.setattr(merging, "MOST", 2)
    corpus = in_runs(process, TEXTS, 8)
    with process.database.snapshot() as connection:
        older = Snapshot(connection, corpus)
        first = catalog.page(*older.args, limit=7)
        before = {tuple(shape.shape): shape.batches for shape in catalog.shapes(*older.args)}
        merging.merge_all(corpus.id)
        assert joined(pages(catalog, older, 5)) == ALL
    with process.database.snapshot() as connection:
        newer = Snapshot(connection, corpus)
        after = {tuple(shape.shape): shape.batches for shape in catalog.shapes(*newer.args)}
        assert sum(after.values()) < sum(before.values())
        assert first.orthos + catalog.page(*newer.args, limit=1000, cursor=first.next_cursor).orthos == ALL
        assert joined(pages(catalog, newer, 5)) == ALL
        assert all(one.stored for one in catalog.check(*newer.args, [ortho.id for ortho in ALL]).results)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_batches_are_listed_for_several_shapes_at_once(
    process: Process, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """A few of each; the others of a shape when it is their turn."""
    monkeypatch.setattr(store, "LISTED_AT_ONCE", at_once)
    corpus, catalog, covering = in_runs(process, TEXTS, 8), Catalog(process, SECRET), batches.covering
    listed: list[int] = []

    def noted(connection: Connection, number: int, spans: Sequence[Span], **options: Any) -> list[list[Stored]]:
        listed.append(len(spans))
        return covering(connection, number, spans, **options)

    monkeypatch.setattr(batches, "covering", noted)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        assert joined(pages(catalog, snapshot, 1000)) == ALL
        shapes = catalog.shapes(*snapshot.args)
        assert max(shape.batches for shape in shapes) > 3
        ahead = [min(SHAPES_AT_ONCE, len(shapes) - begin) for begin in range(0, len(shapes), SHAPES_AT_ONCE)]
        assert [number for number in listed if number > 1] == [number for number in ahead if number > 1]
        assert at_once < 100 or listed == ahead
        assert joined(pages(catalog, snapshot, 3)) == ALL


def test_what_is_cached_serves_older_and_newer_snapshots(catalog: Catalog, process: Process) -> None:
    """A new version numbers phrases anew. What was cached before serves it, and what is cached then an older one."""
    corpus = in_runs(process, TEXTS, 3)

    def seen(by: Catalog, snapshot: Snapshot) -> list[object]:
        pages_of = [joined(pages(by, snapshot, 4, OrthoQuery.of(contains=word))) for word in (None, "a", "e")]
        found = by.check(*snapshot.args, [ortho.id for ortho in best_first([*TEXTS, MORE])]).results
        return [*pages_of, found, by.waiting_on(*snapshot.args, ["a"])]

    with process.database.snapshot() as connection:
        older = Snapshot(connection, corpus)
        before = seen(catalog, older)
        ingest_all(corpus, ["0 a, a 0", MORE])
        with process.database.snapshot() as later:
            newer = Snapshot(later, corpus)
            assert seen(catalog, newer) == seen(Catalog(process, SECRET), newer) != before
            assert seen(catalog, older) == before
            assert seen(catalog, newer) == seen(Catalog(process, SECRET), newer)


def test_little_memory_changes_nothing(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crochet_tasks.query.store.BATCHES_SHARE", 0.003)
    small = Process(Settings(api_cache_bytes=1_000_000), process.database)
    corpus = in_runs(process, TEXTS, 8)
    catalog = Catalog(small, SECRET)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        assert joined(pages(catalog, snapshot, 3)) == ALL
        assert catalog.store.batches.bytes <= 3000
        assert len(catalog.store.batches) < sum(shape.batches for shape in catalog.shapes(*snapshot.args))
        assert all(catalog.by_id(*snapshot.args, ortho.id) for ortho in ALL)


def test_a_cursor_is_good_for_its_own_question_only(catalog: Catalog, snapshot: Snapshot, process: Process) -> None:
    cursor = catalog.page(*snapshot.args, limit=2).next_cursor
    assert cursor is not None
    other = new_corpus(process)
    questions: list[tuple[Catalog, Corpus, OrthoQuery]] = [
        (catalog, snapshot.corpus, OrthoQuery(shape=(2, 2))),
        (catalog, snapshot.corpus, OrthoQuery(starts_with=("a",))),
        (catalog, snapshot.corpus, OrthoQuery.of(contains="a")),
        (catalog, snapshot.corpus, OrthoQuery(min_volume=1)),
        (catalog, other, EVERY),
        (Catalog(process, b"t" * 32), snapshot.corpus, EVERY),
    ]
    for asked, corpus, query in questions:
        with pytest.raises(InvalidCursor):
            asked.page(snapshot.connection, corpus, query, cursor=cursor)
    assert catalog.page(*snapshot.args, cursor=cursor, limit=1000).orthos == ALL[2:]


def test_a_cursor_that_was_changed_is_refused(catalog: Catalog, snapshot: Snapshot) -> None:
    cursor = catalog.page(*snapshot.args, limit=2).next_cursor
    assert cursor is not None
    changed = [
        cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :] for place in range(len(cursor))
    ]
    for bad in [*changed, cursor[:-1], cursor + "A", cursor + "=", "", "Ä", "A" * 100_000, cursor + "\n", " " + cursor]:
        with pytest.raises(InvalidCursor):
            catalog.page(*snapshot.args, cursor=bad)
    words = catalog.vocabulary(*snapshot.args, limit=1).next_cursor
    with pytest.raises(InvalidCursor):
        catalog.page(*snapshot.args, cursor=words)


def test_best_shapes_and_what_is_shown(catalog: Catalog, snapshot: Snapshot, process: Process, closed: Corpus) -> None:
    assert catalog.best(*snapshot.args, 5) == ALL[:5]
    counted = [(tuple(count.shape), count.orthos) for count in catalog.shapes(*snapshot.args)]
    assert counted == [(sides, len(list(same))) for sides, same in itertools.groupby(ALL, lambda ortho: ortho.sides)]
    shown = catalog.view(*snapshot.args)
    assert (shown.version, shown.orthos) == (3, len(ALL))
    ingest_all(closed, [MORE])
    assert catalog.view(*snapshot.args) == shown
    with process.database.snapshot() as connection:
        assert catalog.view(*Snapshot(connection, closed).args).etag != shown.etag


def test_an_empty_corpus_has_nothing(catalog: Catalog, process: Process) -> None:
    corpus = new_corpus(process)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        assert catalog.page(*snapshot.args) == Page([], None, 0)
        assert catalog.page(*snapshot.args, OrthoQuery.of(contains="a", starts_with="a")).orthos == []
        assert catalog.by_id(*snapshot.args, "0" * 32) is None
        assert catalog.vocabulary(*snapshot.args).words == []
        assert catalog.phrases(*snapshot.args).phrases == []
        for exact in (True, False):
            result = catalog.check(*snapshot.args, ["0" * 32, [["a", "b"], ["c", "d"]]], exact=exact)
            assert [one.reason for one in result.results] == [Reason.NOT_FOUND, Reason.LINE]
        assert b"".join(catalog.export(*snapshot.args)) == b""


def test_export_gives_the_orthos_of_the_pages_in_their_order(
    catalog: Catalog, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at_once in (1 << 13, 1, 2, 5):
        monkeypatch.setattr("crochet_tasks.query.export.AT_ONCE", at_once)
        for query in (
            EVERY,
            OrthoQuery((2, 3)),
            OrthoQuery(starts_with=("a",)),
            OrthoQuery.of(contains="a"),
            OrthoQuery.of(contains="none"),
            OrthoQuery(min_volume=2),
        ):
            lines = [json.loads(line) for line in b"".join(catalog.export(*snapshot.args, query=query)).splitlines()]
            assert lines == [
                {"id": o.id, "shape": list(o.sides), "words": list(o.words), "born": o.born}
                for o in joined(pages(catalog, snapshot, 100, query))
            ]


# ── damage ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "damage",
    [
        "packed = set_byte(packed, 20, get_byte(packed, 20) # 1)",
        "packed = substr(packed, 1, octet_length(packed) - 1)",
        "packed = ''",
        "count = count + 1",
        "last = last || 'x'",
        "first = substr(first, 1, 1)",
    ],
)
def test_a_damaged_batch_is_an_error_that_names_it(process: Process, damage: str) -> None:
    """Whatever reads it; other batches are read as before."""
    corpus = in_runs(process, TEXTS, 1)
    batch = "SELECT id, last FROM batches WHERE corpus = :c AND sides = '{2,3}' ORDER BY id LIMIT 1"
    ((number, last),) = steps.sql(process, batch, c=corpus.id)
    one = next(ortho for ortho in ALL if " ".join(ortho.words) == last)
    steps.sql(process, f"UPDATE batches SET {damage} WHERE id = :number", number=number)
    catalog = Catalog(process, SECRET)
    with process.database.snapshot() as connection:
        snapshot = Snapshot(connection, corpus)
        for read in (
            lambda: pages(catalog, snapshot, 1000),
            lambda: catalog.by_id(*snapshot.args, one.id),
            lambda: catalog.check(*snapshot.args, [one.id]),
            lambda: list(catalog.export(*snapshot.args)),
        ):
            with pytest.raises(StoreCorrupt, match=f"batch {number} of corpus '{corpus.name}' is damaged"):
                read()
        assert catalog.page(*snapshot.args, OrthoQuery((2, 2)), limit=1000).orthos == [
            o for o in ALL if o.sides == (2, 2)
        ]


def test_threads_share_a_catalog(process: Process, closed: Corpus) -> None:
    catalog = Catalog(process, SECRET)

    def read(_: int) -> list[FoundOrtho]:
        with process.database.snapshot() as connection:
            return joined(pages(catalog, Snapshot(connection, closed), 3))

    with ThreadPoolExecutor(4) as pool:
        assert all(orthos == ALL for orthos in pool.map(read, range(12)))
