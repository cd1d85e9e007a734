"""Checks of orthos against the oracle: exact ones, and probable ones with a filter in Redis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from crochet_tasks import publish
from crochet_tasks.db.process import Process
from crochet_tasks.query.catalog import Catalog
from crochet_tasks.query.checks import Reason
from crochet_tasks.query.filters import Chain, _keys
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.catalog import ALL, MORE, SECRET, Look, best_first, stored
from tests.support.services import Redis
from tests.support.steps import TEXTS, ingest_all, new_corpus

pytestmark = pytest.mark.integration


def grid(sides: tuple[int, ...], words: tuple[str, ...], axes: tuple[int, ...]) -> Any:
    return np.array(words, object).reshape(sides).transpose(axes).tolist()


def test_ids_and_boxes_in_any_order_of_their_axes_are_found(catalog: Catalog, look: Look) -> None:
    assert stored(catalog.check(*look.args, [ortho.id for ortho in ALL])) == [True] * len(ALL)
    for ortho in ALL:
        boxes = [grid(ortho.sides, ortho.words, axes) for axes in itertools.permutations(range(len(ortho.sides)))]
        result = catalog.check(*look.args, boxes)
        assert result[1:4] == (True, False, 3)
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
                refs = catalog.store.shown(looks[-1].connection, corpus.id).refs
                assert refs
                assert not catalog.whereabouts.of(corpus.id).lacks(refs)
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


@pytest.fixture
def with_redis(process: Process, redis_url: str) -> Catalog:
    return Catalog(Process(Settings(redis_url=SecretStr(redis_url)), process.database), SECRET)


def test_probable_answers_miss_nothing_and_seldom_err(
    with_redis: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crochet_tasks.query.catalog.LEFT_OUT", 0)
    result = with_redis.check(*look.args, [ortho.id for ortho in ALL], exact=False)
    assert stored(result) == [True] * len(ALL)
    assert (result.exact, result.degraded) == (False, False)
    absent = [f"{number:032x}" for number in np.random.default_rng(1).integers(0, 1 << 62, 1000)]
    assert sum(stored(with_redis.check(*look.args, absent, exact=False))) <= 10


def test_nobody_waits_for_much_to_be_put_into_the_filter(
    with_redis: Catalog, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound in ("LEFT_OUT", "FILLED_AT_ONCE"):
        monkeypatch.setattr(f"crochet_tasks.query.catalog.{bound}", 0)
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
    monkeypatch.setattr("crochet_tasks.query.filters.LEAST_ORTHOS", 8_000)
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
    monkeypatch.setattr("crochet_tasks.query.filters.LEAST_ORTHOS", 3000)
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
    monkeypatch.setattr("crochet_tasks.query.catalog.LEFT_OUT", 0)
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
    monkeypatch.setattr("crochet_tasks.query.catalog.LEFT_OUT", 0)
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
        monkeypatch.setattr("crochet_tasks.query.catalog.LEFT_OUT", left_out)
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
    monkeypatch.setattr("crochet_tasks.query.filters.REST_SECONDS", 0.0)
    monkeypatch.setattr("crochet_tasks.query.catalog.LEFT_OUT", 0)
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


def test_anybody_may_ask_which_database_this_is(process: Process) -> None:
    """The name of a filter needs it; some managed servers give nobody the superuser."""
    rows = steps.sql(process, "SELECT proname, proacl FROM pg_proc WHERE proname LIKE 'pg\\_control\\_%'")
    assert {name for name, acl in rows if acl is None} >= {"pg_control_system", "pg_control_checkpoint"}
