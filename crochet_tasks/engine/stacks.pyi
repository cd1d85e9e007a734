# Types of the compiled module; stacks.pyx has the documentation.

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_Ids: TypeAlias = npt.NDArray[np.uint32]

class Trie:
    words: int
    roots: int
    nodes: int
    rows: int
    cells: int
    first: _Ids
    bytes: int
    def __init__(self, words: int, rows: _Ids, *, pairs: bool = False) -> None: ...

class Tables:
    cells: int
    layers: int
    def __init__(self, cells: int, layers: int, lower: Sequence[int], clashes: Sequence[Sequence[int]]) -> None: ...

def starts(faces: Trie, columns: Trie) -> _Ids: ...
def stack(
    faces: Trie,
    columns: Trie,
    tables: Tables,
    starts: _Ids,
    first: int,
    last: int,
    stop: npt.NDArray[np.uint8],
    *,
    keep: bool = True,
    enough: int = 0,
    room: int = ...,
    visits: int = ...,
    rates: Iterable[float] | None = None,
    due: Iterable[float] | None = None,
) -> tuple[_Ids, npt.NDArray[np.uint64], int, int]: ...
