# Which checks are compiled in is set in hatch_build.py, not here: what is set here holds for the builds of tests too.
# distutils: language = c++
"""Rows of numbers, sorted and packed: how runs of orthos are stored (runs.py); and sorted numbers with others put
between them: how phrases are numbered (order.py). No function holds the GIL while it works.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import numpy as np

cdef extern from *:
    """
    #include <cstdint>
    static inline int length(uint64_t bits) { return bits ? 64 - __builtin_clzll(bits) : 0; }
    """
    int length(uint64_t) noexcept nogil

ctypedef uint32_t u32
ctypedef uint64_t u64

cdef enum:
    DIGIT = 11         # bits by which numbers are sorted in one go
    CACHED = 512       # rows that are taken apart or put together while they are in the cache

def ascending(const u32[:, ::1] rows):
    """The rows in ascending order: their columns, put together to numbers, are sorted by digits, the last ones first."""
    cdef Py_ssize_t count = rows.shape[0], width = rows.shape[1], i, column, first, last = width, start, end
    found, keys, spare = np.empty((count, width), np.uint32), np.empty(count, np.uint64), np.empty(count, np.uint64)
    cdef u32[:, ::1] result = found
    cdef u64[::1] one = keys, two = spare
    cdef int32_t[::1] bits = np.zeros(width, np.int32)
    cdef u32[::1] least = np.zeros(width, np.uint32)
    if not count * width:
        return found
    cdef u32[::1] most = np.zeros(width, np.uint32)
    cdef const u32 *row
    cdef u32 *to
    cdef u64 *key = &one[0]
    cdef u64 *other = &two[0]
    cdef u64 mask
    cdef u32 low, high
    cdef int place, used, shift, digits, total = 0
    with nogil:
        for column in range(width):
            least[column] = most[column] = rows[0, column]
        end = 0
        while end < count:  # block by block and column by column, while the rows are in the cache; so below
            start, end = end, min(count, end + CACHED)
            for column in range(width):
                row, low, high = &rows[0, column], least[column], most[column]
                for i in range(start, end):
                    low, high = min(low, row[i * width]), max(high, row[i * width])
                least[column], most[column] = low, high
        for column in range(width):
            bits[column] = length(most[column] - least[column])
            total += bits[column]
        place = 0 if total <= 64 else length(<u64>count)  # where a row does not fit into a number, its place goes along
        mask = ((<u64>1) << place) - 1
        for i in range(count):
            other[i] = i
        while last:
            used, first = place, last
            while first and used + bits[first - 1] <= 64:
                first -= 1
                used += bits[first]
            end = 0
            while end < count:
                start, end = end, min(count, end + CACHED)
                for i in range(start, end):
                    key[i] = 0
                for column in range(first, last):
                    row, low, shift = &rows[0, column], least[column], bits[column]
                    if place:
                        for i in range(start, end):
                            key[i] = key[i] << shift | (row[(other[i] & mask) * width] - low)
                    else:
                        for i in range(start, end):
                            key[i] = key[i] << shift | (row[i * width] - low)
                if place:
                    for i in range(start, end):
                        key[i] = key[i] << place | (other[i] & mask)
            shift, digits = place, (used - place + DIGIT - 1) // DIGIT
            while shift < used:
                by_digit(key, other, count, shift, (used - shift + digits - 1) // digits)
                key, other = other, key
                shift += (used - shift + digits - 1) // digits
                digits -= 1
            key, other = other, key
            last = first
        end = 0
        while end < count:
            start, end = end, min(count, end + CACHED)
            for column in range(width - 1, -1, -1):
                row, to, low, shift = &rows[0, column], &result[0, column], least[column], bits[column]
                if place:
                    for i in range(start, end):
                        to[i * width] = row[(other[i] & mask) * width]
                else:
                    for i in range(start, end):
                        to[i * width] = <u32>(other[i] & (((<u64>1) << shift) - 1)) + low
                        other[i] >>= shift
    return found

def ordered(const u32[:, ::1] rows):
    """The places of the rows in ascending order (uint32)."""
    return ascending(np.column_stack([rows, np.arange(rows.shape[0], dtype=np.uint32)]))[:, rows.shape[1]]

cdef void by_digit(const u64 *keys, u64 *to, Py_ssize_t count, int shift, int bits) noexcept nogil:
    """Take numbers over in the order of one digit; those where it is equal stay in their order."""
    cdef u32 starts[1 << DIGIT]
    cdef u32 digit, before = 0, number
    cdef Py_ssize_t i
    for i in range(1 << bits):
        starts[i] = 0
    for i in range(count):
        starts[(keys[i] >> shift) & ((1 << bits) - 1)] += 1
    for i in range(1 << bits):
        number = starts[i]
        starts[i] = before
        before += number
    for i in range(count):
        digit = (keys[i] >> shift) & ((1 << bits) - 1)
        to[starts[digit]] = keys[i]
        starts[digit] += 1

cdef inline uint8_t *put(uint8_t *to, u64 number) noexcept nogil:
    while number >= 128:
        to[0] = <uint8_t>(number | 128)
        number >>= 7
        to += 1
    to[0] = <uint8_t>number
    return to + 1

cdef inline const uint8_t *take(const uint8_t *at, const uint8_t *end, u64 *number) noexcept nogil:
    """Read a number; NULL where the bytes end before it does or it has more than 63 bits."""
    cdef int shift = 0
    number[0] = 0
    while at < end and shift < 63:
        number[0] |= <u64>(at[0] & 127) << shift
        if at[0] < 128:
            return at + 1
        shift += 7
        at += 1
    return NULL

def encoded(const u32[:, ::1] rows, u32 base):
    """Ascending rows of numbers >= base as bytes: of each row which column differs first and by how much, then the rest.

    Raises ValueError where they are not ascending.
    """
    cdef Py_ssize_t count = rows.shape[0], width = rows.shape[1], b, i, j
    cdef uint8_t *room = <uint8_t *>malloc(10 * (count * width + 1))
    cdef uint8_t *at = room
    cdef bint wrong = False
    if room == NULL:
        raise MemoryError
    try:
        with nogil:
            for b in range(count):
                j = 0
                if b:
                    while j < width and rows[b, j] == rows[b - 1, j]:
                        j += 1
                if j == width or rows[b, j] < (rows[b - 1, j] if b else base):
                    wrong = True
                    break
                at = put(at, <u64>(rows[b, j] - (rows[b - 1, j] + 1 if b else base)) * width + j)
                for i in range(j + 1, width):
                    if rows[b, i] < base:
                        wrong = True
                    at = put(at, <u64>rows[b, i] - base)
        if wrong:
            raise ValueError("the rows are not ascending")
        return room[:at - room]
    finally:
        free(room)

def decoded(const uint8_t[::1] data, Py_ssize_t count, Py_ssize_t width, u32 base, u32 limit):
    """The inverse of `encoded`, all numbers < limit. Raises ValueError where the bytes are not such rows."""
    rows = np.empty((count, width), np.uint32)
    cdef u32[:, ::1] view = rows
    cdef const uint8_t *at = &data[0] if data.shape[0] else NULL
    cdef const uint8_t *end = at + data.shape[0]
    cdef Py_ssize_t b, i, j
    cdef u64 number = 0
    cdef bint wrong = count > 0 and at == NULL
    with nogil:
        for b in range(count):
            if wrong:
                break
            at = take(at, end, &number)
            if at == NULL:
                wrong = True
                break
            j = number % width
            number = number // width + (<u64>view[b - 1, j] + 1 if b else base)
            for i in range(j):
                view[b, i] = view[b - 1, i] if b else base
            wrong |= number >= limit or (not b and j > 0)
            view[b, j] = <u32>number
            for i in range(j + 1, width):
                at = take(at, end, &number)
                if at == NULL:
                    wrong = True
                    break
                number += base
                wrong |= number >= limit
                view[b, i] = <u32>number
    if wrong or at != end:
        raise ValueError("the bytes are no rows of numbers")
    return rows

# ── numbers put between others ──────────────────────────────────────────────────────────────────

def moved(Py_ssize_t count, const u32[::1] before):
    """The new place of each of `count` numbers when others are put between them.

    `before`: per new one, ascending, the old place before which it is put. Raises ValueError where that is none.
    """
    cdef Py_ssize_t i = 0, end, k
    _check(count, before)
    places = np.empty(count, np.uint32)
    cdef u32[::1] to = places
    with nogil:
        for k in range(before.shape[0] + 1):
            end = before[k] if k < before.shape[0] else count
            while i < end:
                to[i] = <u32>(i + k)
                i += 1
    return places

def merged(const u32[::1] old, const u32[::1] before, const u32[::1] new, const u32[::1] table=None):
    """`old` with `new` put between, as `moved` does; with a `table` its entries for the old ones stand in their place.

    Raises ValueError where that does not fit.
    """
    cdef Py_ssize_t count = old.shape[0], number = new.shape[0], i = 0, end, k, size = 0 if table is None else table.shape[0]
    _check(count, before)
    if before.shape[0] != number:
        raise ValueError("the new ones do not fit the places")
    both = np.empty(count + number, np.uint32)
    cdef u32[::1] to = both
    cdef bint fits = table is None or size > 0 or count == 0
    with nogil:
        for k in range(number + 1):
            end = before[k] if k < number else count
            if size:
                while i < end:
                    fits &= old[i] < size
                    to[i + k] = table[min(<Py_ssize_t>old[i], size - 1)]
                    i += 1
            elif i < end:
                memcpy(&to[i + k], &old[i], 4 * (end - i))
                i = end
            if k < number:
                to[i + k] = new[k]
    if not fits:
        raise ValueError("the table has no entry for some of them")
    return both

def _check(Py_ssize_t count, const u32[::1] before):
    cdef Py_ssize_t k
    cdef bint fits = not before.shape[0] or before[before.shape[0] - 1] <= count
    for k in range(1, before.shape[0]):
        fits &= before[k - 1] <= before[k]
    if not fits:
        raise ValueError("the places are not in their order")

def stirred(const u32[::1] parent, const u32[::1] word, u32 words, const u64[::1] of_words, u64 seed):
    """The hashes of phrases (uint64): the seed, stirred with the hash of each word as tree.py's `stir` does.

    `parent` and `word` as Order has them, with so many `words` first; `of_words`: a hash per word.
    """
    cdef Py_ssize_t size = parent.shape[0], p
    cdef u64 state
    cdef bint fits = word.shape[0] == size and of_words.shape[0] == words and words <= size
    for p in range(size if fits else 0):
        fits &= word[p] < words and (p < words or parent[p] < p)
    if not fits:
        raise ValueError("these are no phrases in their order")
    found = np.empty(size, np.uint64)
    cdef u64[::1] hashes = found
    with nogil:
        for p in range(size):
            state = (seed if p < words else hashes[parent[p]]) ^ of_words[word[p]]
            state = (state ^ (state >> 33)) * <u64>0xFF51AFD7ED558CCD
            state = (state ^ (state >> 29)) * <u64>0xC4CEB9FE1A85EC53
            hashes[p] = state ^ (state >> 32)
    return found

def add_lengths(const int32_t[::1] prefix, int32_t began, uint16_t[::1] length):
    """Complete the lengths of phrases: where `length` is 0, that of the prefix and one. The first phrase has the number `began`.

    Raises ValueError where a phrase comes before its prefix.
    """
    cdef Py_ssize_t i, shorter
    cdef bint fits = prefix.shape[0] == length.shape[0]
    with nogil:
        for i in range(prefix.shape[0] if fits else 0):
            if not length[i]:
                shorter = <Py_ssize_t>prefix[i] - began
                if shorter < 0 or shorter >= i or length[shorter] == 0xFFFF:
                    fits = False
                    break
                length[i] = length[shorter] + 1
    if not fits:
        raise ValueError("a phrase comes before its prefix")

def firsts(const u32[::1] parent, u32 words):
    """Where the children of each phrase begin, and behind the last where they end; `parent` ascends behind the words.

    Raises ValueError where it does not.
    """
    cdef u32 size = <u32>parent.shape[0], i
    cdef bint fits = words <= size and (words == size or parent[size - 1] < size)
    for i in range(words + 1, size):
        fits &= parent[i - 1] <= parent[i]
    if not fits:
        raise ValueError("the phrases are not in their order")
    found = np.full(<size_t>size + 1, words, np.uint32)
    cdef u32[::1] first = found
    with nogil:
        for i in range(words, size):
            first[parent[i] + 1] = i + 1
        for i in range(size):  # of those without children too
            first[i + 1] = max(first[i], first[i + 1])
    return found

def firsts_merged(const u32[::1] first, const u32[::1] before, const u32[::1] parent, u32 words):
    """The same with new phrases put between, as `moved` does; `first`: without them.

    `parent`: of each, where it is now; the first ones are so many new `words`, whose parents are ignored.
    """
    cdef u32 number = <u32>parent.shape[0], i, k, end
    if number != before.shape[0] or number < words or (number and before[number - 1] >= first.shape[0]):
        raise ValueError("the new ones do not fit the places")
    found = merged(first, before, np.asarray(first)[before])
    cdef u32[::1] to = found
    cdef u32 size = <u32>to.shape[0]
    i = 0
    with nogil:
        for k in range(words, number + 1):  # k new phrases come before the children of the following ones
            end = min(parent[k] + 1, size) if k < number else size
            while i < end:
                to[i] += k
                i += 1
    return found
