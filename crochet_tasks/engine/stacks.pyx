# Which checks are compiled in is set in hatch_build.py, not here: what is set here holds for the builds of tests too.
# distutils: language = c++
"""The compiled part of the search for the best orthos: boxes as stacks of equal faces, without listing smaller boxes.

Faces and columns (the phrases along the axis of the stack) are rows of word ids in tries, so layers that begin alike
share that work. The first two layers are filled together, cell by cell, each pair a beginning of a column; further
layers follow the trie of faces and the columns at once. A face may have any number of axes, also one (a phrase):
nothing here knows a shape; faces.py describes it in tables. No function holds the GIL while it works.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

import numpy as np

ctypedef uint32_t u32
ctypedef uint64_t u64

cdef enum:
    FEW = 8            # words that follow are looked up where the list to look in is so many times as long
    ENOUGH = 1         # why a search has ended: so many boxes were wanted …
    STOPPED = 2        # … somebody asked it to …
    FULL = 3           # … or memory
    SPARE = 16         # a start may find so many times the boxes after which no other one is begun

cdef class Trie:
    """Rows of word ids (uint32, shape (rows, cells)), ascending and all different, as a trie.

    Node 0 is the root. Nodes are numbered level by level, so the children of one are contiguous and sorted by word.
    `first`: where a node's children begin, one entry more than nodes. `pairs`: with a bit per pair of first words.
    """
    cdef readonly u32 words, roots, nodes
    cdef readonly Py_ssize_t rows, cells
    cdef u32[::1] word, start, _first
    cdef u64[::1] bits
    cdef size_t width

    def __init__(self, u32 words, const u32[:, ::1] rows, *, bint pairs=False):
        cdef Py_ssize_t count = rows.shape[0], cells = rows.shape[1], i, t, same
        cdef bint wrong = cells < 1
        cdef u32 node, j
        self.words, self.rows, self.cells = words, count, cells
        cdef u64[::1] level = np.zeros(cells + 2, np.uint64)
        with nogil:
            for i in range(count if not wrong else 0):
                same = 0
                if i > 0:
                    while same < cells and rows[i, same] == rows[i - 1, same]:
                        same += 1
                    wrong = wrong or same == cells or rows[i, same] < rows[i - 1, same]
                for t in range(same, cells):
                    level[t + 1] += 1
                    wrong = wrong or rows[i, t] >= words
        if wrong:
            raise ValueError("the rows of a trie are ascending rows of word ids")
        level[0] = 1
        for t in range(cells):
            level[t + 1] += level[t]  # where each level begins
        if level[cells] >= 1 << 32:
            raise MemoryError("a trie has more nodes than can be numbered")
        self.nodes, self.roots = <u32>level[cells], <u32>(level[1] - 1)
        self.word, self._first = np.zeros(self.nodes, np.uint32), np.full(self.nodes + 1, self.nodes, np.uint32)
        self.start = np.zeros(words + 1, np.uint32)
        self._first[0] = 1
        cdef u64[::1] made = np.array(level)
        with nogil:
            for i in range(count):
                same = 0
                if i > 0:
                    while rows[i, same] == rows[i - 1, same]:
                        same += 1
                for t in range(same, cells):
                    node = <u32>made[t]
                    made[t] += 1
                    self.word[node] = rows[i, t]
                    if t == 0:
                        self.start[rows[i, 0]] = node
                    if t + 1 < cells:
                        self._first[node] = <u32>made[t + 1]
        self.width = (words + 63) // 64
        self.bits = np.zeros(self.roots * self.width + 1 if pairs and cells > 1 else 1, np.uint64)
        if pairs and cells > 1:
            for node in range(1, self.roots + 1):
                for j in range(self._first[node], self._first[node + 1]):
                    self.bits[(node - 1) * self.width + (self.word[j] >> 6)] |= (<u64>1) << (self.word[j] & 63)

    @property
    def first(self):
        return np.asarray(self._first)

    @property
    def bytes(self):
        return 8 * self.nodes + 4 * self.words + 8 * len(self.bits)

def starts(Trie faces, Trie columns):
    """The nodes of first words of faces that begin a column one above the other; shape (starts, 2), ascending."""
    cdef u32 a, b, j, node
    cdef Py_ssize_t n = 0, turn
    cdef u32[:, ::1] found = np.empty((0, 2), np.uint32)
    if faces.words != columns.words or columns.cells < 2:
        raise ValueError("faces and columns do not fit together")
    for turn in range(2):
        n = 0
        with nogil:
            for a in range(1, faces.roots + 1):
                node = columns.start[faces.word[a]]
                if node == 0:
                    continue
                for j in range(columns._first[node], columns._first[node + 1]):
                    b = faces.start[columns.word[j]]
                    if b:
                        if turn:
                            found[n, 0], found[n, 1] = a, b
                        n += 1
        if turn == 0:
            found = np.empty((n, 2), np.uint32)
    return np.asarray(found)

cdef class Tables:
    """A stack of `layers` faces of so many `cells`: which cells must differ. Cells are numbered layer by layer.

    `lower`: per cell of the first layer one whose word must be lower, or -1. `clashes`: per cell those filled before
    it in its shell, of other layers (the first two layers are filled together, the first one's cell before the other's).
    """
    cdef readonly int cells, layers
    cdef int32_t[::1] lower, at, pool

    def __init__(self, int cells, int layers, lower, clashes):
        self.cells, self.layers = cells, layers
        self.lower = np.array(lower, np.int32)
        self.at = np.concatenate([[0], np.cumsum([len(each) for each in clashes])]).astype(np.int32)
        self.pool = np.array([cell for each in clashes for cell in each] + [0], np.int32)
        fits = layers >= 2 and cells >= 1 and self.lower.shape[0] == cells and self.at.shape[0] == cells * layers + 1
        if not fits or max(self.pool) >= cells * layers or max(self.lower) >= cells * layers or min(self.pool) < 0:
            raise ValueError("the tables of a stack do not fit together")

cdef struct Search:
    const u32 *first      # the trie of faces …
    const u32 *word
    const u32 *start
    const u32 *next_first  # … and that of columns
    const u32 *next_word
    const u32 *next_start
    const u64 *bits
    size_t width
    int cells, layers, looked_up  # of columns 0 … looked_up - 1 the node of their first two words is known
    const int32_t *lower
    const int32_t *at
    const int32_t *pool
    u32 *words            # per cell …
    u32 *column           # … the node of its column before it
    u64 *visits           # per level (a pair of the first two layers, or a cell) how many fitted
    u64 total
    const double *rate    # per level the share that is followed; NULL: all are
    double *due
    u32 *out
    size_t used, size, most
    u64 enough, found
    const uint8_t *stop
    int ended
    bint keep

cdef inline u32 lookup(const u32 *word, u32 low, u32 high, u32 wanted) noexcept nogil:
    """The first place in [low, high) that is not below the wanted word; high where there is none."""
    cdef u32 middle
    while high - low > 8:
        middle = (low + high) >> 1
        if word[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    while low < high and word[low] < wanted:
        low += 1
    return low

cdef inline bint differs(const Search *s, int place, u32 word) noexcept nogil:
    cdef int k
    for k in range(s.at[place], s.at[place + 1]):
        if s.words[s.pool[k]] == word:
            return False
    return True

cdef inline bint followed(Search *s, int level) noexcept nogil:
    """Count a visit; whether to go on from it: of a sample every so-manieth."""
    s.visits[level] += 1
    s.total += 1
    if s.rate == NULL:
        return True
    s.due[level] += s.rate[level]
    if s.due[level] < 1:
        return False
    s.due[level] -= 1
    return True

cdef void emit(Search *s) noexcept nogil:
    cdef size_t n = <size_t>s.cells * s.layers, size
    cdef u32 *more
    s.found += 1
    if s.keep:
        if s.used + n > s.size:
            size = max(2 * s.size, s.used + 64 * n)
            more = <u32 *>realloc(s.out, 4 * size) if s.used + n <= s.most else NULL
            if more == NULL:
                s.ended = FULL
                return
            s.out, s.size = more, size
        memcpy(s.out + s.used, s.words, 4 * n)
        s.used += n
    if s.found == s.enough:
        s.ended = ENOUGH

cdef void accept(Search *s, int layer, int cell, u32 word, u32 face, u32 column) noexcept nogil:
    cdef int place = layer * s.cells + cell
    if not differs(s, place, word):
        return
    s.words[place] = word
    s.column[place + s.cells] = column
    if not followed(s, place - s.cells):
        return
    if cell + 1 < s.cells:
        further(s, layer, cell + 1, face)
    elif layer + 1 < s.layers:
        further(s, layer + 1, 0, 0)
    else:
        emit(s)

cdef void further(Search *s, int layer, int cell, u32 face) noexcept nogil:
    """Fill a cell of the third layer or a later one: a word that continues the face and the column."""
    cdef u32 column = s.column[layer * s.cells + cell], i, j
    cdef u32 a = s.first[face], a_end = s.first[face + 1], b = s.next_first[column], b_end = s.next_first[column + 1]
    if s.stop[0]:
        s.ended = STOPPED
    elif face == 0:
        for j in range(b, b_end):
            i = s.start[s.next_word[j]]
            if i:
                accept(s, layer, cell, s.next_word[j], i, j)
            if s.ended:
                return
    elif a_end - a <= b_end - b:
        for i in range(a, a_end):
            j = lookup(s.next_word, b, b_end, s.word[i])
            if j < b_end and s.next_word[j] == s.word[i]:
                accept(s, layer, cell, s.word[i], i, j)
            if s.ended:
                return
    else:
        for j in range(b, b_end):
            i = lookup(s.word, a, a_end, s.next_word[j])
            if i < a_end and s.word[i] == s.next_word[j]:
                accept(s, layer, cell, s.next_word[j], i, j)
            if s.ended:
                return

cdef void pair(Search *s, u32 p, u32 q, int cell) noexcept nogil:
    """The second of two words one above the other; p, q: the nodes of their faces."""
    cdef int k
    cdef u32 node
    cdef u32 word = s.word[q]
    if not differs(s, s.cells + cell, word):
        return
    s.words[s.cells + cell] = word
    s.looked_up = min(s.looked_up, cell)
    if not followed(s, cell):
        return
    if cell + 1 < s.cells:
        pairs(s, p, q, cell + 1)
    elif s.layers == 2:
        emit(s)
    else:
        for k in range(s.looked_up, s.cells):
            node = s.next_start[s.words[k]]
            s.column[2 * s.cells + k] = lookup(
                s.next_word, s.next_first[node], s.next_first[node + 1], s.words[s.cells + k])
        s.looked_up = s.cells
        further(s, 2, 0, 0)

cdef void pairs(Search *s, u32 p, u32 q, int cell) noexcept nogil:
    """Go on with the faces of the nodes p and q, one above the other, by a cell each."""
    cdef u32 begin = s.first[q], end = s.first[q + 1], i, j, k, word, node, low = 0
    cdef const u64 *bits
    if s.stop[0]:
        s.ended = STOPPED
        return
    if s.lower[cell] >= 0:
        low = s.words[s.lower[cell]] + 1
    for i in range(s.first[p], s.first[p + 1]):
        word = s.word[i]
        node = s.next_start[word]
        if node == 0 or word < low or not differs(s, cell, word):
            continue
        s.words[cell] = word
        s.looked_up = min(s.looked_up, cell)
        if (s.next_first[node + 1] - s.next_first[node]) * FEW < end - begin:
            j = begin
            for k in range(s.next_first[node], s.next_first[node + 1]):
                j = lookup(s.word, j, end, s.next_word[k])
                if j == end:
                    break
                if s.word[j] == s.next_word[k]:
                    pair(s, i, j, cell)
                if s.ended:
                    return
        else:
            bits = s.bits + (node - 1) * s.width
            for j in range(begin, end):
                if (bits[s.word[j] >> 6] >> (s.word[j] & 63)) & 1:
                    pair(s, i, j, cell)
                    if s.ended:
                        return

def stack(
    Trie faces, Trie columns, Tables tables, const u32[:, ::1] starts, Py_ssize_t first, Py_ssize_t last,
    const uint8_t[::1] stop, *, bint keep=True, u64 enough=0, u64 room=1 << 20, u64 visits=1 << 62, rates=None, due=None
):
    """Stack faces from the starts [first, last) on.

    Returns the boxes (uint32, a row each, layer by layer; none unless `keep`), how many fitted per level (uint64), how
    many boxes there are, and how far it came: no start is begun once there are `room` boxes or more than so many
    `visits`; what a start had found when `stop[0]` was set does not count. With `enough` it ends at that many boxes.
    `rates`, `due` (float64, per level): follow this share of what fits, the first when `due` has come to 1.
    Raises MemoryError where a start finds far more boxes than there is room for.
    """
    cdef Search s
    cdef Py_ssize_t n = tables.cells * tables.layers, levels = n - tables.cells, k, t
    if faces.cells != tables.cells or columns.cells != tables.layers or faces.words != columns.words:
        raise ValueError("faces, columns and tables do not fit together")
    if not 0 <= first <= last <= starts.shape[0] or starts.shape[1] != 2 or len(stop) != 1:
        raise ValueError("there are no such starts")
    if first < last and (
        len(columns.bits) < 2 or not 1 <= np.min(starts[first:last]) <= np.max(starts[first:last]) <= faces.roots
    ):
        raise ValueError("a start is no pair of first words")
    cdef u64[::1] counted = np.zeros(levels, np.uint64), before = np.zeros(levels, np.uint64)
    cdef double[::1] shares = np.ones(levels) if rates is None else np.array(rates, np.float64)
    cdef double[::1] owed = np.zeros(levels) if due is None else np.array(due, np.float64)
    cdef u32[::1] words = np.zeros(n, np.uint32), column = np.zeros(n + tables.cells, np.uint32)
    if shares.shape[0] != levels or owed.shape[0] != levels:
        raise ValueError("there is a rate per level")
    s.first, s.word, s.start = &faces._first[0], &faces.word[0], &faces.start[0]
    s.next_first, s.next_word, s.next_start = &columns._first[0], &columns.word[0], &columns.start[0]
    s.bits, s.width, s.cells, s.layers = &columns.bits[0], columns.width, tables.cells, tables.layers
    s.lower, s.at, s.pool = &tables.lower[0], &tables.at[0], &tables.pool[0]
    s.words, s.column, s.visits, s.due = &words[0], &column[0], &counted[0], &owed[0]
    s.rate = NULL
    if rates is not None:
        s.rate = &shares[0]
    s.out = NULL
    s.used, s.size, s.most = 0, 0, <size_t>room * SPARE * n
    s.keep, s.enough, s.found, s.total, s.ended, s.stop = keep, enough, 0, 0, 0, &stop[0]
    cdef size_t used_before = 0
    cdef u64 found_before = 0
    cdef Py_ssize_t reached = first
    try:
        with nogil:
            for k in range(first, last):
                if (s.keep and s.found >= room) or s.total > visits:
                    break
                memcpy(&before[0], s.visits, 8 * levels)
                used_before, found_before = s.used, s.found
                s.looked_up = 0
                s.words[0] = s.word[starts[k, 0]]
                pair(&s, starts[k, 0], starts[k, 1], 0)
                if s.ended == STOPPED:
                    memcpy(s.visits, &before[0], 8 * levels)
                    s.used, s.found = used_before, found_before
                if s.ended:
                    break
                reached = k + 1
        if s.ended == FULL:
            raise MemoryError("more boxes than there is room for")
        boxes = np.empty(s.used, np.uint32)
        if s.used:
            memcpy(<void *><size_t>boxes.ctypes.data, s.out, 4 * s.used)
        return boxes.reshape(-1, n), np.asarray(counted), int(s.found), reached
    finally:
        free(s.out)
