# Which checks are compiled in is set in hatch_build.py, not here: what is set here holds for the builds of tests too.
# distutils: language = c++
"""The compiled search: lengthening boxes, and walking their lines.

Nothing here knows a shape: plans.py describes in tables how a box is lengthened and which lines it has. Arrays are
uint32 unless it says otherwise; a box is a row of a matrix, given as the phrase ids of its lines along its last axis.
No function holds the GIL while it works.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

import numpy as np

cdef extern from *:
    """
    #include <cstdint>
    static inline int ones(uint64_t bits) { return __builtin_popcountll(bits); }
    static inline int lowest(uint64_t bits) { return __builtin_ctzll(bits); }
    """
    int ones(uint64_t) noexcept nogil
    int lowest(uint64_t) noexcept nogil

ctypedef uint32_t u32
ctypedef uint64_t u64

cdef enum:
    BLOCK = 64         # boxes that are begun together
    HITS = 64          # words that are tried together
    MANY = 16          # ways to fill the cells that some boxes have in common, from which on they are not kept
    DENSE = 24         # from so many continuations on a phrase has a row of bits; below, its list is searched
    ALL_DENSE = 1 << 25  # bytes of bits up to which every word has a row

# ── the phrase tree ─────────────────────────────────────────────────────────────────────────────

cdef struct Phrases:
    const u32 *first   # children of p: first[p] .. first[p + 1] - 1, sorted by word
    const u32 *word
    const u32 *parent
    const int32_t *row  # per phrase: which row of bits it has; -1 for none
    const u64 *bits     # a row: one bit per word, whether it continues the phrase …
    const u32 *rank     # … and per 64 bits how many are set before them
    size_t width        # of a row, in 64 bits

cdef inline const u64 *bits_of(const Phrases *tree, u32 phrase) noexcept nogil:
    cdef int32_t row = tree.row[phrase]
    return tree.bits + <size_t>row * tree.width if row >= 0 else NULL

cdef inline u32 child(const Phrases *tree, u32 phrase, u32 word) noexcept nogil:
    """The phrase that continues a phrase by a word; 0 where there is none (phrase 0 is a word: it continues nothing)."""
    cdef u32 low = tree.first[phrase], high = tree.first[phrase + 1], middle
    cdef size_t at
    cdef u64 bits
    if tree.row[phrase] >= 0:
        at = <size_t>tree.row[phrase] * tree.width + (word >> 6)
        bits = tree.bits[at]
        if not (bits >> (word & 63)) & 1:
            return 0
        return low + tree.rank[at] + ones(bits & (((<u64>1) << (word & 63)) - 1))
    while high - low > 4:
        middle = (low + high) >> 1
        if tree.word[middle] <= word:
            low = middle
        else:
            high = middle
    while low < high:
        if tree.word[low] == word:
            return low
        low += 1
    return 0

cdef class Index:
    """A phrase tree as the kernel reads it: `first` (phrases + 1), `word`, `parent` (phrases); see tree.py."""
    cdef Phrases tree
    cdef readonly u32 words, phrases
    cdef object _kept

    def __init__(self, u32 words, const u32[::1] first, const u32[::1] word, const u32[::1] parent):
        if first.shape[0] != word.shape[0] + 1 or word.shape[0] != parent.shape[0] or word.shape[0] < words:
            raise ValueError("first, word and parent do not fit together")
        cdef u32 phrases = <u32>word.shape[0], p, i, before
        cdef int32_t r, rows = 0
        cdef size_t width = (words + 63) // 64, at, q
        self.words, self.phrases = words, phrases
        cdef u32 all_dense = words if words * width * 8 <= ALL_DENSE else 0
        cdef int32_t[::1] number = np.full(max(phrases, 1), -1, np.int32)
        cdef u32[::1] dense = np.empty(phrases + 1, np.uint32)
        with nogil:
            for p in range(phrases):
                if p < all_dense or first[p + 1] - first[p] >= DENSE:
                    number[p], dense[rows] = rows, p
                    rows += 1
        cdef u64[::1] bits = np.zeros(rows * width + 1, np.uint64)
        cdef u32[::1] rank = np.zeros(rows * width + 1, np.uint32)
        with nogil:
            for r in range(rows):
                p, at = dense[r], <size_t>r * width
                for i in range(first[p], first[p + 1]):
                    bits[at + (word[i] >> 6)] |= (<u64>1) << (word[i] & 63)
                before = 0
                for q in range(at, at + width):
                    rank[q] = before
                    before += ones(bits[q])
        self._kept = (first, word, parent, number, bits, rank)
        self.tree.first = &first[0]
        self.tree.word = &word[0] if phrases else NULL
        self.tree.parent = &parent[0] if phrases else NULL
        self.tree.row, self.tree.bits, self.tree.rank, self.tree.width = &number[0], &bits[0], &rank[0], width

    @property
    def bytes(self):
        """What the rows of bits take; the other arrays are the caller's."""
        return 12 * len(self._kept[4]) + 4 * len(self._kept[3])

    cdef int check(self, const u32[:, ::1] boxes) except -1:
        """Raise where an id is none of this tree: from here on nothing is checked."""
        cdef Py_ssize_t i, count = boxes.shape[0] * boxes.shape[1]
        cdef const u32 *at = &boxes[0, 0] if count else NULL
        cdef u32 largest = 0
        for i in range(count):
            largest = max(largest, at[i])
        if count and largest >= self.phrases:
            raise ValueError(f"{largest} is no phrase: there are {self.phrases}")
        return 0

def places(Index index, const u32[::1] phrases, const u32[::1] words):
    """Elementwise: the id of the child of a phrase by a word; where there is none, of the next child (uint32)."""
    if phrases.shape[0] != words.shape[0]:
        raise ValueError("phrases and words do not fit together")
    index.check(np.asarray(phrases).reshape(-1, 1))
    found = np.empty(phrases.shape[0], np.uint32)
    cdef u32[::1] view = found
    cdef const Phrases *tree = &index.tree
    cdef Py_ssize_t i
    cdef u32 low, high, middle
    cdef size_t at
    with nogil:
        for i in range(phrases.shape[0]):
            low, high = tree.first[phrases[i]], tree.first[phrases[i] + 1]
            if words[i] < index.words and tree.row[phrases[i]] >= 0:
                at = <size_t>tree.row[phrases[i]] * tree.width + (words[i] >> 6)
                low += tree.rank[at] + ones(tree.bits[at] & (((<u64>1) << (words[i] & 63)) - 1))
                high = low
            while low < high:
                middle = (low + high) >> 1
                if tree.word[middle] < words[i]:
                    low = middle + 1
                else:
                    high = middle
            view[i] = low
    return found

# ── lengthening boxes ───────────────────────────────────────────────────────────────────────────

cdef struct Step:       # one new cell, in one order of filling them; its lists lie one behind another in the pool
    int32_t cell        # which
    int32_t unit        # whether it is the unit cell of the lengthened axis, to be compared with its rivals
    int32_t at          # where its lists begin: …
    int32_t tests       # … filled new cells beside it in the slab: number * 2 + (whether it comes before)
    int32_t old         # … cells of the box in its shell
    int32_t new         # … filled new cells in its shell
    int32_t lines       # … lines in the slab whose first words are complete with it, five numbers each: place in the
                        #   pool, how many words, Ends, slot of the phrase without the last of them, slot of the phrase
    int32_t then        # what comes next: Then

cdef class Plan:
    """How boxes of one shape are lengthened along one axis: tables made by plans.py (see `Slab` there)."""
    cdef readonly int side, rows, new, thick, unit, fewest, slots, common, apart
    cdef readonly bint lead
    cdef int32_t[::1] pool, along, walk, rivals, order, pairs
    cdef int32_t[:, ::1] steps

    def __init__(self, *, side, rows, thick, lead, unit, along, walk, rivals, steps, pool, slots, order, common, apart):
        self.slots, self.common, self.apart = slots, common, len(apart)
        self.order, self.pairs = np.array(order, np.int32), np.array([*sum(apart, ()), 0], np.int32)
        self.side, self.rows, self.thick, self.lead, self.unit = side, rows, thick, lead, unit
        self.along, self.walk = np.array(along, np.int32), np.array(walk, np.int32)
        self.rivals, self.pool = np.array([*rivals, 0], np.int32), np.array([*pool, 0], np.int32)
        self.steps = np.array(steps, np.int32)
        self.new, self.fewest = len(along) // thick, len(rivals)
        if self.steps.shape[0] != (1 + (common > 0)) * self.new * self.new or self.steps.shape[1] * 4 != sizeof(Step) \
                or len(walk) != rows or len(order) != self.new:
            raise ValueError("the tables of a plan do not fit together")

cdef enum Ends:         # how a line within the slab takes up the cell
    AMID                # other words after it are there already
    LOOKED_UP           # as its last word; which phrase stands before it is to be looked up
    AT_HAND             # as its last word; a step before knows the phrase

cdef enum Then:
    NEXT                # the next step
    EMIT                # the child is whole
    KEEP                # what boxes have in common is filled

cdef enum Share:        # of a box that is taken up
    WHOLE
    COMMON              # all layers but the last along the last axis, and the new cells beside them
    LAST                # the last layer

cdef class Lengthen:
    """Lengthens boxes by a plan. `ahead`: the tree of the lines that go on, `across` and `behind`: of those in the slab,
    read forward and (pairs only) backward. Not for use by several threads at once.
    """
    cdef const Phrases *ahead
    cdef const Phrases *across
    cdef const Phrases *behind
    cdef Plan plan
    cdef Index source
    cdef object _kept
    cdef const Step *steps
    cdef const int32_t *pool
    cdef u32 *room        # all of what follows lies in it
    cdef u32 *cells       # of the box at hand
    cdef u32 *low
    cdef u32 *high
    cdef u32 *along
    cdef u32 *words       # of the new cells
    cdef u32 *lines       # of the child
    cdef u32 *slots       # phrases that lines within the slab begin with
    cdef u32 *ways        # per box of a block, MANY ways to fill what its family has in common: words, then lines
    cdef u64 *both        # per place: the rows of bits of its lines, and-ed
    cdef u32 *block       # BLOCK boxes by cell, then their lines, and where those go on
    cdef u32 least_unit
    cdef u32 *out
    cdef size_t used, size
    cdef u32 box
    cdef u32 *kept        # where ways are kept, …
    cdef int number       # … and how many are
    cdef u32 long_list    # so long that bits are quicker
    cdef bint failed, track

    def __cinit__(self, Index ahead, Index across, Index behind, Plan plan):
        cdef size_t new = plan.new, cells = plan.rows * plan.side, width = across.tree.width
        if max(ahead.words, across.words, behind.words) != min(ahead.words, across.words, behind.words):
            raise ValueError("the trees are of different vocabularies")
        self._kept = (ahead, across, behind, plan)
        self.plan, self.source = plan, ahead if plan.lead else across
        self.ahead, self.across, self.behind = &ahead.tree, &across.tree, &behind.tree
        self.steps, self.pool = <const Step *>&plan.steps[0, 0], &plan.pool[0]
        self.long_list = <u32>(width // 2 + 8)
        self.room = <u32 *>malloc(4 * (cells + 5 * new + plan.slots + BLOCK * (cells + 3 * new + 2 * MANY * plan.common)) + 4 * new)
        self.both = <u64 *>malloc(8 * (new * width + 1))
        self.size = 16384
        self.out = <u32 *>malloc(4 * self.size)
        if self.room == NULL or self.both == NULL or self.out == NULL:
            raise MemoryError
        self.cells = self.room
        self.low = self.cells + cells
        self.high = self.low + new
        self.along = self.high + new
        self.words = self.along + new
        self.lines = self.words + new
        self.slots = self.lines + new
        self.block = self.slots + plan.slots
        self.ways = self.block + BLOCK * (cells + 3 * new)

    def __dealloc__(self):
        free(self.room)
        free(self.both)
        free(self.out)

    def children(self, const u32[:, ::1] boxes, bint track=False):
        """The lengthened boxes, in the order of the boxes: a row per child, its lines along the lengthened axis.

        With `track` a column before them has the place of the child's box in `boxes`. `boxes` has a row per box: its lines along the last axis, ids of `ahead` where that
        axis is lengthened, else of `across`. Raises ValueError where they do not fit the plan or the tree.
        """
        if boxes.shape[1] != self.plan.rows:
            raise ValueError(f"boxes of {self.plan.rows} lines are wanted, these have {boxes.shape[1]}")
        self.source.check(boxes)
        self.used, self.failed, self.track = 0, False, track
        cdef size_t width = self.plan.new + track
        if boxes.shape[0]:
            with nogil:
                self.grow(&boxes[0, 0], boxes.shape[0])
        if self.failed:
            raise MemoryError
        found = np.empty((self.used // width, width), np.uint32)
        cdef u32[:, ::1] view = found
        if self.used:
            memcpy(&view[0, 0], self.out, 4 * self.used)
        return found

    cdef inline void emit(self) noexcept nogil:
        cdef u32 *more
        cdef int i, new = self.plan.new
        cdef u32 *to
        if self.used + new + 1 > self.size:
            more = <u32 *>realloc(self.out, 8 * self.size)
            if more == NULL:
                self.failed = True
                return
            self.out, self.size = more, 2 * self.size
        to = self.out + self.used
        if self.track:
            to[0] = self.box
            to += 1
        for i in range(new):
            to[i] = self.lines[i]
        self.used += new + self.track

    cdef inline void keep(self) noexcept nogil:
        """Keep a way to fill the common cells."""
        cdef int i, cell
        if self.number < MANY:
            for i in range(self.plan.common):
                cell = self.plan.order[i]
                self.kept[2 * i], self.kept[2 * i + 1] = self.words[cell], self.lines[cell]
            self.kept += 2 * self.plan.common
        self.number += 1

    cdef inline u32 followed(self, const int32_t *line, int length) noexcept nogil:
        """The phrase of the first words of a line within the slab; 0 where they are none."""
        cdef const int32_t *cells = self.pool + line[0]
        cdef u32 phrase = self.words[cells[0]]
        cdef int j
        for j in range(1, length):
            phrase = child(self.across, phrase, self.words[cells[j]])
            if not phrase:
                break
        return phrase

    cdef inline void accept(self, const Step *step, int place, u32 word, u32 line) noexcept nogil:
        """Put a word into the cell; go on with the next one, or the child is whole."""
        self.words[step.cell] = word
        self.lines[step.cell] = line
        if step.lines and not self.reads(step, word):
            return
        if step.then == NEXT:
            self.fill(place + 1)
        elif step.then == EMIT:
            self.emit()
        else:
            self.keep()

    cdef bint reads(self, const Step *step, u32 word) noexcept nogil:
        """Whether the lines within the slab, so far as they are filled, are phrases."""
        cdef u32 phrase
        cdef int i
        cdef const int32_t *line = self.pool + step.at + step.tests + step.old + step.new
        for i in range(step.lines):
            phrase = child(self.across, self.slots[line[3]], word) if line[2] != AMID else self.followed(line, line[1])
            if not phrase:
                return False
            self.slots[line[4]] = phrase
            line += 5
        return True

    cdef inline u32 differing(self, const Step *step, int i) noexcept nogil:
        """Word i of those that the cell must differ from."""
        cdef const int32_t *list = self.pool + step.at + step.tests
        return self.cells[list[i]] if i < step.old else self.words[list[i]]

    cdef inline const u64 *beside(self, int32_t test) noexcept nogil:
        """The row of bits of the words that fit beside a new cell that is filled; NULL where there is none."""
        return bits_of(self.across if test & 1 else self.behind, self.words[test >> 1])

    cdef inline bint fits(self, const Step *step, u32 word, int shell, int tested) noexcept nogil:
        """Whether a word differs from its shell, and makes pairs with its neighbours, from those numbers on."""
        cdef const int32_t *list = self.pool + step.at
        cdef const u64 *row
        cdef int i
        cdef bint good = True
        for i in range(shell, step.old + step.new):
            good &= self.differing(step, i) != word
        for i in range(tested, step.tests):
            if not good:
                break
            row = self.beside(list[i])
            if row != NULL:
                good = (row[word >> 6] >> (word & 63)) & 1
            else:
                good = child(self.across if list[i] & 1 else self.behind, self.words[list[i] >> 1], word) != 0
        return good

    cdef inline void fill(self, int place) noexcept nogil:
        """Every word for the next cell: it continues its line, makes pairs with its neighbours, differs from its shell."""
        cdef const Step *step = self.steps + place
        cdef u32 line = self.low[step.cell], word
        if step.lines or self.high[step.cell] - line != 1:
            self.fill_from_list(step, place)
            return
        word = self.ahead.word[line]  # three of five times there is but one
        if (not step.unit or word >= self.least_unit) and self.fits(step, word, 0, 0):
            self.accept(step, place, word, line)

    cdef void fill_from_list(self, const Step *step, int place) noexcept nogil:
        cdef const int32_t *list = self.pool + step.at
        cdef const u32 *word = self.ahead.word
        cdef int cell = step.cell, tests = step.tests, shell = step.old + step.new, i, found, hit
        cdef u32 begin = self.low[cell], end = self.high[cell], middle, w, at, line
        cdef bint proposed = False
        cdef u32 hits[HITS]
        if step.unit and self.least_unit:
            at = end
            while begin < at:
                middle = (begin + at) >> 1
                if word[middle] < self.least_unit:
                    begin = middle + 1
                else:
                    at = middle
        list += tests + shell
        for i in range(step.lines):  # the shortest list proposes
            if list[2] != AMID:
                if list[2] == LOOKED_UP:
                    self.slots[list[3]] = self.followed(list, list[1] - 1)
                line = self.slots[list[3]]
                if self.across.first[line + 1] - self.across.first[line] < end - begin:
                    proposed, begin, end = True, self.across.first[line], self.across.first[line + 1]
                    word = self.across.word
            list += 5
        list = self.pool + step.at
        if end - begin > self.long_list and tests and self.fill_by_bits(step, place, word[begin]):
            return
        cdef const u64 *first_row = self.beside(list[0]) if tests else NULL
        cdef const u64 *second_row = self.beside(list[1]) if tests > 1 else first_row
        cdef int tested = min(tests, 2) if first_row != NULL and second_row != NULL else 0
        cdef u32 first_shell = self.differing(step, 0) if shell else 0xFFFFFFFF
        while begin < end:
            found, middle = 0, min(end, begin + HITS)
            if tested:
                for at in range(begin, middle):  # most fail here: without a branch, as nobody can foretell which
                    w = word[at]
                    hits[found] = at
                    found += (first_row[w >> 6] & second_row[w >> 6]) >> (w & 63) & (w != first_shell)
            else:
                for at in range(begin, middle):
                    hits[found] = at
                    found += word[at] != first_shell
            begin = middle
            for hit in range(found):
                line = hits[hit]
                w = word[line]
                if proposed:
                    line = child(self.ahead, self.along[cell], w)
                    if not line:
                        continue
                if self.fits(step, w, 1, tested):
                    self.accept(step, place, w, line)
                    if self.number > MANY:
                        return

    cdef bint fill_by_bits(self, const Step *step, int place, u32 w) noexcept nogil:
        """The same where the list is long: and the rows of bits of all its conditions. False where one has no row."""
        cdef const int32_t *list = self.pool + step.at
        cdef size_t width = self.across.width, q, first = w >> 6
        cdef u64 *both = self.both + place * width
        cdef u32 line = self.along[step.cell]
        cdef const u64 *row = bits_of(self.ahead, line)
        cdef const u32 *rank
        cdef const u64 *other
        cdef u64 left
        cdef int i
        if row == NULL:
            return False
        rank = self.ahead.rank + (row - self.ahead.bits)
        for i in range(step.tests):
            other = self.beside(list[i])
            if other == NULL:
                return False
            for q in range(first, width):
                both[q] = (both[q] if i else row[q]) & other[q]
        list += step.tests + step.old + step.new
        for i in range(step.lines):
            other = bits_of(self.across, self.slots[list[5 * i + 3]]) if list[5 * i + 2] != AMID else NULL
            if other != NULL:
                for q in range(first, width):
                    both[q] &= other[q]
        both[first] &= (~<u64>0) << (w & 63)
        for i in range(step.old + step.new):
            w = self.differing(step, i)
            if w >> 6 >= first:
                both[w >> 6] &= ~((<u64>1) << (w & 63))
        for q in range(first, width):
            left = both[q]
            while left:
                i = lowest(left)
                left &= left - 1
                self.accept(step, place, <u32>(q * 64 + i),
                            self.ahead.first[line] + rank[q] + ones(row[q] & (((<u64>1) << i) - 1)))
                if self.number > MANY:
                    return True
        return True

    cdef void grow(self, const u32 *boxes, size_t count) noexcept nogil:
        cdef size_t start = 0
        while start < count and not self.failed:
            self.grow_block(boxes, start, <int>min(<size_t>BLOCK, count - start))
            start += BLOCK

    cdef void grow_block(self, const u32 *boxes, size_t start, int size) noexcept nogil:
        """Leave behind the boxes that cannot go on, fill the rest.

        Boxes that differ in their last layer only are a family: the new cells before that layer are common to them, so
        how to fill those is found once, for its first box.
        """
        cdef int common = self.plan.common, new = self.plan.new, rows = self.plan.rows, y, i, r, best, early = 0, way
        cdef u32 alive[BLOCK]
        cdef u32 family[BLOCK]
        cdef int ways[BLOCK]
        cdef u32 b, last = BLOCK
        cdef const u32 *parent = self.source.tree.parent
        cdef const u32 *kept
        cdef bint same
        cdef int first
        boxes += start * rows
        self.number = 0
        if not common:
            for y in range(size):
                alive[y] = y
            size = self.begin(boxes, alive, size, WHOLE)
        else:
            first = 0
            for y in range(size):
                same = y > 0
                for r in range(rows):
                    if not same:
                        break
                    same = parent[boxes[y * rows + r]] == parent[boxes[(y - 1) * rows + r]]
                family[y] = family[y - 1] if same else y
                ways[y] = 0
                alive[first] = y
                first += not same
            first = self.begin(boxes, alive, first, COMMON)
            for y in range(first):
                b = alive[y]
                best = self.load(b, COMMON)
                self.kept, self.number = self.ways + b * 2 * MANY * common, 0
                self.steps = <const Step *>&self.plan.steps[(new + best) * new, 0]
                self.fill(0)
                ways[b] = self.number
            self.number = 0
            first = 0
            for y in range(size):
                alive[first] = y
                first += ways[family[y]] > 0
            size = self.begin(boxes, alive, first, LAST)
        for y in range(size):
            b = alive[y]
            self.box = <u32>(start + b)
            if common and family[b] != last:
                last = family[b]
                early = self.load(last, COMMON)
            best = self.load(b, LAST if common else WHOLE)
            if common and ways[last] <= MANY:
                self.steps = <const Step *>&self.plan.steps[(new + best) * new, 0]
                kept = self.ways + last * 2 * MANY * common
                for way in range(ways[last]):
                    for i in range(common):
                        self.words[self.plan.order[i]], self.lines[self.plan.order[i]] = kept[2 * i], kept[2 * i + 1]
                    kept += 2 * common
                    same = False
                    for i in range(self.plan.apart):
                        same |= self.words[self.plan.pairs[2 * i]] == self.cells[self.plan.pairs[2 * i + 1]]
                    if not same:
                        self.fill(0)
            else:
                if common and self.high[early] - self.low[early] < self.high[best] - self.low[best]:
                    best = early
                self.steps = <const Step *>&self.plan.steps[best * new, 0]
                self.fill(0)
            if self.failed:
                return

    cdef int begin(self, const u32 *boxes, u32 *alive, int size, Share share) noexcept nogil:
        """Find the words of boxes and where the lines of their new cells go on; how many boxes can go on."""
        cdef int rows = self.plan.rows, side = self.plan.side, thick = self.plan.thick, unit = self.plan.unit
        cdef int from_cell = self.plan.common if share == LAST else 0
        cdef int to_cell = self.plan.common if share == COMMON else self.plan.new
        cdef int i, j, y, z, r, kept, step, steps
        cdef const int32_t *chain
        cdef const Phrases *source = &self.source.tree
        cdef u32 *cells = self.block
        cdef u32 *along = cells + rows * side * BLOCK
        cdef u32 line[BLOCK]
        cdef u32 b, phrase
        if self.plan.lead:
            for i in range(from_cell, to_cell):
                for y in range(size):
                    along[i * BLOCK + alive[y]] = boxes[alive[y] * rows + i]
                size = self.going_on(i, alive, size)
        for r in range(rows):
            for y in range(size):
                line[y] = boxes[alive[y] * rows + r]
            steps = self.plan.walk[r]
            if share == LAST:
                steps = min(steps, 1)
            for step in range(steps):
                z = r * side + side - 1 - step
                for y in range(size):
                    if step or share != COMMON:
                        cells[z * BLOCK + alive[y]] = source.word[line[y]]
                    line[y] = source.parent[line[y]]
        if unit >= 0 and share != LAST:
            for i in range(self.plan.fewest):
                kept = 0
                for y in range(size):
                    b = alive[y]
                    alive[kept] = b
                    kept += cells[unit * BLOCK + b] > cells[self.plan.rivals[i] * BLOCK + b]
                size = kept
        if not self.plan.lead:
            for j in range(from_cell, to_cell):
                i = self.plan.order[j]
                chain = &self.plan.along[i * thick]
                for y in range(size):
                    b = alive[y]
                    phrase = cells[chain[0] * BLOCK + b]
                    for z in range(1, thick):
                        phrase = child(self.ahead, phrase, cells[chain[z] * BLOCK + b])
                    along[i * BLOCK + b] = phrase
                size = self.going_on(i, alive, size)
        return size

    cdef inline int load(self, u32 b, Share share) noexcept nogil:
        """Take up a box of the block, or its share of it; which of the new cells has the shortest list."""
        cdef int rows = self.plan.rows, side = self.plan.side, new = self.plan.new, i, j, z, r, step, best = -1
        cdef u32 *cells = self.block + b
        cdef u32 *along = cells + rows * side * BLOCK
        cdef u32 least = 0xFFFFFFFF
        for j in range(self.plan.common if share == LAST else 0, self.plan.common if share == COMMON else new):
            i = self.plan.order[j]
            self.along[i], self.low[i] = along[i * BLOCK], along[(new + i) * BLOCK]
            self.high[i] = along[(2 * new + i) * BLOCK]
            if self.high[i] - self.low[i] < least:
                best, least = i, self.high[i] - self.low[i]
        for r in range(rows):
            for step in range(share == COMMON, min(self.plan.walk[r], 1) if share == LAST else self.plan.walk[r]):
                z = r * side + side - 1 - step
                self.cells[z] = cells[z * BLOCK]
        self.least_unit = 0
        if self.plan.unit < 0:
            for i in range(self.plan.fewest):
                self.least_unit = max(self.least_unit, self.cells[self.plan.rivals[i]] + 1)
        return best

    cdef inline int going_on(self, int i, u32 *alive, int size) noexcept nogil:
        """Note where line i of the boxes goes on; how many can."""
        cdef u32 *along = self.block + (self.plan.rows * self.plan.side + i) * BLOCK
        cdef u32 *low = along + self.plan.new * BLOCK
        cdef u32 *high = low + self.plan.new * BLOCK
        cdef int y, kept = 0
        cdef u32 b
        for y in range(size):
            b = alive[y]
            low[b], high[b] = self.ahead.first[along[b]], self.ahead.first[along[b] + 1]
            alive[kept] = b
            kept += low[b] != high[b]
        return kept

# ── the lines of boxes ──────────────────────────────────────────────────────────────────────────

def unpacked(Index index, const u32[:, ::1] boxes, int side):
    """The words of boxes whose lines along the last axis are given: word ids, a row per box, a column per cell."""
    index.check(boxes)
    cdef Py_ssize_t count = boxes.shape[0], rows = boxes.shape[1], b, r, z
    words = np.empty((count, rows * side), np.uint32)
    cdef u32[:, ::1] view = words
    cdef u32 line
    with nogil:
        for b in range(count):
            for r in range(rows):
                line = boxes[b, r]
                for z in range(side - 1, -1, -1):
                    view[b, r * side + z] = index.tree.word[line]
                    line = index.tree.parent[line]
    return words

def turned(Index index, Index other, const u32[::1] phrases):
    """The ids, in an index of the phrases read the other way round, of these ones (uint32). All are in it."""
    if index.words != other.words:
        raise ValueError("the trees are of different vocabularies")
    index.check(np.asarray(phrases).reshape(-1, 1))
    cdef Py_ssize_t i
    cdef u32 line, phrase
    found = np.empty(phrases.shape[0], np.uint32)
    cdef u32[::1] view = found
    with nogil:
        for i in range(phrases.shape[0]):
            line = phrases[i]
            phrase = index.tree.word[line]
            while line >= index.words:
                line = index.tree.parent[line]
                phrase = child(&other.tree, phrase, index.tree.word[line])
            view[i] = phrase
    return found

def walked(Index index, const u32[:, ::1] words, const int32_t[::1] lines, const int32_t[::1] lengths,
           const uint8_t[::1] due=None, const u32[::1] own=None, int place=-1):
    """Walk the lines of boxes given as words: (their phrases, a row per box, a column per line; a verdict per box).

    `lines`: cells, line after line; `lengths`: of the lines. The verdict (uint8) is 0 where a line is no phrase, else 1,
    or with `due` (uint8, per phrase) 2 where a line is due. `own`, with `due`: the box is found from that phrase, its
    line number `place`; 1 then where it has a lower due line, of equal ones an earlier one.
    """
    cdef Py_ssize_t count = words.shape[0], number = lengths.shape[0], b, i, j, at, total = 0
    cdef u32 phrase
    cdef bint lower
    for i in range(number):
        total += lengths[i]
    if total != lines.shape[0] or (total and np.max(lines) >= words.shape[1]) or \
            (own is not None and own.shape[0] != count) or \
            (due is not None and due.shape[0] != index.phrases):
        raise ValueError("the tables of the lines do not fit the boxes")
    if count and np.max(words) >= index.words:
        raise ValueError("no such word")
    phrases, verdicts = np.zeros((count, number), np.uint32), np.zeros(count, np.uint8)
    cdef u32[:, ::1] found = phrases
    cdef uint8_t[::1] verdict = verdicts
    with nogil:
        for b in range(count):
            at = 0
            lower = False
            verdict[b] = 1
            for i in range(number):
                phrase = words[b, lines[at]]
                for j in range(at + 1, at + lengths[i]):
                    phrase = child(&index.tree, phrase, words[b, lines[j]])
                    if not phrase:
                        break
                at += lengths[i]
                found[b, i] = phrase
                if not phrase and lengths[i] > 1:
                    verdict[b] = 0
                    break
                if due is not None and due[phrase]:
                    verdict[b] = 2
                    if own is not None:
                        lower |= phrase < own[b] or (phrase == own[b] and i < place)
            if lower and verdict[b]:
                verdict[b] = 1
    return phrases, verdicts

def marked(Index index, const u32[:, ::1] boxes, int side, const int32_t[::1] lines, const int32_t[::1] lengths):
    """Which phrases are lines of boxes whose lines along the last axis are given: uint8, per phrase.

    `lines`: the cells of their other lines, one after the other; `lengths`: of these. Raises ValueError where one is no
    phrase. Of boxes in their order most lines are those of the box before, and are not walked again.
    """
    cdef Py_ssize_t count = boxes.shape[0], rows = boxes.shape[1], number = lengths.shape[0], b, r, i, j, at
    index.check(boxes)
    if np.sum(lengths) != lines.shape[0] or (number and np.max(lines) >= rows * side):
        raise ValueError("the tables of the lines do not fit the boxes")
    flags = np.zeros(index.phrases, np.uint8)
    cdef uint8_t[::1] seen = flags
    cdef u32[::1] words = np.full(rows * side, 0xFFFFFFFF, np.uint32)
    cdef uint8_t[::1] changed = np.zeros(rows * side, np.uint8)
    cdef u32 phrase, word
    cdef bint wrong = False, fresh
    with nogil:
        for b in range(count):
            for r in range(rows):
                phrase = boxes[b, r]
                fresh = b == 0 or phrase != boxes[b - 1, r]
                if fresh:
                    seen[phrase] = 1
                for i in range((r + 1) * side - 1, r * side - 1, -1):
                    changed[i] = False
                    if fresh:
                        word = index.tree.word[phrase]
                        phrase = index.tree.parent[phrase]
                        changed[i] = words[i] != word
                        words[i] = word
            at = 0
            for i in range(number):
                fresh = False
                for j in range(at, at + lengths[i]):
                    fresh |= changed[lines[j]]
                if fresh:
                    phrase = words[lines[at]]
                    for j in range(at + 1, at + lengths[i]):
                        phrase = child(&index.tree, phrase, words[lines[j]])
                        if not phrase:
                            break
                    wrong |= not phrase
                    seen[phrase] = 1
                at += lengths[i]
    if wrong:
        raise ValueError("a line is no phrase")
    return flags
