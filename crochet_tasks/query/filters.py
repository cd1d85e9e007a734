"""Bloom filters of the ids of a corpus' orthos, kept in Redis: probably stored, or certainly not.

One filter per corpus, not per shape: ids tell shapes apart, and whoever asks for an id alone would else ask the filters
of all shapes and err as often as they do together. A filter is a chain of layers; when the last one is full a larger
one is added. A question fetches 128 bytes per id and layer, all of them in one round trip.

What may be lost must not lie. A chain has a token, which is part of its keys and stands before the bits of every
layer. The filter's mark is the token, the number of layers and a stamp that every writer changes, in the transaction
that writes. What is known of a chain holds only while its mark is the one by which it is known: so an evicted layer, a
flush, another chain, and a Redis that came back with what it had a minute ago are all noticed. Whoever asks does so
with the chain in which it knows its batches to be, and no other. A filter's name tells databases apart, also restored
ones.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, text

from crochet_tasks.engine.geometry import Halves
from crochet_tasks.engine.phrases import Bools
from crochet_tasks.errors import RedisUnavailable
from crochet_tasks.lru import Lru
from crochet_tasks.query.filters_layer import BLOCK_BYTES, Bytes, Layer, in_any

if TYPE_CHECKING:
    import redis
    from redis.client import Pipeline

TOKEN_BYTES, STAMP_BYTES = 16, 8
HEADER_BYTES = TOKEN_BYTES + 8
LEAST_ORTHOS = 1 << 16
"""for which the first layer has room"""
MOST_LAYERS = 64
LIFE_SECONDS = 7 * 86_400
"""after which a chain that nothing was added to is gone"""
ASKED_AT_ONCE = 4096
KNOWN_BATCHES = 1_000_000
"""of all filters together, of which it is remembered that they are in one"""
CONNECT_SECONDS, ANSWER_SECONDS = 0.2, 1.0
REST_SECONDS = 3.0
"""for which Redis is not asked again after it did not answer"""


class Chain(NamedTuple):
    """What a process knows of a filter: under this mark it has these layers, and these batches are in it."""

    mark: bytes
    layers: tuple[Layer, ...]
    batches: frozenset[int]

    @property
    def token(self) -> bytes:
        return self.mark[:TOKEN_BYTES]

    @staticmethod
    def new_mark(token: bytes, layers: int) -> bytes:
        return token + bytes([layers]) + secrets.token_bytes(STAMP_BYTES)


def identity(connection: Connection, corpus: int) -> str:
    """A name for the filter of a corpus, that no other database has for one: also no copy, or restored one."""
    named = connection.execute(text(_IDENTITY), {"corpus": corpus}).scalar_one()
    return f"crochet:ids:{{{named}}}"  # the braces keep its keys on one node of a cluster


_IDENTITY = """
SELECT concat_ws('-', system_identifier, timeline_id, pg_database.oid, corpora.id,
                 (extract(epoch FROM corpora.created_at) * 1000000)::bigint)
  FROM pg_control_system(), pg_control_checkpoint(), pg_database, corpora
 WHERE datname = current_database() AND corpora.id = :corpus
"""

# The mark, and of every layer its header and the blocks of all ids.
_ASK = """
local header = tonumber(ARGV[1])
local answers = {redis.call('GET', KEYS[1])}
for layer = 2, #KEYS do
  local parts = {redis.call('GETRANGE', KEYS[layer], 0, header - 1)}
  local places = ARGV[layer]
  for at = 1, #places, 4 do
    local first = struct.unpack('>I4', places, at) * 128 + header
    parts[#parts + 1] = redis.call('GETRANGE', KEYS[layer], first, first + 127)
  end
  answers[layer] = table.concat(parts)
end
return answers
"""


class Filters:
    """The filters of all corpora, in one Redis. Whatever goes wrong there is RedisUnavailable, soon.

    Once it did not answer it is left alone for a few seconds, in which everything is RedisUnavailable at once.
    """

    def __init__(self, url: str | None) -> None:
        self._client = None if url is None else _client(url)
        self._closed_until = 0.0
        self._known: Lru[str, Chain] = Lru(KNOWN_BATCHES, least=1)
        self._adding = threading.Lock()

    def missing(self, name: str, batches: Iterable[int]) -> tuple[Chain | None, set[int]]:
        """The chain, and which of these batches are not in it: as far as is known, and where some are not, in Redis.

        The chain is None where there is none that is whole; then all of them are missing.
        """
        asked = set(batches)
        chain = self._known.get(name)
        if chain is None or not asked <= chain.batches:
            with self._redis() as client, client.pipeline(transaction=True) as pipeline:
                chain = self._refreshed(pipeline, name, sorted(asked))
        return chain, asked - (chain.batches if chain else frozenset())

    def probably(self, name: str, chain: Chain, ids: Halves) -> Bools | None:
        """Per id (shape (ids, 2)) whether it may be in that chain; None where that is not in Redis as it was.

        An id of one of the chain's batches is never said not to be there.
        """
        there = np.zeros(len(ids), np.bool_)
        with self._redis() as client:
            for begin in range(0, len(ids), ASKED_AT_ONCE):
                some = ids[begin : begin + ASKED_AT_ONCE]
                blocks = [layer.places(some)[0].astype(">u4").tobytes() for layer in chain.layers]
                keys = [name, *_keys(name, chain)]
                mark, *answers = client.eval(_ASK, len(keys), *keys, HEADER_BYTES, *blocks)
                whole = mark == chain.mark and all(
                    _whole(answer, layer, chain.token, len(some))
                    for layer, answer in zip(chain.layers, answers, strict=True)
                )
                if not whole:
                    self._forget(name, chain)
                    return None
                for layer, answer in zip(chain.layers, answers, strict=True):
                    fetched = np.frombuffer(answer, np.uint8, offset=HEADER_BYTES)
                    there[begin : begin + ASKED_AT_ONCE] |= layer.test_fetched(fetched, some)
        return there

    def add(
        self, name: str, chain: Chain | None, batches: Sequence[int], ids: Iterable[Halves], *, orthos: int
    ) -> Chain | None:
        """Put batches into that chain, or into a new one; what it then is, or None: ask again what is missing.

        None where another process was quicker, or the chain was lost since: a new one would hold these batches alone.
        `ids`: those of all their orthos, in any portions; `orthos`: how many the corpus has.
        """
        from redis import WatchError

        with self._adding, self._redis() as client, client.pipeline(transaction=True) as pipeline:
            if chain is None and self._refreshed(pipeline, name, list(batches)) is not None:
                return None
            _watch(pipeline, name)
            if chain is not None and pipeline.get(name) != chain.mark:
                return None
            filled = _Filled([]) if chain is None else _Filled.read(pipeline, name, chain)
            if filled is None:
                self._forget(name, chain)
                return None
            for portion in ids:
                filled.add(portion, orthos)
            token = secrets.token_bytes(TOKEN_BYTES) if chain is None else chain.token
            known = chain.batches if chain is not None else frozenset()
            now = Chain(Chain.new_mark(token, len(filled.layers)), filled.layers, known | set(batches))
            try:
                self._write(pipeline, name, now, filled, batches)
            except WatchError:
                return None
            self._learn(name, now)
        return now

    def _learn(self, name: str, chain: Chain) -> None:
        self._known.put(name, chain, 1 + len(chain.batches))

    def _forget(self, name: str, chain: Chain | None) -> None:
        """Unless somebody has learnt of another one meanwhile."""
        if chain is None or self._known.get(name) is chain:
            self._known.forget(name.__eq__)

    def _refreshed(self, pipeline: Pipeline, name: str, batches: list[int]) -> Chain | None:
        """The chain as it is in Redis now, with those of these batches that are in it; None where it is not whole."""
        from redis import WatchError

        chain = None
        _watch(pipeline, name)
        mark: Any = pipeline.get(name)
        if mark:
            chain = Chain(mark, (), frozenset())
            pipeline.multi()
            pipeline.smismember(_members(name, chain), [*batches, -1])
            for number in range(mark[TOKEN_BYTES]):
                pipeline.getrange(_key(name, chain, number), 0, HEADER_BYTES - 1)
            try:
                members, *headers = pipeline.execute()
            except WatchError:
                chain = None
            else:
                chain = _chain(mark, headers, batches, members)
        pipeline.reset()
        if chain is None:
            self._forget(name, None)
        else:
            self._learn(name, chain)
        return chain

    def _write(self, pipeline: Pipeline, name: str, chain: Chain, filled: _Filled, batches: Sequence[int]) -> None:
        """Write what was changed, note the batches and set the new mark, all or nothing."""
        pipeline.multi()
        for number, (layer, bitmap) in enumerate(filled.bitmaps):
            key = _key(name, chain, number)
            if number in filled.changed:
                pipeline.set(key, layer.header(chain.token) + bitmap.tobytes(), ex=LIFE_SECONDS)
            pipeline.expire(key, LIFE_SECONDS)
        pipeline.sadd(_members(name, chain), *batches)
        pipeline.expire(_members(name, chain), LIFE_SECONDS)
        pipeline.set(name, chain.mark, ex=LIFE_SECONDS)
        pipeline.execute()

    @contextlib.contextmanager
    def _redis(self) -> Iterator[redis.Redis]:
        if self._client is None:
            raise RedisUnavailable(reason="CROCHET_REDIS_URL is not set")
        if time.monotonic() < self._closed_until:
            raise RedisUnavailable(reason="it did not answer a moment ago")
        import redis

        try:
            yield self._client
        except (redis.RedisError, OSError) as error:
            self._closed_until = time.monotonic() + REST_SECONDS
            raise RedisUnavailable(reason=(str(error).splitlines() or ["no reason given"])[0]) from error


class _Filled:
    """The layers of a chain with all their bits, while batches are added."""

    def __init__(self, bitmaps: list[tuple[Layer, Bytes]]) -> None:
        self.bitmaps = bitmaps
        self.changed: set[int] = set()
        self._room = bitmaps[-1][0].room(bitmaps[-1][1]) if bitmaps else 0

    @classmethod
    def read(cls, pipeline: Pipeline, name: str, chain: Chain) -> _Filled | None:
        """None where a layer was lost meanwhile."""
        values: Any = pipeline.mget(_keys(name, chain))
        if any(
            value is None or len(value) != HEADER_BYTES + layer.blocks * BLOCK_BYTES
            for layer, value in zip(chain.layers, values, strict=True)
        ):
            return None
        bits = [np.frombuffer(value, np.uint8, offset=HEADER_BYTES).copy() for value in values]
        return cls(list(zip(chain.layers, bits, strict=True)))

    @property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for layer, _ in self.bitmaps)

    def add(self, ids: Halves, orthos: int) -> None:
        """Add ids that no layer has yet; `orthos`: as many as there will be at least."""
        left = ids[~in_any(self.bitmaps, ids)]
        while len(left):
            if self._room <= 0:
                if len(self.bitmaps) == MOST_LAYERS:
                    raise RedisUnavailable(reason="the filter has as many layers as it may have")
                # As much again as there is already; the first one with a little more room than is needed now.
                held = sum(layer.capacity for layer in self.layers)
                room = max(held, orthos) if self.bitmaps else 4 * orthos // 3
                layer = Layer.of(len(self.bitmaps), max(LEAST_ORTHOS, room))
                self.bitmaps.append((layer, layer.empty()))
                self._room = layer.capacity
            layer, bitmap = self.bitmaps[-1]
            layer.add(bitmap, left[: self._room])
            self.changed.add(len(self.bitmaps) - 1)
            left, self._room = left[self._room :], self._room - len(left)


def _watch(pipeline: Pipeline, name: str) -> None:
    pipeline.watch(name)  # type: ignore[no-untyped-call]


def _client(url: str) -> redis.Redis:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=ANSWER_SECONDS, retry=Retry(NoBackoff(), 0)
    )


def _key(name: str, chain: Chain, number: int) -> str:
    return f"{name}:{chain.token.hex()}:{number}"


def _keys(name: str, chain: Chain) -> list[str]:
    return [_key(name, chain, number) for number in range(len(chain.layers))]


def _members(name: str, chain: Chain) -> str:
    return f"{name}:{chain.token.hex()}:batches"


def _chain(mark: bytes, headers: list[bytes], batches: list[int], members: list[int]) -> Chain | None:
    """What was read of a chain; None where it is not whole."""
    if not headers or any(header[:TOKEN_BYTES] != mark[:TOKEN_BYTES] for header in headers):
        return None
    inside = frozenset(batch for batch, member in zip(batches, members, strict=False) if member)
    return Chain(mark, tuple(map(Layer.read, headers)), inside)


def _whole(answer: bytes, layer: Layer, token: bytes, ids: int) -> bool:
    return answer[:HEADER_BYTES] == layer.header(token) and len(answer) == HEADER_BYTES + ids * BLOCK_BYTES
