"""Certificates of a search for the best: sound ones hold, wrong ones are refused or found by searching again."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from crochet_tasks.engine import geometry
from crochet_tasks.engine.best import certificate as certificates
from crochet_tasks.engine.best.certificate import Certificate, Listing, Refused
from crochet_tasks.engine.best.faces import Faces
from crochet_tasks.engine.best.plan import begun
from crochet_tasks.engine.best.shapes import Scope, key
from crochet_tasks.engine.best.solve import Solver
from crochet_tasks.engine.tree import Tree
from tests.support.dense import corpus, solved, tree_of

SCOPE = Scope(4, 4, 64)


@pytest.fixture(scope="module")
def tree() -> Tree:
    return tree_of(corpus(1), 4)


@pytest.fixture(scope="module")
def sound(tree: Tree) -> Certificate:
    made = certificates.of(solved(tree, SCOPE), tree)
    assert made.empty
    assert made.listed
    return made


Change = Callable[[Certificate], Certificate]


def replaced(certificate: Certificate, kind: str, **values: object) -> Certificate:
    """The certificate with its first proof or listing changed."""
    first, *rest = getattr(certificate, kind)
    changed: Any = {kind: (dataclasses.replace(first, **values), *rest)}
    return dataclasses.replace(certificate, **changed)


def _swapped(one: Certificate) -> Certificate:
    words = one.listed[0].orthos[0]
    return replaced(one, "listed", orthos=((*words[:-2], words[-1], words[-2]), *one.listed[0].orthos[1:]))


def _wrong_by_reading() -> Iterator[tuple[str, str, Change]]:
    yield "another format", "format", lambda one: dataclasses.replace(one, format="crochet best 0")
    yield "other texts", "other texts", lambda one: dataclasses.replace(one, context="0" * 32)
    yield "longest", "longest", lambda one: dataclasses.replace(one, longest=3)
    yield "an ortho is none", "no ortho", _swapped
    yield "an ortho is missing", "are listed", lambda one: replaced(one, "listed", orthos=())
    yield "a shape is not shown to be empty", "does not show", lambda one: dataclasses.replace(one, empty=one.empty[1:])
    yield "nothing listed", "does not show", lambda one: dataclasses.replace(one, listed=())
    yield "a part is left out", "is missing", lambda one: replaced(one, "empty", parts=one.empty[0].parts[1:])
    yield "fewer starts", "faces or starts", lambda one: _of_phrases(one, starts=0, parts=())
    yield (
        "it found some",
        "its parts found",
        lambda one: replaced(one, "empty", parts=tuple((a, b, (*c[:-1], 1)) for a, b, c in _counted(one))),
    )
    yield (
        "an empty shape is a part of the best",
        "is a part of",
        lambda one: dataclasses.replace(
            one, empty=(*one.empty, dataclasses.replace(one.empty[0], layers=2, face=(2,), faces=0, starts=0, parts=()))
        ),
    )
    yield (
        "wider limits",
        "does not show",
        lambda one: dataclasses.replace(one, scope=Scope(9, 4, 4096), empty=one.empty[:1]),
    )
    yield "searched in no way", "not searched as", lambda one: replaced(one, "empty", layers=9, parts=())
    yield "listed twice", "listed twice", lambda one: dataclasses.replace(one, listed=one.listed * 2)
    yield "one of another volume", "do not all have the same", _with_another_one
    for kind in ("listed", "empty"):
        yield f"too few counts, {kind}", "does not have", functools.partial(_without_counts, kind)
    yield "a part is there twice", "is missing", lambda one: replaced(one, "empty", parts=one.empty[0].parts * 2)
    yield "out of the limits", "not within", lambda one: dataclasses.replace(one, scope=one.scope._replace(max_axes=2))
    yield "no order", "alphabetical", lambda one: replaced(one, "listed", orthos=one.listed[0].orthos[::-1])
    yield "an ortho twice", "alphabetical", lambda one: replaced(one, "listed", orthos=one.listed[0].orthos[:1] * 4)
    yield "too short", "another number of words", lambda one: replaced(one, "listed", orthos=(("a",),))
    yield "turned", "canonical", _turned


def _without_counts(kind: str, one: Certificate) -> Certificate:
    return replaced(one, kind, parts=((0, getattr(one, kind)[0].starts, ()),))


def _with_another_one(one: Certificate) -> Certificate:
    empty = next(each for each in one.empty if key(each.sides) != key(one.listed[0].sides))
    return dataclasses.replace(one, empty=(), listed=(*one.listed, Listing(*dataclasses.astuple(empty))))


def _turned(one: Certificate) -> Certificate:
    """Its first ortho with two equal axes exchanged."""
    listing = one.listed[0]
    cells = geometry.coordinates(listing.sides)
    equal = next(axis for axis in range(len(listing.sides) - 1) if listing.sides[axis] == listing.sides[axis + 1])
    words = dict(zip(cells, listing.orthos[0], strict=True))

    def exchanged(cell: tuple[int, ...]) -> tuple[int, ...]:
        return (*cell[:equal], cell[equal + 1], cell[equal], *cell[equal + 2 :])

    turned = tuple(words[exchanged(cell)] for cell in cells)
    return replaced(one, "listed", orthos=(turned, *listing.orthos[1:]))


def _counted(one: Certificate) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    proof = one.empty[0]
    return tuple((first, last, (1,) * len(layers)) for first, last, layers in proof.parts) or (
        (0, 1, (1,) * (proof.layers - 1)),
    )


def _of_phrases(one: Certificate, **values: object) -> Certificate:
    """The first proof whose faces are phrases, changed: their number is known without a search."""
    proofs = [dataclasses.replace(each, **values) if len(each.face) == 1 else each for each in one.empty]  # type: ignore[arg-type]
    assert proofs != list(one.empty)
    return dataclasses.replace(one, empty=(*proofs,))


@pytest.mark.parametrize(("reason", "change"), [pytest.param(r, c, id=name) for name, r, c in _wrong_by_reading()])
def test_wrong_certificates_are_refused(tree: Tree, sound: Certificate, reason: str, change: Change) -> None:
    """What can be seen without a search is refused without one, with the reason."""
    certificates.check(sound, tree)
    with pytest.raises(Refused, match=reason):
        certificates.check(change(sound), tree)


def test_stacks_that_have_no_beginning_are_refused() -> None:
    """A stack of three layers has a part of two."""
    tree = tree_of(corpus(3), 4)
    made = certificates.of(solved(tree, SCOPE), tree)
    assert (made.listed[0].layers, made.listed[0].found) == (3, 1)
    certificates.check(made, tree)
    with pytest.raises(Refused, match="stacks of more layers, and none of fewer"):
        certificates.check(replaced(made, "listed", parts=((0, made.listed[0].starts, (0, 1)),)), tree)


def test_a_word_that_stands_twice_at_a_distance_is_none() -> None:
    """A box whose every line is a phrase, and that is no ortho."""
    tree = tree_of(["a b c", "b c", "a b", "b c"], 2)
    assert certificates.wrong((2, 2), ("a", "b", "b", "c"), tree) == "a word stands twice in a shell"


def test_another_text_is_refused(sound: Certificate) -> None:
    with pytest.raises(Refused, match="other texts"):
        certificates.check(sound, tree_of([*corpus(1), "one more phrase"], 4))


def test_a_certificate_serves_texts_in_any_order_and_longer_phrases(sound: Certificate) -> None:
    certificates.check(sound, tree_of(corpus(1)[::-1], 4))
    certificates.check(sound, tree_of(["\n\n".join(corpus(1))], 7))


def _falsely_empty(tree: Tree) -> Certificate:
    """Of a search that has overlooked the best shape: the state of one that never found it."""
    state = solved(tree, SCOPE)
    (best,) = state.listed
    record = best.record._replace(parts=[part._replace(layers=(0,) * len(part.layers)) for part in best.record.parts])
    lying = begun(tree, SCOPE)
    lying.empty.append(record)
    Solver(Faces(tree), lying, 1).run()
    assert lying.done
    return certificates.of(lying, tree)


def test_a_shape_falsely_empty_is_found_by_searching_again(tree: Tree) -> None:
    """To read it is not enough, and a search along either axis finds it."""
    lie = _falsely_empty(tree)
    certificates.check(lie, tree)
    for other in (False, True):
        with pytest.raises(Refused, match="2x3x3"):
            certificates.repeat(lie, tree, 2, other=other)


def test_one_wrong_count_is_found_by_searching_again(tree: Tree, sound: Certificate) -> None:
    proofs = list(sound.empty)
    at, proof = next((at, proof) for at, proof in enumerate(proofs) if proof.layers > 2)
    (first, last, layers), *rest = proof.parts
    proofs[at] = dataclasses.replace(proof, parts=((first, last, (layers[0] + 1, *layers[1:])), *rest))
    lie = dataclasses.replace(sound, empty=(*proofs,))
    certificates.check(lie, tree)
    with pytest.raises(Refused, match="stacks, not"):
        certificates.repeat(lie, tree, 1)


def test_another_number_of_faces_is_found_by_searching_again(tree: Tree, sound: Certificate) -> None:
    """How many boxes there are only a search knows."""
    proofs = list(sound.empty)
    at, proof = next((at, proof) for at, proof in enumerate(proofs) if len(proof.face) > 1)
    proofs[at] = dataclasses.replace(proof, faces=proof.faces + 1)
    lie = dataclasses.replace(sound, empty=(*proofs,))
    certificates.check(lie, tree)
    with pytest.raises(Refused, match="faces or starts"):
        certificates.repeat(lie, tree, 1)


def test_others_than_the_first_orthos_are_found_by_searching_again(tree: Tree) -> None:
    """Of four the last three are listed where the first three were asked for."""
    state = solved(tree, SCOPE, top=3)
    made, every = certificates.of(state, tree), certificates.of(solved(tree, SCOPE), tree)
    lie = replaced(made, "listed", orthos=every.listed[0].orthos[1:])
    certificates.check(lie, tree)
    with pytest.raises(Refused, match="the first orthos are others"):
        certificates.repeat(lie, tree, 1)


def test_an_ortho_that_was_left_out_is_found_by_searching_again(tree: Tree, sound: Certificate) -> None:
    """Three of four, with the count made to fit."""
    listing = sound.listed[0]
    assert listing.found == 4
    at, (first, last, layers) = next((at, part) for at, part in enumerate(listing.parts) if part[2][-1])
    parts = (*listing.parts[:at], (first, last, (*layers[:-1], layers[-1] - 1)), *listing.parts[at + 1 :])
    lie = replaced(sound, "listed", orthos=listing.orthos[1:], parts=parts)
    certificates.check(lie, tree)
    for other in (False, True):
        with pytest.raises(Refused, match=r"stacks, not|not 3"):
            certificates.repeat(lie, tree, 1, other=other)


def test_searching_again_can_be_ended(tree: Tree, sound: Certificate) -> None:
    with pytest.raises(InterruptedError):
        certificates.repeat(sound, tree, 1, stop=np.ones(1, np.uint8))
