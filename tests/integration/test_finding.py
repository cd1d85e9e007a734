"""Reads of the API against the oracle: pages, single orthos, checks, provenance, what waits, words and phrases."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection

from crochet_tasks import app, work
from crochet_tasks.app import Process
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.engine import geometry
from crochet_tasks.engine.geometry import shape_name, volume
from crochet_tasks.filters import Chain, _keys
from crochet_tasks.finding import Catalog
from crochet_tasks.finding_answers import Checks, Page
from crochet_tasks.finding_checks import Reason
from crochet_tasks.finding_pages import FoundOrtho
from crochet_tasks.request_errors import InvalidCursor, InvalidOrthoId, PhraseUnknown
from crochet_tasks.settings import Settings
from tests import oracle
from tests.integration import steps
from tests.integration.steps import TEXTS, ingest_all, new_corpus
from tests.oracle import Ortho
from tests.services import Redis

pytestmark = pytest.mark.integration

SECRET = b"s" * 32
MORE = "b c, e f, h i, j k l, m n, a b c d, x y z, p q r, d k, c j"


@pytest.fixture
def corpus(process: Process) -> Corpus:
    corpus = new_corpus(process)
    ingest_all(corpus, TEXTS)
    return corpus


@pytest.fixture
def catalog(process: Process) -> Catalog:
    return Catalog(process, SECRET)


class Look:
    """One snapshot, and the corpus as it shows it."""

    def __init__(self, connection: Connection, corpus: Corpus) -> None:
        self.connection = connection
        self.corpus = corpora.numbered(connection, corpus.id)
        self.args = self.connection, self.corpus


@pytest.fixture
def look(process: Process, corpus: Corpus) -> Iterator[Look]:
    with process.database.snapshot() as connection:
        yield Look(connection, corpus)


def id_of(ortho: Ortho) -> str:
    """An id from its definition: of the sides and the words alone."""
    sides, words = ortho
    hashes = [hashlib.blake2b(word.encode(), digest_size=16).digest() for word in words]
    table = np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2).T.copy()
    return geometry.id_text(geometry.ids(sides, np.arange(len(words)).reshape(-1, 1), table)[0])


def best_first(texts: list[str], limits: tuple[int, ...] = ()) -> list[FoundOrtho]:
    """All orthos of texts as pages must show them."""
    found = [FoundOrtho(id_of((s, w)), s, w, born) for (s, w), born in oracle.closure(texts, *limits).items()]
    return sorted(found, key=lambda ortho: (-volume(ortho.sides), -math.prod(ortho.sides), ortho.id))


ALL = best_first(TEXTS)


def pages(catalog: Catalog, look: Look, limit: int, **filters: Any) -> list[Page]:
    read, cursor = [], None
    while True:
        read.append(catalog.page(*look.args, limit=limit, cursor=cursor, **filters))
        cursor = read[-1].next_cursor
        if cursor is None:
            return read


def joined(read: list[Page]) -> list[FoundOrtho]:
    return [ortho for page in read for ortho in page.orthos]


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
    monkeypatch.setattr("crochet_tasks.finding_pages.SCANNED_AT_ONCE", 3)
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
            ids |= {ref.id for ref in catalog.store.shown(connection, corpus.id).refs}
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
        assert ids - {ref.id for ref in catalog.store.shown(connection, corpus.id).refs}, "no batch was rewritten"


def test_small_batches_and_little_memory_change_nothing(database: str) -> None:
    with app.process(Settings(batch_orthos=2, api_cache_bytes=1_000_000), database) as process:
        corpus = new_corpus(process)
        ingest_all(corpus, TEXTS)
        catalog = Catalog(process, SECRET)
        catalog.store.batches.most = 3000
        with process.database.snapshot() as connection:
            look = Look(connection, corpus)
            assert joined(pages(catalog, look, 3)) == ALL
            assert len(catalog.store.batches) < len(catalog.store.shown(connection, corpus.id).refs)
            assert catalog.store.batches.bytes <= 3000
            assert joined(pages(catalog, look, 3, contains="a")) == [o for o in ALL if "a" in o.words]
            assert all(catalog.by_id(*look.args, ortho.id) for ortho in ALL)
            waiting = all_waiting(catalog, look)
            catalog.remediations._kept.most = 700
            catalog.remediations._kept.forget(lambda key: True)
            assert all_waiting(catalog, look) == waiting
            assert len(catalog.remediations._kept) <= 1


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


def test_best_shapes_and_what_is_shown(catalog: Catalog, look: Look, process: Process, corpus: Corpus) -> None:
    assert catalog.best(*look.args, 5) == ALL[:5]
    counted = [(count.sides, count.orthos) for count in catalog.shapes(*look.args)]
    assert counted == [(sides, len(list(same))) for sides, same in itertools.groupby(ALL, lambda ortho: ortho.sides)]
    shown = catalog.shown(*look.args)
    assert (shown.version, shown.orthos) == (3, len(ALL))
    ingest_all(corpus, [MORE])
    assert catalog.shown(*look.args) == shown
    with process.database.snapshot() as connection:
        assert catalog.shown(*Look(connection, corpus).args).etag != shown.etag


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
    said = oracle.phrases(TEXTS, 8)
    for ortho in ALL:
        detail = catalog.by_id(*look.args, ortho.id)
        assert detail is not None
        assert detail[:4] == ortho
        assert np.array(detail.grid, object).shape == ortho.sides
        assert tuple(np.array(detail.grid, object).ravel()) == ortho.words
        assert sorted(line.words for line in detail.lines) == sorted(oracle._lines(ortho.sides, ortho.words))
        assert all(line.born == said[line.words] for line in detail.lines)
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
    monkeypatch.setattr("crochet_tasks.provenance.PARSED_BYTES", 70)
    assert sources(Catalog(process, SECRET)) == [(3, True)] * 4


def test_large_texts_are_read_a_few_at_a_time(catalog: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines whose text was not read have no source yet; whoever asks again gets to all of them."""
    brought = {1, 2, 3}
    details = [catalog.by_id(*look.args, ortho.id) for ortho in ALL]
    (lines, *_) = [one.lines for one in details if one is not None and {line.born for line in one.lines} == brought]
    whole = catalog.provenance(*look.args, lines)
    assert not any(found.more for found in whole)
    fresh = Catalog(catalog.store.process, SECRET)
    for bound in ("BORN_BYTES", "PARSED_BYTES"):
        monkeypatch.setattr(f"crochet_tasks.provenance.{bound}", 0)
    read = [fresh.provenance(*look.args, lines) for _ in brought]
    assert [len({found.line.born for found in some if found.sources}) for some in read] == [1, 2, 3]
    assert all(found.more for found in read[0] if not found.sources)
    assert fresh.provenance(*look.args, lines) == whole


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


def grid(sides: tuple[int, ...], words: tuple[str, ...], axes: tuple[int, ...]) -> Any:
    return np.array(words, object).reshape(sides).transpose(axes).tolist()


def stored(result: Checks) -> list[bool]:
    return [checked.stored for checked in result.results]


def test_ids_and_boxes_in_any_order_of_their_axes_are_found(catalog: Catalog, look: Look) -> None:
    assert stored(catalog.check(*look.args, [ortho.id for ortho in ALL])) == [True] * len(ALL)
    for ortho in ALL:
        boxes = [grid(ortho.sides, ortho.words, axes) for axes in itertools.permutations(range(len(ortho.sides)))]
        result = catalog.check(*look.args, boxes)
        assert result[1:] == (True, False, 3)
        assert {tuple(checked) for checked in result.results} == {(True, ortho.id, ortho.sides, ortho.words, None)}


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
        work.publish_next(corpus.id)
    with process.database.snapshot() as connection:
        look = Look(connection, corpus)
        here = best_first(TEXTS[:1])[0]
        checked = catalog.check(*look.args, [grid(here.sides, here.words, (1, 0))]).results[0]
    assert (checked.reason, checked.id) == (Reason.NOT_FOUND, here.id)


@pytest.fixture
def with_redis(process: Process, redis_url: str) -> Catalog:
    return Catalog(Process(Settings(redis_url=SecretStr(redis_url)), process.database), SECRET)


def test_probable_answers_miss_nothing_and_seldom_err(
    with_redis: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crochet_tasks.finding.LEFT_OUT", 0)
    result = with_redis.check(*look.args, [ortho.id for ortho in ALL], exact=False)
    assert stored(result) == [True] * len(ALL)
    assert (result.exact, result.degraded) == (False, False)
    absent = [f"{number:032x}" for number in np.random.default_rng(1).integers(0, 1 << 62, 1000)]
    assert sum(stored(with_redis.check(*look.args, absent, exact=False))) <= 10


def test_nobody_waits_for_much_to_be_put_into_the_filter(
    with_redis: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("LEFT_OUT", "FILLED_AT_ONCE"):
        monkeypatch.setattr(f"crochet_tasks.finding.{bound}", 0)
    for exact in (True, False):
        result = with_redis.check(*look.args, [ortho.id for ortho in ALL], exact=False)
        assert (stored(result), result.exact, result.degraded) == ([True] * len(ALL), exact, False)
        with_redis.warm(look.corpus)


def fill(catalog: Catalog, name: str, first: int, batches: int, size: int, orthos: int) -> list[Any]:
    random = np.random.default_rng(first)
    ids = [random.integers(0, 1 << 64, (size, 2), np.uint64) for _ in range(batches)]
    some = range(first, first + batches)
    assert catalog.filters.add(name, catalog.filters.missing(name, some)[0], some, iter(ids), orthos=orthos)
    return ids


def in_filter(catalog: Catalog, name: str, batches: int) -> Chain:
    """The chain in which all batches up to that one are."""
    chain, missing = catalog.filters.missing(name, range(batches))
    assert chain is not None
    assert not missing
    return chain


def test_a_filter_grows_by_layers_and_keeps_its_promise(with_redis: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crochet_tasks.filters.LEAST_ORTHOS", 8_000)
    filters = with_redis.filters
    ids: list[Any] = []
    for step in range(8):
        ids += fill(with_redis, "grows", 10 * step, 10, 2000, orthos=4_000)
        if step == 3:  # what is in it already takes no room
            assert filters.add("grows", filters.missing("grows", [1000])[0], [1000], iter(ids), orthos=10_000)
    assert filters.missing("grows", range(81))[1] == {80}
    chain = in_filter(with_redis, "grows", 80)
    assert len(chain.layers) >= 4
    assert sum(layer.capacity for layer in chain.layers) < 4 * 160_000
    for batch in ids[::5]:
        there = filters.probably("grows", chain, batch)
        assert there is not None
        assert there.all()
    random = np.random.default_rng(99).integers(0, 1 << 64, (20_000, 2), np.uint64)
    maybe = filters.probably("grows", chain, random)
    assert maybe is not None
    assert maybe.mean() < 0.01


def test_a_filter_of_which_anything_is_lost_is_not_relied_on(
    with_redis: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crochet_tasks.filters.LEAST_ORTHOS", 3000)
    filters = with_redis.filters
    client = filters._client
    assert client is not None
    for lose in range(6):
        ids = fill(with_redis, "lost", 0, 4, 5000, orthos=1000)
        chain = in_filter(with_redis, "lost", 4)
        assert len(chain.layers) >= 3
        if lose < 3:
            client.delete(_keys("lost", chain)[lose])
        elif lose == 3:
            client.delete("lost")
        elif lose == 4:
            client.flushall()
        else:  # comes back with what it had before
            saved = {key: client.dump(key) for key in client.keys("lost*")}
            fill(with_redis, "lost", 4, 4, 5000, orthos=1000)
            chain = in_filter(with_redis, "lost", 8)
            for key, value in saved.items():
                client.restore(key, 0, value or b"", replace=True)
        assert filters.probably("lost", chain, ids[0]) is None, lose
        now, missing = filters.missing("lost", range(8))
        assert (now is None) == (lose < 5)
        if now is not None:
            assert missing == {4, 5, 6, 7}
            there = filters.probably("lost", now, np.concatenate(ids))
            assert there is not None
            assert there.all()


def test_two_processes_fill_one_filter(with_redis: Catalog, look: Look) -> None:
    other = Catalog(with_redis.store.process, SECRET)
    mine = fill(with_redis, "both", 0, 2, 1000, orthos=1000)

    def meanwhile() -> Iterator[Any]:
        fill(with_redis, "both", 5, 1, 1000, orthos=1000)
        yield mine[0]

    known, missing = other.filters.missing("both", [0, 1, 9])
    assert missing == {9}
    assert not other.filters.add("both", known, [9], meanwhile(), orthos=1000)
    assert other.filters.missing("both", [0, 1, 5, 9])[1] == {9}
    theirs = fill(other, "both", 9, 1, 1000, orthos=1000)
    for filters in (with_redis.filters, other.filters):
        chain, missing = filters.missing("both", [0, 1, 5, 9])
        assert chain is not None
        assert missing == set()
        there = filters.probably("both", chain, np.concatenate([*mine, *theirs]))
        assert there is not None
        assert there.all()


def test_a_filter_lost_before_it_is_written_denies_nothing(
    with_redis: Catalog, process: Process, monkeypatch: pytest.MonkeyPatch, redis_server: Redis
) -> None:
    """Redis loses it between the look at what it lacks and the addition of that: the rest is lacking, too, then."""
    monkeypatch.setattr("crochet_tasks.finding.LEFT_OUT", 0)
    corpus = new_corpus(process)
    add = with_redis.filters.add

    def lost(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(with_redis.filters, "add", add)
        redis_server.flush()
        return add(*args, **named)

    for number, text in enumerate(TEXTS, start=1):
        ingest_all(corpus, [text])
        monkeypatch.setattr(with_redis.filters, "add", lost)
        with process.database.snapshot() as connection:
            ids = [ortho.id for ortho in best_first(TEXTS[:number])]
            result = with_redis.check(*Look(connection, corpus).args, ids, exact=False)
        assert (all(stored(result)), result.exact) == (True, False)


def test_a_filter_begun_anew_by_another_thread_denies_nothing(
    with_redis: Catalog, process: Process, monkeypatch: pytest.MonkeyPatch, redis_server: Redis
) -> None:
    """A thread with an older snapshot begins it anew between the look at what it lacks and the question."""
    monkeypatch.setattr("crochet_tasks.finding.LEFT_OUT", 0)
    corpus = new_corpus(process)
    ingest_all(corpus, TEXTS[:1])
    probably = with_redis.filters.probably
    with process.database.snapshot() as older:
        before = Look(older, corpus)
        with_redis.shapes(*before.args)
        ingest_all(corpus, TEXTS[1:])

        def meanwhile(*args: Any) -> Any:
            monkeypatch.setattr(with_redis.filters, "probably", probably)
            redis_server.flush()
            assert all(stored(with_redis.check(*before.args, [o.id for o in best_first(TEXTS[:1])], exact=False)))
            return probably(*args)

        monkeypatch.setattr(with_redis.filters, "probably", meanwhile)
        with process.database.snapshot() as connection:
            result = with_redis.check(*Look(connection, corpus).args, [ortho.id for ortho in ALL], exact=False)
    assert (all(stored(result)), result.exact) == (True, False)


def test_new_batches_are_in_probable_answers_at_once(
    process: Process, with_redis: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = new_corpus(process)
    for left_out in (0, 5, 1 << 16):
        monkeypatch.setattr("crochet_tasks.finding.LEFT_OUT", left_out)
        corpus = new_corpus(process)
        for number, body in enumerate([*TEXTS, MORE], start=1):
            ingest_all(corpus, [body])
            with process.database.snapshot() as connection:
                look = Look(connection, corpus)
                every = [ortho.id for ortho in best_first([*TEXTS, MORE][:number])]
                for begin in range(0, len(every), 1000):
                    assert all(stored(with_redis.check(*look.args, every[begin : begin + 1000], exact=False)))


def test_without_redis_checks_are_exact_and_say_so(
    process: Process, look: Look, redis_server: Redis, with_redis: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crochet_tasks.filters.REST_SECONDS", 0.0)
    monkeypatch.setattr("crochet_tasks.finding.LEFT_OUT", 0)
    items: list[Any] = [ALL[0].id, "0" * 32, grid(ALL[-1].sides, ALL[-1].words, (0, 1))]

    def check(catalog: Catalog) -> tuple[list[bool], bool, bool]:
        result = catalog.check(*look.args, items, exact=False)
        return stored(result), result.exact, result.degraded

    assert check(with_redis) == ([True, False, True], False, False)
    redis_server.kill()
    assert check(with_redis) == ([True, False, True], True, True)
    assert check(Catalog(process, SECRET)) == ([True, False, True], True, True)
    with_redis.warm(look.corpus)
    redis_server.start()
    assert check(with_redis) == ([True, False, True], False, False)
    redis_server.flush()
    assert check(with_redis) == ([True, False, True], False, False)


def test_a_redis_that_did_not_answer_is_left_alone_for_a_while(
    look: Look, with_redis: Catalog, redis_server: Redis
) -> None:
    redis_server.kill()
    assert with_redis.check(*look.args, ["0" * 32], exact=False).degraded
    redis_server.start()
    assert with_redis.check(*look.args, ["0" * 32], exact=False).degraded
    with_redis.filters._closed_until = 0
    assert not with_redis.check(*look.args, ["0" * 32], exact=False).degraded


# ── the context ─────────────────────────────────────────────────────────────────────────────────


def test_words_and_phrases_are_those_of_the_texts(catalog: Catalog, look: Look) -> None:
    said = oracle.phrases(TEXTS, 8)
    words = sorted((phrase[0], born) for phrase, born in said.items() if len(phrase) == 1)
    for limit in (1, 4, 1000):
        read: list[tuple[str, int]] = []
        cursor = None
        while True:
            page = catalog.vocabulary(*look.args, limit=limit, cursor=cursor)
            read += page.words
            cursor = page.next_cursor
            if cursor is None:
                break
        assert read == words
    assert [word for word, _ in catalog.vocabulary(*look.args, "A").words] == ["a"]
    assert catalog.vocabulary(*look.args, "zz").words == []
    for prefix in [(), *said]:
        longer = sorted(phrase for phrase in said if phrase[:-1] == prefix)
        found, cursor = [], None
        while True:
            some = catalog.phrases(*look.args, prefix, 2, cursor)
            found += some.phrases
            cursor = some.next_cursor
            if cursor is None:
                break
        follow = [sum(1 for other in said if other[:-1] == phrase) for phrase in longer]
        assert [tuple(one) for one in found] == [(p, said[p], n) for p, n in zip(longer, follow, strict=True)]
        assert (some.prefix, some.born) == (prefix, said.get(prefix, 0))
    with pytest.raises(PhraseUnknown):
        catalog.phrases(*look.args, ["a", "a"])


def all_waiting(catalog: Catalog, look: Look) -> list[list[tuple[int, int]]]:
    """Per word the batches that wait on it, and up to where they were searched."""
    words = [word for word, _ in catalog.vocabulary(*look.args).words]
    each = [catalog.waiting_on(*look.args, [word]).batches for word in words]
    return [[(batch.id, batch.searched) for batch in batches] for batches in each]


def test_an_older_snapshot_shows_its_own_version(
    catalog: Catalog, process: Process, corpus: Corpus, look: Look
) -> None:
    words, phrases = catalog.vocabulary(*look.args), catalog.phrases(*look.args, ["b"])
    waiting = all_waiting(catalog, look)
    ingest_all(corpus, [MORE])
    with process.database.snapshot() as connection:
        newer = Look(connection, corpus)
        assert len(catalog.vocabulary(*newer.args).words) > len(words.words)
        assert joined(pages(catalog, newer, 100)) == best_first([*TEXTS, MORE])
        assert all_waiting(catalog, newer) == all_waiting(Catalog(process, SECRET), newer)
        assert all_waiting(catalog, newer) != waiting
    assert all_waiting(catalog, look) == waiting
    assert catalog.vocabulary(*look.args) == words
    assert catalog.phrases(*look.args, ["b"]) == phrases
    assert joined(pages(catalog, look, 100)) == ALL
    assert not catalog.check(*look.args, [[["a", "b"], ["x", "z"]]]).results[0].stored


def test_what_waits_on_a_phrase_is_what_the_remediations_say(catalog: Catalog, look: Look, process: Process) -> None:
    index = catalog.store.index(*look.args)
    rows = steps.sql(
        process,
        "SELECT id, sides, count, phrases FROM batches JOIN remediations ON batch = id WHERE corpus = :c ORDER BY id",
        c=look.corpus.id,
    )
    waits = [(row, set(np.frombuffer(bytes(row[3]), "<i4").tolist())) for row in rows]  # type: ignore[call-overload]
    for node in range(1, index.nodes):
        found = catalog.waiting_on(*look.args, index.phrase(node), 2)
        due = [row for row, phrases in waits if node in phrases]
        assert [batch.id for batch in found.batches] == [row[0] for row in due[:2]]
        assert found.more == max(0, len(due) - 2)
        assert sum(shape.batches for shape in found.shapes) == len(due)
        assert sum(shape.orthos for shape in found.shapes) == sum(row[2] for row in due)  # type: ignore[misc]
    with pytest.raises(PhraseUnknown):
        catalog.waiting_on(*look.args, ["none"])


def test_warm_reads_everything_once(catalog: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.warm(look.corpus)
    shown = catalog.store.shown(look.connection, look.corpus.id)
    assert len(catalog.store.batches) == len(shown.refs)
    monkeypatch.setattr(catalog.store, "_read", None)
    assert joined(pages(catalog, look, 100)) == ALL
    assert {shape_name(sides) for sides in shown.shapes} == {shape_name(ortho.sides) for ortho in ALL}


def test_threads_share_a_catalog(process: Process, corpus: Corpus) -> None:
    catalog = Catalog(process, SECRET)

    def read(_: int) -> list[FoundOrtho]:
        with process.database.snapshot() as connection:
            return joined(pages(catalog, Look(connection, corpus), 3))

    with ThreadPoolExecutor(4) as pool:
        assert all(orthos == ALL for orthos in pool.map(read, range(12)))


def test_anybody_may_ask_which_database_this_is(process: Process) -> None:
    """The name of a filter needs it; some managed servers give nobody the superuser."""
    rows = steps.sql(process, "SELECT proname, proacl FROM pg_proc WHERE proname LIKE 'pg\\_control\\_%'")
    assert {name for name, acl in rows if acl is None} >= {"pg_control_system", "pg_control_checkpoint"}
