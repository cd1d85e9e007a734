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

from crochet_tasks.engine import kernel
from crochet_tasks.engine.geometry import SHAPES_KEPT, Sides, lines
from crochet_tasks.engine.tree import HASH_SEED, Hashes, Ids, Tree, stir

FORMAT = 1
"""first byte of packed rows; another format is another number"""
LEVEL = 3
"""of zstd"""
LARGEST = 1 << 28
"""bytes that a packed run unpacks to at most: more is damage"""


class DamagedRun(ValueError):
    """Packed orthos or phrases that are not what was packed."""


class Run(NamedTuple):
    """Orthos of one shape, ascending."""

    sides: Sides
    rows: Ids

    @property
    def count(self) -> int:
        return len(self.rows)


def height(sides: Sides) -> int:
    """How many lines along the leading axis an ortho has."""
    return math.prod(sides[:-1])


# ── packed ──────────────────────────────────────────────────────────────────────────────────────


def pack(rows: Ids, base: int) -> bytes:
    """A run as bytes; `base`: no phrase id is lower. Raises ValueError where it is not ascending or has duplicates."""
    return _sealed(kernel.encoded(np.ascontiguousarray(rows), base))


def unpack(packed: bytes, count: int, width: int, base: int, limit: int) -> Ids:
    """The inverse of `pack`: `count` rows of `width` ids in [base, limit). Raises DamagedRun."""
    return _decoded(packed, count, width, base, limit)


def pack_set(ids: Ids) -> bytes:
    """Phrase ids, ascending, as bytes."""
    return _sealed(kernel.encoded(ids.reshape(-1, 1), 0))


def unpack_set(packed: bytes, limit: int) -> Ids:
    """The inverse of `pack_set`, all ids < `limit`. Raises DamagedRun."""
    count = int.from_bytes(packed[5:9], "little")
    return _decoded(packed, count, 1, 0, limit)[:, 0]


def _sealed(data: bytes) -> bytes:
    raise NotImplementedError


def _decoded(packed: bytes, count: int, width: int, base: int, limit: int) -> Ids:
    raise NotImplementedError
