# Types of the compiled module; kernel.pyx has the documentation.

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Ids: TypeAlias = npt.NDArray[np.uint32]
_Flags: TypeAlias = npt.NDArray[np.uint8]

class Index:
    words: int
    phrases: int
    bytes: int
    def __init__(self, words: int, first: _Ids, word: _Ids, parent: _Ids) -> None: ...

def places(index: Index, phrases: _Ids, words: _Ids) -> _Ids: ...

class Plan:
    side: int
    rows: int
    new: int
    def __init__(
        self,
        *,
        side: int,
        rows: int,
        thick: int,
        lead: bool,
        unit: int,
        along: Sequence[int],
        walk: Sequence[int],
        rivals: Sequence[int],
        steps: Sequence[Sequence[int]],
        pool: Sequence[int],
        slots: int,
        order: Sequence[int],
        common: int,
        apart: Sequence[tuple[int, int]],
    ) -> None: ...

class Lengthen:
    def __init__(self, ahead: Index, across: Index, behind: Index, plan: Plan) -> None: ...
    def children(self, boxes: _Ids, track: bool = False) -> _Ids: ...

def unpacked(index: Index, boxes: _Ids, side: int) -> _Ids: ...
def turned(index: Index, other: Index, phrases: _Ids) -> _Ids: ...
def walked(
    index: Index,
    words: _Ids,
    lines: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int32],
    due: _Flags | None = None,
    own: _Ids | None = None,
    place: int = -1,
) -> tuple[_Ids, _Flags]: ...
def marked(
    index: Index, boxes: _Ids, side: int, lines: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]
) -> _Flags: ...
