"""One layer of a Bloom filter over ids of orthos, as an array of blocks; pure numpy.

An id sets and tests all its bits within one block of 1024, so that to ask for one means to fetch 128 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from crochet_tasks.engine.geometry import Halves
from crochet_tasks.engine.phrases import Bools, Longs

Bytes = npt.NDArray[np.uint8]

BLOCK_BITS = 1024
BLOCK_BYTES = BLOCK_BITS // 8
FIRST_BITS, MORE_BITS, MOST_BITS = 12, 2, 18
"""bits per ortho of the first layer, so many more in each further one: so what they err by adds up to less than 1 %"""
LARGEST_BYTES = 16 << 20
"""of a layer: it is sent whole when batches are added"""


class Layer(NamedTuple):
    """The size of a layer; both follow from what its chain held when it was made, and are in its header."""

    blocks: int
    bits: int
    """set per ortho"""

    def places(self, ids: Halves) -> tuple[Longs, Longs]:
        """Per id: its block, shape (ids,), and its bits in it, shape (bits, ids)."""
        block = ((ids[:, 0] >> np.uint64(32)) * np.uint64(self.blocks)) >> np.uint64(32)
        second = ids[:, 1]
        mixed = (second ^ (second >> np.uint64(31))) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
        slices = [(half >> np.uint64(10 * i)) & np.uint64(1023) for half in (second, mixed) for i in range(6)]
        return block.astype(np.int64), np.stack(slices[: self.bits]).astype(np.int64)

    def empty(self) -> Bytes:
        return np.zeros(self.blocks * BLOCK_BYTES, np.uint8)

    def add(self, bitmap: Bytes, ids: Halves) -> None:
        block, bits = self.places(ids)
        for bit in bits:
            np.bitwise_or.at(bitmap, block * BLOCK_BYTES + (bit >> 3), (1 << (bit & 7)).astype(np.uint8))

    def test(self, bitmap: Bytes, ids: Halves) -> Bools:
        """`bitmap`: all blocks of the layer."""
        block, bits = self.places(ids)
        return self._all_set(bitmap, block, bits)

    def test_fetched(self, blocks: Bytes, ids: Halves) -> Bools:
        """`blocks`: those of the ids, one after the other."""
        return self._all_set(blocks, np.arange(len(ids)), self.places(ids)[1])

    def _all_set(self, bitmap: Bytes, block: Longs, bits: Longs) -> Bools:
        there: Bools = np.ones(len(block), np.bool_)
        for bit in bits:
            there &= ((bitmap[block * BLOCK_BYTES + (bit >> 3)] >> (bit & 7).astype(np.uint8)) & 1).astype(np.bool_)
        return there

    def room(self, bitmap: Bytes) -> int:
        """About how many more orthos may be added, told from the share of bits that are set."""
        share = min(int(np.bitwise_count(bitmap).sum()) / (8 * len(bitmap)), 0.999)
        held = -math.log1p(-share) * 8 * len(bitmap) / self.bits
        return max(0, int(self.capacity - held))

    @property
    def capacity(self) -> int:
        return int(self.blocks * BLOCK_BITS * math.log(2) / self.bits)

    def header(self, token: bytes) -> bytes:
        """What stands before the blocks."""
        return token + self.blocks.to_bytes(4, "big") + self.bits.to_bytes(4, "big")

    @classmethod
    def read(cls, header: bytes) -> Layer:
        return cls(int.from_bytes(header[-8:-4], "big"), int.from_bytes(header[-4:], "big"))

    @classmethod
    def of(cls, number: int, orthos: int) -> Layer:
        """Layer `number` of a chain, for so many orthos."""
        per_ortho = min(FIRST_BITS + MORE_BITS * number, MOST_BITS)
        blocks = min(math.ceil(orthos * per_ortho / BLOCK_BITS), LARGEST_BYTES // BLOCK_BYTES)
        return cls(blocks, min(12, round(per_ortho * math.log(2))))


def in_any(layers: Sequence[tuple[Layer, Bytes]], ids: Halves) -> Bools:
    """Per id whether one of the layers has it."""
    there: Bools = np.zeros(len(ids), np.bool_)
    for layer, bitmap in layers:
        there |= layer.test(bitmap, ids)
    return there
