"""Caches bounded by bytes: what was used last stays, and no more than fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crochet_tasks.db.cache import Cache

MOST = 100


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 150))), st.booleans())
def test_it_never_holds_more_than_fits_and_always_the_newest(
    puts: list[tuple[str, int]],
    keeps_last: bool,
) -> None:
    cache: Cache[str, int] = Cache("batches", MOST, keeps_last=keeps_last)
    for place, (key, size) in enumerate(puts):
        cache.put(key, place, size)
        kept = [each for each in map(cache.get, "abcdef") if each is not None]
        assert len(kept) == 1 or sum(puts[each][1] for each in kept) <= MOST
        assert cache.bytes <= MOST
        assert cache.get(key) == (place if size <= MOST or keeps_last else None)


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache: Cache[str, str] = Cache("batches", MOST)
    for key in "abc":
        cache.put(key, key, 33)
    assert cache.get("a") == "a"
    cache.put("d", "d", 33)
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]
    cache.forget("c")
    assert (len(cache), cache.bytes) == (2, 66)
