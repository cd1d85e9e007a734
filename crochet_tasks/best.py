"""Beside the stages, parallel: search for the best orthos of a version (engine/best/), as work of the queue `best`.

A job is a row of `best`. Its first work item plans: it does what is small and writes the parts of a large search as
work. A part is pure computation; its outcome is merged into the job's state in the transaction that finishes it. The
last part of a search, or one that finds an ortho where any will do, has the next one planned.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter

from crochet_tasks import telemetry
from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import Connection, best, operators, outbox, publishing
from crochet_tasks.db.best import Expected, Job
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.engine.best.faces import Flag, Outcome, Part, Search
from crochet_tasks.engine.best.plan import Planner, begun
from crochet_tasks.engine.best.state import Aim, Current, State
from crochet_tasks.engine.geometry import Sides, best_first, shape_name
from crochet_tasks.engine.order import Ids
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import CrochetError, NotEnoughMemory, StartTooLong
from crochet_tasks.query.best import CERTIFICATES, certified, known_in, report
from crochet_tasks.telemetry import metrics

MOST_PARTS = 500
"""of one search"""
PART_SECONDS = 15.0
"""after which a part leaves the rest of its starts over"""
START_SECONDS = 90.0
"""that a single start may take"""
POLL_SECONDS = 2.0
"""between two looks whether a part that runs is still needed"""
_STATES = TypeAdapter(State)


@app.task(base=Step, name="best.part", message=Trigger)
def search(call: Trigger) -> None:
    """Plan a job, or search a part of the shape that it searches now."""
    with here().database.transaction() as connection:
        items = outbox.opened(connection, call.items, runnable=True)
        job = best.read(connection, items[0].subject) if items else None
        if job is None:  # the work is done, stopped, or deleted with its corpus; or its job was deleted
            metrics.DUPLICATES.add(what="best")
            operators.cancel_items(connection, [item.id for item in items])
            return
    (item,) = items
    if item.part is None:
        _plan(item, job)
    else:
        _search(item, job)


# ── planning ────────────────────────────────────────────────────────────────────────────────────


class Planned(NamedTuple):
    """What planning has done: `faces`: (shape, first start, orthos) of listings. `parts`: what is to be done next.

    `again`: it ended with a listing of faces, and goes on from these.
    """

    visits: int
    faces: list[tuple[Sides, int, Ids]]
    parts: list[Part]
    again: bool = False


def _plan(item: Item, job: Job) -> None:
    process = here()
    with process.planning.of(job.id):
        with process.database.snapshot() as connection:  # its corpus may be deleted meanwhile, table by table
            if best.read(connection, job.id) is None:
                metrics.DUPLICATES.add(what="best")
                return
            planner = process.planner(connection, job.corpus, job.id, job.question.version)
            tree = planner.faces.tree
            state = _begun(connection, job, tree) if job.search is None else _STATES.validate_json(job.search)
            for sides in best.shapes_of_faces(connection, job.id):
                if not _lists(state.current, sides):
                    process.load_faces(connection, job.corpus, job.id, planner, sides)
        planned = _advance(planner, state, process.settings.best_part_visits)
        expected = None if state.current is None else Expected(*planner.left(state))
    proof = CERTIFICATES.dump_json(certified(state, tree)).decode() if state.done else None
    with process.database.transaction() as connection:
        now = best.read(connection, job.id, lock=True)
        if now is None or not outbox.claim(connection, [item.id]):
            metrics.DUPLICATES.add(what="best")
            return
        if now.revision != job.revision:  # another one has planned it, or it was asked for again
            publishing.republish(connection, [item.id])
            return
        for sides, first, boxes in planned.faces:
            best.add_faces(connection, job.id, sides, first, boxes)
        for sides in state.too_many:
            best.remove_faces(connection, job.id, sides)
        too_large = () if state.done or planned.parts or planned.again else planner.too_large
        if state.done:
            best.remove_faces(connection, job.id)
        _write(connection, now, state, tree, planned.visits, expected or Expected(0, 0, all=True), proof, too_large)
        best.add(connection, [_item(job, state, part.first, part.last) for part in planned.parts])
        if planned.again:
            publishing.republish(connection, [item.id])
        else:
            outbox.done(connection, [item.id])


def _begun(connection: Connection, job: Job, tree: Tree) -> State:
    """A state in which nothing is searched yet: with the best that older versions have, which this one has, too."""
    known = known_in(tree, job.question.scope, best.earlier(connection, job))
    return begun(tree, job.question.scope, job.question.top, known)


def _advance(planner: Planner, state: State, visits: int) -> Planned:
    """Plan and search until there is a search of more than one part, or about so many visits were made."""
    spent, faces = 0, list[tuple[Sides, int, Ids]]()
    while not state.done:
        if state.current is None and not planner.begin(state):
            break  # its faces are too many
        current = state.current
        if current is None:
            continue
        parts = planner.parts(state, visits, MOST_PARTS)
        if len(parts) > 1 or spent > visits:
            return Planned(spent, faces, parts)
        for part in parts:
            outcome = _run(planner.search(part.way), part)
            spent += _merge(planner, state, outcome)
            if current.aim is Aim.FACES and outcome is not None:
                faces.append((part.way.sides, part.first, outcome.boxes))
            if state.current is current and outcome is not None:
                return Planned(spent, faces, [part._replace(first=outcome.reached)])
        if current.aim is Aim.FACES and current.record.sides not in state.too_many:
            return Planned(spent, faces, [], again=True)
    return Planned(spent, faces, [])


# ── a part ──────────────────────────────────────────────────────────────────────────────────────


def _search(item: Item, job: Job) -> None:
    process = here()
    part, outcome = _part(item, job), None
    with process.planning.of(job.id):
        with process.database.snapshot() as connection:
            if best.read(connection, job.id) is None:
                metrics.DUPLICATES.add(what="best")
                return
            planner = process.planner(connection, job.corpus, job.id, job.question.version)
            if part is not None and len(part.way.face) > 1:
                process.load_faces(connection, job.corpus, job.id, planner, part.way.face)
        search = None if part is None else planner.search(part.way)
    if part is not None and search is not None:
        with telemetry.span("best.engine", version=item.version):
            outcome = _run(search, part, lambda: _is_open(item))
    with process.database.transaction() as connection:
        now = best.read(connection, job.id, lock=True)
        if now is None or not outbox.claim(connection, [item.id]):
            metrics.DUPLICATES.add(what="best")
            return
        outbox.done(connection, [item.id])
        if part is not None and _part(item, now) == part:
            _take(connection, now, part, planner, outcome)


def _part(item: Item, job: Job) -> Part | None:
    """What an item asks for; None where the job searches another shape by now."""
    state = None if job.search is None else _STATES.validate_json(job.search)
    if state is None or state.current is None or item.part is None:
        return None
    if item.id != _item(job, state, *item.part).id:
        return None
    aim = state.current.aim
    keep = {Aim.ONE: 1, Aim.LIST: state.keep, Aim.FACES: None}[aim]
    return Part(state.current.record.way, *item.part, enough=aim is Aim.ONE, keep=keep)


def _item(job: Job, state: State, first: int, last: int) -> Item:
    """The work of a part of the current search."""
    assert state.current is not None
    shape = f"{state.current.aim.value} {state.current.record.way}"
    return outbox.best(job.corpus, job.id, job.question.version, shape, (first, last))


def _take(connection: Connection, job: Job, part: Part, planner: Planner, outcome: Outcome | None) -> None:
    """Merge an outcome into a job, whose row is locked; have what follows from it done."""
    assert job.search is not None
    state = _STATES.validate_json(job.search)
    current = state.current
    assert current is not None
    visits = _merge(planner, state, outcome)
    sides = part.way.sides
    if sides in state.too_many:
        best.remove_faces(connection, job.id, sides)
    elif current.aim is Aim.FACES and outcome is not None:
        best.add_faces(connection, job.id, sides, part.first, outcome.boxes)
    if state.current is current:
        if outcome is not None and outcome.reached < part.last:
            best.add(connection, [_item(job, state, outcome.reached, part.last)])
    else:
        best.end_parts(connection, job)
        best.add(connection, [outbox.best(job.corpus, job.id, job.question.version)])
    _write(connection, job, state, planner.faces.tree, visits)


def _merge(planner: Planner, state: State, outcome: Outcome | None) -> int:
    """Merge an outcome into a state; None: one start alone has more orthos than there is room for. Returns visits.

    Raises NotEnoughMemory where these are to be listed.
    """
    assert state.current is not None
    if outcome is not None:
        return outcome.visits if planner.merge(state, outcome) else 0
    if state.current.aim is not Aim.FACES:
        raise NotEnoughMemory(what=f"there are too many {shape_name(state.current.record.sides)}")
    state.give_up()
    return 0


def _write(
    connection: Connection,
    job: Job,
    state: State,
    tree: Tree,
    visits: int,
    expected: Expected | None = None,
    proof: str | None = None,
    too_large: Iterable[Sides] = (),
) -> None:
    """Write how far a job is, in its row, which is locked. `too_large`: what keeps it from going on, by estimates."""
    current = state.current
    seen = report(state, tree, 0.0).model_dump(mode="json")
    seen["too_large"] += [shape_name(sides) for sides in best_first(too_large) if sides not in state.too_many]
    seen["searching"] = (
        None if current is None else {"aim": current.aim.value, "shape": shape_name(current.record.sides)}
    )
    seen["parts_done"] = 0 if current is None else len(current.record.parts)
    search = _STATES.dump_json(state).decode()
    best.write(connection, job, search, seen, visits=visits, expected=expected, certificate=proof)


def _lists(current: Current | None, sides: Sides) -> bool:
    """Whether the orthos of a shape are being listed, and some may be missing."""
    return current is not None and current.aim is Aim.FACES and current.record.sides == sides


# ── in bounded time ─────────────────────────────────────────────────────────────────────────────


def _run(search: Search, part: Part, needed: Callable[[], bool] = lambda: True) -> Outcome | None:
    """Do a part for PART_SECONDS, or a single start for START_SECONDS; None: a start has too many orthos.

    Raises StartTooLong.
    """
    for chosen, seconds in ((part, PART_SECONDS), (part._replace(last=part.first + 1), START_SECONDS)):
        stop: Flag = np.zeros(1, np.uint8)
        with _stopping(stop, seconds, needed):
            try:
                outcome = search.run(chosen, stop)
            except MemoryError:
                return None
        if outcome.reached > part.first or len(outcome.boxes) or part.first == part.last or not needed():
            return outcome
    raise StartTooLong(shape=shape_name(part.way.sides), seconds=START_SECONDS)


@contextlib.contextmanager
def _stopping(stop: Flag, seconds: float, needed: Callable[[], bool]) -> Iterator[None]:
    """Set the flag after so many seconds, or when the outcome is not needed any more."""
    over, until = threading.Event(), time.monotonic() + seconds

    def watch() -> None:
        while not over.wait(min(POLL_SECONDS, max(0.0, until - time.monotonic()))):
            if time.monotonic() >= until or not needed():
                stop[0] = 1
                return

    watcher = threading.Thread(target=watch, name="best-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _is_open(item: Item) -> bool:
    """Whether the work is still to be done, as far as the database answers."""
    try:
        with here().database.transaction() as connection:
            return bool(outbox.opened(connection, [item.id]))
    except CrochetError:
        return True
