"""The certificate of a search for the best: small enough to keep, and to be checked elsewhere.

It holds the orthos, and of each shape that had to be empty how it was searched: as layers of which face, and per part
of the starts how many stacks of 2, 3, … layers fitted. `check` needs no search: the orthos are orthos, every better
shape contains one that is said to be empty, the parts are whole, and nothing contradicts. Whether what is said to be
empty is empty only `repeat` tells, which searches it all again; a sample could not: one wrong part may decide.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from crochet_tasks.engine import geometry
from crochet_tasks.engine.best import shapes
from crochet_tasks.engine.best.faces import Faces, Flag, Outcome, Part, Way, ordered, other_way, way
from crochet_tasks.engine.best.plan import digest
from crochet_tasks.engine.best.shapes import NOTHING, Key, Scope, contains, key
from crochet_tasks.engine.best.state import MOST_LISTED, Record, State
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.tree import Tree

FORMAT = "crochet best 1"


@dataclass(frozen=True)
class Proof:
    """The search of a shape: `layers` of a `face`, of so many `faces` (in all orders of their axes) and from so many
    `starts`. `parts`: first start, last start (not included), and how many stacks of 2, 3, … layers fitted.
    """

    layers: int
    face: Sides
    faces: int
    starts: int
    parts: tuple[tuple[int, int, tuple[int, ...]], ...]

    @property
    def sides(self) -> Sides:
        return Way(self.layers, self.face).sides

    @property
    def found(self) -> int:
        return sum(layers[-1] for _, _, layers in self.parts)


@dataclass(frozen=True)
class Listing(Proof):
    """A shape that has orthos: the first ones in alphabetical order, each as its words in canonical form."""

    orthos: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Certificate:
    """`context`: the digest of all phrases of up to `scope.max_side` words. `longest`: words of the longest of them.
    `top`: how many orthos were wanted; None: all that share the largest volume and cells.
    """

    format: str
    context: str
    scope: Scope
    longest: int
    top: int | None
    empty: tuple[Proof, ...]
    listed: tuple[Listing, ...]


class Refused(Exception):
    """A certificate that does not hold; the message says why."""


def of(state: State, tree: Tree) -> Certificate:
    """The certificate of a search that is done: with the shapes that the proof needs."""
    assert state.done
    listed = {one.record.sides for one in state.listed}
    needed: set[Sides] = set()
    for sides in _to_cover(
        listed, state.scope, _least(listed, state.top, sum(one.record.found for one in state.listed))
    ):
        if sides[-1] <= state.longest:
            needed.add(next(record.sides for record in state.empty if contains(sides, record.sides)))
    return Certificate(
        FORMAT,
        state.context,
        state.scope,
        state.longest,
        state.top,
        tuple(Proof(*_plain(record)) for record in state.empty if record.sides in needed),
        tuple(
            Listing(*_plain(one.record), tuple(tuple(tree.words[word] for word in ortho) for ortho in one.orthos))
            for one in state.listed
        ),
    )


def _plain(record: Record) -> tuple[int, Sides, int, int, tuple[tuple[int, int, tuple[int, ...]], ...]]:
    return (*record.way, record.faces, record.starts, tuple((*part,) for part in record.parts))


def _least(listed: set[Sides], top: int | None, found: int) -> Key:
    """The least key that a shape may have and must be accounted for: all, where fewer were found than wanted."""
    if not listed or (top is not None and found < top):
        return NOTHING
    return min(map(key, listed))


def _to_cover(listed: set[Sides], scope: Scope, least: Key) -> Iterator[Sides]:
    """Shapes of which each must contain an empty one, so that no shape of the scope with such a key, or a larger one,
    has an ortho but those listed.

    A shape that is not listed grows, layer by layer, out of a minimal one; on its way there is a first that is not
    listed: either that minimal one, or one layer more than a listed shape. All of its own are empty if that is.
    """
    volume, cells = least
    for sides in shapes.better((volume, cells - 1), scope):
        if sides not in listed:
            yield sides
    for one in listed:
        for sides in shapes.larger(one, scope):
            if sides not in listed:
                yield sides


# ── without searching ───────────────────────────────────────────────────────────────────────────


def check(certificate: Certificate, tree: Tree) -> None:
    """Check all that can be checked without searching; raises Refused.

    `tree`: of the texts, with phrases of up to `scope.max_side` words at least.
    """
    scope = certificate.scope
    if certificate.format != FORMAT:
        raise Refused(f"it is of the format {certificate.format!r}, this program knows {FORMAT!r}")
    if certificate.context != digest(tree, scope.max_side):
        raise Refused("it is about other texts: their phrases are not those of these texts")
    if certificate.longest != min(scope.max_side, len(tree.levels) - 1):
        raise Refused(f"the longest phrase does not have {certificate.longest} words")
    proofs = (*certificate.empty, *certificate.listed)
    for proof in proofs:
        _check_counts(proof)
    _check_agreement(certificate)
    for proof in proofs:
        _check_proof(proof, tree)
    for listing in certificate.listed:
        _check_listing(listing, certificate, tree)
    listed = {one.sides for one in certificate.listed}
    found = sum(one.found for one in certificate.listed)
    for sides in _to_cover(listed, scope, _least(listed, certificate.top, found)):
        if sides[-1] <= certificate.longest and not any(contains(sides, one.sides) for one in certificate.empty):
            raise Refused(f"it does not show that there is no {shape_name(sides)}")


def _check_counts(proof: Proof) -> None:
    """First of all: what was found is the last count of each part."""
    for _, _, layers in proof.parts:
        if not layers or len(layers) != proof.layers - 1 or min(layers) < 0:
            raise Refused(f"{shape_name(proof.sides)}: a part does not have {proof.layers - 1} counts")


def _check_agreement(certificate: Certificate) -> None:
    """What is said of one shape must agree with what is said of others."""
    listed = {one.sides for one in certificate.listed}
    for one in certificate.empty:
        if one.found:
            raise Refused(f"{shape_name(one.sides)} is said to be empty, and its parts found {one.found}")
        for other in listed:
            if contains(other, one.sides):
                raise Refused(f"{shape_name(one.sides)} is said to be empty, and is a part of {shape_name(other)}")
    if len(listed) < len(certificate.listed):
        raise Refused("a shape is listed twice")
    if certificate.top is None and len(set(map(key, listed))) > 1:
        raise Refused("the shapes that are listed do not all have the same volume and cells")


def _check_proof(proof: Proof, tree: Tree) -> None:
    name = shape_name(proof.sides)
    if len(proof.sides) < 2 or min(proof.sides) < 2 or Way(proof.layers, proof.face) != way(proof.sides):
        raise Refused(f"{name} is not searched as {proof.layers} layers of {shape_name(proof.face)}")
    if len(proof.face) == 1:  # else the number of faces is known to a search only
        faces = Faces(tree)
        if proof.faces != faces.count(proof.face) or proof.starts != len(faces.search(way(proof.sides)).starts):
            raise Refused(f"{name}: the texts have another number of faces or starts")
    reached = 0
    for first, last, layers in proof.parts:
        if first != reached or last <= first:
            raise Refused(f"{name}: the part from start {reached} on is missing")
        if any(not fewer and more for fewer, more in itertools.pairwise(layers)):
            raise Refused(f"{name}: a part has stacks of more layers, and none of fewer")
        reached = last
    if reached != proof.starts:
        raise Refused(f"{name}: the part from start {reached} on is missing")


def _check_listing(listing: Listing, certificate: Certificate, tree: Tree) -> None:
    sides, name = listing.sides, shape_name(listing.sides)
    if not certificate.scope.allow(sides):
        raise Refused(f"{name} is not within the limits")
    for words in listing.orthos:
        if (problem := wrong(sides, words, tree)) is not None:
            raise Refused(f"{name} '{' '.join(words)}' is no ortho of these texts: {problem}")
    if list(listing.orthos) != sorted(set(listing.orthos)):
        raise Refused(f"the orthos of {name} are not in alphabetical order, each once")
    keep = MOST_LISTED if certificate.top is None else certificate.top
    if not listing.found or len(listing.orthos) != min(listing.found, keep):
        raise Refused(f"{name}: {listing.found} were found, and {len(listing.orthos)} are listed")


def wrong(sides: Sides, words: Sequence[str], tree: Tree) -> str | None:
    """Why words are no ortho in canonical form, by its definition; None where they are one."""
    if len(words) != len(geometry.coordinates(sides)):
        return "it has another number of words"
    for line in geometry.lines(sides):
        phrase = [words[cell] for cell in line]
        if tree.find(phrase) < 0:
            return f"'{' '.join(phrase)}' is no phrase"
    for shell in geometry.shells(sides):
        if len({words[cell] for cell in shell}) < len(shell):
            return "a word stands twice in a shell"
    if geometry.canonical(sides, (*words,)) != (sides, (*words,)):
        return "it is not in canonical form"
    return None


# ── by searching again ──────────────────────────────────────────────────────────────────────────


def repeat(
    certificate: Certificate,
    tree: Tree,
    threads: int,
    *,
    other: bool = False,
    note: Callable[[str], None] = lambda _: None,
    stop: Flag | None = None,
) -> None:
    """Search everything again; raises Refused. Part by part, or, if `other`, along another axis, with other faces.

    Raises MemoryError where faces are too many to be held, and InterruptedError once `stop` is set.
    """
    again = _Again(tree, threads, np.zeros(1, np.uint8) if stop is None else stop)
    with ThreadPoolExecutor(threads) as pool:
        for proof in (*certificate.empty, *certificate.listed):
            chosen = other_way(proof.sides) if other else way(proof.sides)
            note(f"searching {shape_name(proof.sides)} again, as {chosen.layers} layers of {shape_name(chosen.face)}")
            again.compare(pool, proof, chosen)


class _Again:
    def __init__(self, tree: Tree, threads: int, stop: Flag) -> None:
        self._faces, self._tree, self._threads, self._stop = Faces(tree), tree, threads, stop

    def compare(self, pool: Executor, proof: Proof, chosen: Way) -> None:
        name = shape_name(proof.sides)
        self._prepare(pool, chosen.face)
        search = self._faces.search(chosen)
        keep = len(proof.orthos) if isinstance(proof, Listing) else 1
        if chosen == Way(proof.layers, proof.face):
            if (proof.faces, proof.starts) != (self._faces.count(proof.face), len(search.starts)):
                raise Refused(f"{name}: the texts have another number of faces or starts")
            parts = [Part(chosen, first, last, keep=keep) for first, last, _ in proof.parts]
            counts = [layers for _, _, layers in proof.parts]
        else:
            parts, counts = search.parts(8 * self._threads, keep=keep), []
        found = 0
        orthos: list[tuple[int, ...]] = []
        done = pool.map(lambda part: self._run(search.run, part), parts)
        for part, outcomes, said in itertools.zip_longest(parts, done, counts):
            layers = [sum(each) for each in zip(*(one.layers for one in outcomes), strict=True)]
            found += layers[-1]
            if counts and layers != list(said):
                raise Refused(f"{name}: from start {part.first} on there are {layers} stacks, not {list(said)}")
            orthos = sorted(orthos + [(*box,) for one in outcomes for box in one.boxes.tolist()])[:keep]
        if found != proof.found:
            raise Refused(f"{name}: there are {found}, not {proof.found}")
        if isinstance(proof, Listing):
            words = tuple(tuple(self._tree.words[word] for word in ortho) for ortho in orthos)
            if words != proof.orthos:
                raise Refused(f"{name}: the first orthos are others")

    def _run(self, run: Callable[[Part, Flag], Outcome], part: Part) -> list[Outcome]:
        """The outcomes of a part, which may be too large for one."""
        outcomes = []
        while part.first < part.last:
            outcomes.append(run(part, self._stop))
            if self._stop[0]:
                raise InterruptedError
            part = part._replace(first=outcomes[-1].reached)
        return outcomes

    def _prepare(self, pool: Executor, face: Sides) -> None:
        """List a face, if it is not listed."""
        if self._faces.has(face):
            return
        chosen = way(face)
        self._prepare(pool, chosen.face)
        search = self._faces.search(chosen)
        rows = [np.empty((0, len(geometry.coordinates(face))), np.uint32)]
        for outcomes in pool.map(lambda part: self._run(search.run, part), search.parts(8 * self._threads)):
            rows += [one.boxes for one in outcomes]
            if not self._faces.fits(face, sum(map(len, rows))):
                raise MemoryError(f"there are too many {shape_name(face)} to search stacks of them")
        self._faces.put(face, ordered(np.concatenate(rows)))
