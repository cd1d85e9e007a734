"""The layers of the filters of ids: nothing added is missed, little else is let through."""

from __future__ import annotations

import numpy as np
import pytest

from crochet_tasks.engine.geometry import Halves
from crochet_tasks.errors import RedisUnavailable
from crochet_tasks.query.filters import Filters
from crochet_tasks.query.filters_layer import Layer, in_any


def random_ids(number: int, seed: int) -> Halves:
    return np.random.default_rng(seed).integers(0, 1 << 64, (number, 2), np.uint64)


@pytest.mark.parametrize("number", range(4))
def test_a_full_layer_has_what_was_added_and_errs_less_the_later_it_is(number: int) -> None:
    orthos = 200_000
    layer = Layer.of(number, orthos)
    bitmap = layer.empty()
    ids = random_ids(orthos, 1)
    layer.add(bitmap, ids)
    assert layer.test(bitmap, ids).all()
    assert layer.test(bitmap, random_ids(orthos, 2)).mean() < max(0.005 / 2**number, 0.0005)
    assert layer.room(bitmap) < orthos / 10
    assert len(bitmap) * 8 <= (12 + 2 * number) * orthos + 1024


def test_all_layers_of_a_chain_together_err_in_less_than_a_hundredth() -> None:
    chain = []
    for number in range(8):
        layer = Layer.of(number, 50_000)
        bitmap = layer.empty()
        layer.add(bitmap, random_ids(layer.capacity, number))
        chain.append((layer, bitmap))
    assert in_any(chain, random_ids(300_000, 99)).mean() < 0.01


def test_blocks_that_were_fetched_say_what_the_whole_layer_says() -> None:
    layer = Layer.of(1, 20_000)
    bitmap = layer.empty()
    layer.add(bitmap, random_ids(20_000, 3))
    asked = np.concatenate([random_ids(100, 3), random_ids(5000, 4)])
    fetched = bitmap.reshape(-1, 128)[layer.places(asked)[0]].ravel()
    np.testing.assert_array_equal(layer.test_fetched(fetched, asked), layer.test(bitmap, asked))


def test_an_empty_layer_has_room_for_what_it_was_made_for() -> None:
    layer = Layer.of(0, 100_000)
    assert layer.room(layer.empty()) == pytest.approx(100_000, rel=0.05)


def test_a_layer_has_a_largest_size() -> None:
    assert len(Layer.of(3, 10**9).empty()) == 16 << 20


def test_a_header_can_be_read_again() -> None:
    layer = Layer.of(2, 1_000_000)
    assert Layer.read(layer.header(b"t" * 16)) == layer


def test_without_redis_everything_is_unavailable() -> None:
    filters = Filters(None)
    with pytest.raises(RedisUnavailable):
        filters.missing("name", [1])
    with pytest.raises(RedisUnavailable):
        filters.add("name", None, [1], iter([random_ids(1, 1)]), orthos=1)
