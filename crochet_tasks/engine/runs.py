"""Runs: orthos of one shape in their order, as the search makes them, the store keeps them and the API serves them.

An ortho is the phrases of its lines along the leading axis, row-major over the other axes; a run is a matrix of phrase
ids (uint32, shape (orthos, lines)) in ascending order, which is the alphabetical one (tree.py numbers phrases so).
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from crochet_tasks.engine import kernel, packing
from crochet_tasks.engine.geometry import SHAPES_KEPT, Sides, lines
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import HASH_SEED, Hashes, Tree, stir, word_hash

FORMAT = 1
"""first byte of packed rows; another format is another number"""
LEVEL = 3
"""of zstd"""
FEW = 64
"""the lines of some orthos are few if they are less than one in so many phrases"""
LARGEST = 1 << 28
"""bytes that a packed run unpacks to at most: more is damage"""


class DamagedRun(ValueError):
    """Packed orthos or phrases that are not what was packed."""


class Run(NamedTuple):
    """Orthos of one shape, ascending."""

    sides: Sides
    rows: Ids


def height(sides: Sides) -> int:
    """How many lines along the leading axis an ortho has."""
    return math.prod(sides[:-1])


# ── packed ──────────────────────────────────────────────────────────────────────────────────────


def pack(rows: Ids, base: int) -> bytes:
    """A run as bytes; no phrase id is below `base`. Raises ValueError where it is not ascending or has duplicates."""
    return _sealed(packing.encoded(np.ascontiguousarray(rows), base), len(rows))


def unpack(packed: bytes, count: int, width: int, base: int, limit: int) -> Ids:
    """The inverse of `pack`: `count` rows of `width` ids in [base, limit). Raises DamagedRun."""
    data, held = _opened(packed)
    if held != count:
        raise DamagedRun(f"it holds {held} orthos, and {count} are recorded")
    return _decoded(data, count, width, base, limit)


def held(packed: bytes) -> int:
    """How many rows or ids `pack` or `pack_set` packed. Raises DamagedRun where format or checksum differ."""
    _checked(packed)
    return int.from_bytes(packed[5:9], "little")


def pack_set(ids: Ids) -> bytes:
    """Ascending phrase ids as bytes."""
    return _sealed(packing.encoded(ids.reshape(-1, 1), 0), len(ids))


def unpack_set(packed: bytes, limit: int) -> Ids:
    """The inverse of `pack_set`; all ids are below `limit`. Raises DamagedRun."""
    data, count = _opened(packed)
    return _decoded(data, count, 1, 0, limit)[:, 0]


def pack_numbers(numbers: npt.NDArray[np.int32]) -> bytes:
    """Numbers in any order as bytes; small where neighbours differ by little, or by the same again and again."""
    return _sealed(np.diff(numbers, prepend=np.int32(0)).astype("<i4").tobytes(), len(numbers))


def unpack_numbers(packed: bytes, count: int) -> npt.NDArray[np.int32]:
    """The inverse of `pack_numbers`. Raises DamagedRun."""
    data, there = _opened(packed)
    if there != count or len(data) != 4 * count:
        raise DamagedRun(f"it holds {there} numbers, and {count} are recorded")
    return np.cumsum(np.frombuffer(data, "<i4"), dtype=np.int32)


def _sealed(data: bytes, count: int) -> bytes:
    """Format, checksum of the rest, count, and the data compressed."""
    rest = count.to_bytes(4, "little") + zstandard.ZstdCompressor(LEVEL).compress(data)
    return bytes([FORMAT]) + zlib.crc32(rest).to_bytes(4, "little") + rest


def _checked(packed: bytes) -> None:
    if packed[:1] != bytes([FORMAT]):
        raise DamagedRun(f"its format is {packed[:1].hex() or 'missing'}, and {FORMAT:02x} is known")
    if zlib.crc32(packed[5:]) != int.from_bytes(packed[1:5], "little"):
        raise DamagedRun("its checksum differs")


def _opened(packed: bytes) -> tuple[bytes, int]:
    count = held(packed)
    try:
        if zstandard.frame_content_size(packed[9:]) > LARGEST:  # of what names its size, the library checks nothing
            raise DamagedRun(f"it claims to unpack to more than {LARGEST} bytes")
        data = zstandard.ZstdDecompressor().decompress(packed[9:], max_output_size=LARGEST)
    except zstandard.ZstdError as error:
        raise DamagedRun(f"it cannot be decompressed ({error})") from error
    return data, count


def _decoded(data: bytes, count: int, width: int, base: int, limit: int) -> Ids:
    try:
        rows: Ids = packing.decoded(data, count, width, base, limit)
    except ValueError as error:
        raise DamagedRun("its numbers are no ascending phrases") from error
    return rows


# ── sets of orthos ──────────────────────────────────────────────────────────────────────────────


def ascending(rows: Ids) -> Ids:
    """The same orthos in their order."""
    return packing.ascending(np.ascontiguousarray(rows)) if len(rows) > 1 else rows


def words(tree: Tree, sides: Sides, rows: Ids) -> Ids:
    """The words of orthos: word ids, a row per ortho, a column per cell (row-major)."""
    return kernel.unpacked(tree.ahead, np.ascontiguousarray(rows), sides[-1])


def text(tree: Tree, sides: Sides, row: Ids) -> tuple[str, ...]:
    """The words of one ortho."""
    return tuple(tree.words[word] for word in words(tree, sides, row.reshape(1, -1))[0])


def key(words: Sequence[str]) -> str:
    """Words as one text that collates by code points as the order of orthos and phrases wants it.

    For a blank comes before every letter, mark and apostrophe, and words hold nothing else.
    """
    return " ".join(words)


@functools.lru_cache(SHAPES_KEPT)
def line_tables(sides: Sides) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The lines of a box, those along the leading axis first, as the kernel walks them: cells, and lengths of lines."""
    every = lines(sides)
    leading = len(every) - height(sides)
    every = (*every[leading:], *every[:leading])
    return np.array([cell for line in every for cell in line], np.int32), np.array(
        [len(line) for line in every], np.int32
    )


def every_line(tree: Tree, sides: Sides, words: Ids) -> tuple[Ids, npt.NDArray[np.bool_]]:
    """The phrases of all lines of boxes given as words, a column per line, those along the leading axis first.

    And per box whether every line is a phrase; where one is none, the columns from it on are to be ignored.
    """
    phrases, verdicts = kernel.walked(tree.ahead, np.ascontiguousarray(words), *line_tables(sides))
    return phrases, verdicts.astype(np.bool_)


def line_set(tree: Tree, sides: Sides, rows: Ids) -> Ids:
    """The phrases that are lines of these orthos, along every axis, ascending: what they wait on."""
    if len(rows) * len(line_tables(sides)[1]) < tree.size // FEW:  # else to mark them takes less than to sort them
        phrases, whole = every_line(tree, sides, words(tree, sides, rows))
        if not whole.all():
            raise DamagedRun("a line of it is no phrase")
        every: Ids = np.sort(phrases, axis=None)
        distinct: Ids = every[np.append(True, every[1:] != every[:-1])]
        return distinct
    cells, lengths = line_tables(sides)
    across = (cells[math.prod(sides) :], lengths[height(sides) :])  # the other lines are the rows themselves
    try:
        seen = kernel.marked(tree.ahead, np.ascontiguousarray(rows), sides[-1], *across)
    except ValueError as error:
        raise DamagedRun("a line of it is no phrase") from error
    return np.flatnonzero(seen.view(np.bool_)).astype(np.uint32)


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────


def ids(tree: Tree, sides: Sides, rows: Ids) -> Hashes:
    """The 128-bit ids of orthos as two numbers each, shape (orthos, 2).

    The first half is a hash of the first line, the second one of the sides and all words; both depend on nothing else.
    """
    first, begin = rows[:, 0], np.ones(len(rows), np.bool_)
    np.not_equal(first[1:], first[:-1], out=begin[1:])  # rows with the same first line mostly follow on each other
    state = np.full(np.count_nonzero(begin), HASH_SEED)
    for side in (len(sides), *sides):
        state = stir(state, np.uint64(side))
    for column in words(tree, sides, rows[begin, :1]).T:
        state = stir(state, tree.word_hashes[1].take(column))
    state = np.repeat(state, np.diff(np.append(np.flatnonzero(begin), len(rows))))
    for column in words(tree, sides, rows[:, 1:]).T:
        state = stir(state, tree.word_hashes[1].take(column))
    return np.stack([tree.hashes.take(rows[:, 0]), state], axis=1)


def id_texts(ids: Hashes) -> list[str]:
    """Ids, shape (orthos, 2), as people see them: 32 hexadecimal digits."""
    digits = ids.astype(">u8").tobytes().hex()
    return [digits[first : first + 32] for first in range(0, len(digits), 32)]


def half(words: Sequence[str]) -> int:
    """The first half of the id of an ortho whose first line has these words."""
    state = np.full(1, HASH_SEED)
    for word in words:
        state = stir(state, word_hash(word)[:1])
    return int(state[0])


def ortho_id(sides: Sides, words: Sequence[str]) -> tuple[int, int]:
    """The id of one ortho given in its canonical form."""
    state = np.full(1, HASH_SEED)
    for side in (len(sides), *sides):
        state = stir(state, np.uint64(side))
    for word in words:
        state = stir(state, word_hash(word)[1:])
    return half(words[: sides[-1]]), int(state[0])
