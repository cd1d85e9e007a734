"""The seams: what the program calls and a run answers, and what it calls and a run takes note of.

All of it is patched from outside; the program has no hooks for it.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
import pytest
from greenlet import getcurrent
from psycopg._preparing import PrepareManager
from sqlalchemy import select, text

from crochet_tasks import app, merging
from crochet_tasks import best as best_task
from crochet_tasks.app import Step
from crochet_tasks.broker import queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.db import attempts, best, operators, outbox, publishing, removal, sessions, texts, windows
from crochet_tasks.db.tables import work
from crochet_tasks.engine import search
from crochet_tasks.engine.best.faces import Flag
from crochet_tasks.engine.phrases import Additions, PhraseIndex
from crochet_tasks.errors import BrokerUnavailable
from crochet_tasks.operate import cancelling
from crochet_tasks.retry import Policy
from crochet_tasks.services import relay
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics
from tests.simulation.network import Network
from tests.simulation.scheduler import Activity, Scheduler
from tests.support import steps

if TYPE_CHECKING:
    from tests.simulation.world import World

POISON = "poison"


class Poison(Exception):
    """A bug that one word meets."""


class Seams:
    """The world that the patched program runs in; between runs there is none."""

    world: World | None = None


def install(patch: pytest.MonkeyPatch) -> None:
    """Patch the program for a campaign."""
    _driver(patch)
    _broker(patch)
    _times(patch)
    _sizes(patch)
    _watch(patch)


def _running() -> Activity | None:
    """The activity that calls, if one does."""
    scheduler = Scheduler.current
    activity = None if scheduler is None else scheduler.running
    return activity if activity is not None and activity.greenlet is getcurrent() else None


# ── what a run answers ──────────────────────────────────────────────────────────────────────────


def _driver(patch: pytest.MonkeyPatch) -> None:
    """Every statement and commit of an activity is a point of the scheduler."""
    wait = psycopg.Connection.wait

    def waits(connection: psycopg.Connection[Any], gen: Any, *args: Any, **kwargs: Any) -> Any:
        activity = _running()
        # Ours, or it is just being opened, or a property of it is set or a pipeline begun, for which nothing is sent.
        if activity is None or connection.autocommit or gen.__name__.startswith(("_set_", "_enter_")):
            return wait(connection, gen, *args, **kwargs)
        if activity.dead and gen.__name__ == "_close_gen":  # of a cursor, as its block is left
            return wait(connection, gen, *args, **kwargs)
        return activity.statement(connection, gen)

    patch.setattr(psycopg.Connection, "wait", waits)
    # The driver forgets what is prepared at each rollback, for tables may be gone; here none is, and faults roll back
    # all the time: parsing and planning again would be more than half of the server's work.
    patch.setattr(PrepareManager, "clear", lambda _: False)
    patch.setattr(PrepareManager, "prepared_max", 10_000)
    for kind in ("commit", "rollback"):
        patch.setattr(psycopg.Connection, kind, _of_kind(kind, getattr(psycopg.Connection, kind)))


def _of_kind(kind: str, method: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(method)
    def called(connection: psycopg.Connection[Any]) -> None:
        activity = _running()
        if activity is None:
            method(connection)
            return
        activity.kind = kind
        try:
            method(connection)
        finally:
            activity.kind = "statement"

    return called


def _broker(patch: pytest.MonkeyPatch) -> None:
    steps.intercept(patch, _publish)
    patch.setattr(queues, "connected", _connected)
    patch.setattr(queues, "depths", Network.depths)
    patch.setattr(queues, "dead_letters", Network.dead_letters)


def _publish(step: Step, call: Message) -> None:
    _world().messages.publish(step, call)


def _connected(_settings: Settings) -> contextlib.AbstractContextManager[Network]:
    return _world().network.connected()


def refuse_message() -> NoReturn:
    raise BrokerUnavailable(reason="injected")


def _world() -> World:
    assert Seams.world is not None
    return Seams.world


def _times(patch: pytest.MonkeyPatch) -> None:
    """Nothing depends on how long it takes: pauses are none, and waits end when the run says so."""
    patch.setattr(app, "IN_PLACE", Policy(first=0.0, longest=0.0, attempts=2))
    patch.setattr(sessions, "PING_AFTER_SECONDS", math.inf)
    patch.setattr(relay, "SWEEP_SECONDS", math.inf)
    for module, wait in ((operators, "LOCK_WAIT"), (removal, "LOCK_WAIT"), (cancelling, "ORDER_WAIT")):
        patch.setattr(module, wait, "1h")


def _sizes(patch: pytest.MonkeyPatch) -> None:
    """Small parts and slices; and one word is a bug."""
    steps.cut_small(patch)
    for name in ("PART_SQUARES", "PART_PHRASES"):
        patch.setattr(search, name, 2 * search.Bounds().result_orthos)
    patch.setattr(search, "ENUMERATE_FROM", search.ENUMERATE_FROM)  # each run sets it
    patch.setattr(merging, "MOST", 2)
    patch.setattr(best_task, "MOST_PARTS", 4)
    patch.setattr(best_task, "_stopping", _stopping)
    additions = PhraseIndex.additions

    def spoilt(index: PhraseIndex, sentences: list[list[str]], max_side: int) -> Additions:
        if any(POISON in sentence for sentence in sentences):
            raise Poison("cannot be swallowed")
        return additions(index, sentences, max_side)

    patch.setattr(PhraseIndex, "additions", spoilt)


@contextlib.contextmanager
def _stopping(stop: Flag, seconds: float, _needed: object) -> Iterator[None]:
    """A part of a hurried run is stopped at once; a single start, which has more time, is not."""
    stop[0] = _world().hurried and seconds == best_task.PART_SECONDS
    yield


# ── what a run takes note of ────────────────────────────────────────────────────────────────────


def _around(
    patch: pytest.MonkeyPatch, owner: Any, name: str, note: Callable[..., None], *, before: bool = False
) -> None:
    """Have `note(world, activity, result, *arguments)` called after a function; `before`: result None."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        activity = _running()
        if before and activity is not None:
            note(_world(), activity, None, *args, **kwargs)
        result = function(*args, **kwargs)
        if not before and activity is not None:
            note(_world(), activity, result, *args, **kwargs)
        return result

    patch.setattr(owner, name, watched)


def _watch(patch: pytest.MonkeyPatch) -> None:
    _around(patch, metrics.DUPLICATES, "add", _duplicate)
    _around(patch, publishing, "park", _parked)
    _around(patch, publishing, "hold_searches", _held)
    _around(patch, attempts, "settled", _settled)
    _around(patch, attempts, "record", _recorded)
    _around(patch, Step, "_log_retry", _retried)
    _around(patch, texts, "make_version", _version)
    _around(patch, texts, "ingested", _ingested)
    _around(patch, texts, "accept_again", _again)
    _around(patch, texts, "fail", _fails, before=True)
    _around(patch, windows, "add", _window)
    _around(patch, windows, "unfinished", _unfinished)
    _around(patch, outbox, "boxes", _boxes)
    _around(patch, merging, "_rewrite", _merged)
    _around(patch, best_task, "_advance", _planned)
    _around(patch, best_task, "_run", _part)
    _around(patch, best, "add_faces", _faces)
    delete_some = removal.delete_some

    def deleting(connection: Any, corpus: int) -> bool:
        try:
            return delete_some(connection, corpus)
        except Exception as error:
            if isinstance(getattr(error, "orig", None), psycopg.errors.LockNotAvailable):
                _world().reached("a deletion waited for a stage and gave up")
            raise

    patch.setattr(removal, "delete_some", deleting)


def _duplicate(world: World, activity: Activity, _: None, *, what: str) -> None:
    if what not in ("trigger", "search", "result", "best"):
        return
    world.reached("a message of a search for the best was ignored" if what == "best" else f"a {what} was ignored")
    if activity.overtaken:
        world.reached("a stale lease's late commit was refused")
    if what == "result" and activity.about.call.corpus in world.deleted:
        world.reached("a result came for a deleted corpus")


def _parked(world: World, *_: Any) -> None:
    world.reached("a trigger out of turn was parked")


def _retried(world: World, *_: Any) -> None:
    world.reached("a task was retried in place")


def _held(world: World, _activity: Activity, changed: int, connection: Any) -> None:
    if changed:
        held = work.c.state == "open", work.c.kind == "search", work.c.not_before == text("'infinity'")
        number = len(connection.execute(select(work.c.id).where(*held)).all())
        if number > world.held:
            world.reached("searches were held by a spent budget")
        if number < world.held:
            world.reached("held searches were released")
        world.held = number


def _settled(world: World, _activity: Activity, settled: set[Any], *_: Any) -> None:
    if settled:
        world.reached("a dead letter of settled work was ignored")


def _recorded(world: World, _activity: Activity, failed: list[Any], *args: Any, later: bool, **_: Any) -> None:
    pauses = args[3]
    if later and pauses.most:  # else it fails with its text
        world.reached("work used up its attempts" if failed else "work was left to a later retry")


def _version(world: World, _activity: Activity, made: tuple[int, float], _connection: Any, row: Any) -> None:
    world.versions[row.corpus] = made[0]
    if world.live("search.part", row.corpus):
        world.reached("a version came while a search ran")
    if world.live("best.part", row.corpus):
        world.reached("a version came while the best were searched for")


def _ingested(
    world: World, activity: Activity, _: None, _connection: Any, number: int, *_args: Any, whole: bool
) -> None:
    by = world.ingested_by.setdefault(number, set())
    by.add(activity.machine.name)
    if len(by) > 1 and whole:
        world.reached("a text was ingested by several workers")


def _again(world: World, _activity: Activity, _row: Any, _connection: Any, row: Any, *_args: Any) -> None:
    if row.state == "failed":
        world.reached("a failed text was accepted again")


def _fails(world: World, _activity: Activity, _: None, connection: Any, _corpus: int, number: int, *_args: Any) -> None:
    if world.ingested_by.get(number):
        world.reached("a text failed between its parts")


def _window(world: World, _activity: Activity, _: None, _connection: Any, _corpus: int, window: Any) -> None:
    if window.version - window.since > 1:
        world.reached("a window had several versions")
    if window.due is not None:
        world.reached("a window was searched outward from due phrases")
    elif window.since:
        world.reached("a later window was enumerated")


def _unfinished(world: World, _activity: Activity, unfinished: bool, *_: Any) -> None:
    if unfinished:
        world.reached("a window was opened while searches were open")


def _boxes(world: World, _activity: Activity, boxes: bytes | None, *_: Any) -> None:
    if boxes is not None:
        world.reached("a left-over search was continued")


def _merged(world: World, *_: Any) -> None:
    world.reached("batches were merged")


def _planned(world: World, _activity: Activity, planned: best_task.Planned, *_: Any) -> None:
    if len(planned.parts) > 1:
        world.reached("a search for the best was cut into parts")


def _part(world: World, _activity: Activity, outcome: Any, _search: Any, part: Any, *_: Any) -> None:
    if outcome is not None and outcome.reached < part.last:
        world.reached("a part of a search for the best left the rest over")


def _faces(world: World, *_: Any) -> None:
    world.reached("a search for the best stored faces")
