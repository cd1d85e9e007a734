"""The relay: a process that publishes what nobody else did, what is overdue, and that buries dead letters.

Any number of them may run: rows are taken with a lease (their stamp), and no two take the same one.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time

from pydantic import ValidationError

from crochet_tasks import failures, publish, readiness
from crochet_tasks.access import tenancy
from crochet_tasks.app import Step, app
from crochet_tasks.broker import queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.broker.queues import DeadLetter, Depth
from crochet_tasks.db import access, attempts, corpora, dead_letters, idempotency, publishing
from crochet_tasks.db.process import Process
from crochet_tasks.errors import CrochetError, MessageDied, QueueMissing, Unavailable, WorkerLost
from crochet_tasks.retry import Policy
from crochet_tasks.services import status_file
from crochet_tasks.services.census import Counting
from crochet_tasks.services.heartbeat import EVERY_SECONDS, Beat
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 10.0
"""between two polls while the database or the broker is away"""
CARE_SECONDS = 2.0
"""how often, at the most, the relay looks for what is overdue and dead"""
TIDY_SECONDS = 1.0
"""for how long one look deletes what is not wanted any more"""
LONG_OVERDUE = 10
"""leases after which work is published again also where messages wait: if it is among them, it comes twice"""
LETTERS = 100
"""dead letters that one look buries, at the most"""

QUEUES = {
    "ingest": ("ingest",),
    "context": ("context",),
    "remediations": ("remediations",),
    "seed": ("search", "orthos"),
    "grow": ("search", "orthos"),
}
"""where the messages of a kind of work wait"""


class Relay:
    """Looks until it is stopped. While a server is away it looks less often."""

    def __init__(self, process: Process, stopped: threading.Event) -> None:
        self._process, self._stopped = process, stopped
        self._care = 0.0
        self._said_well = -EVERY_SECONDS
        self._idle: set[str] = set()
        """queues that held messages and had no consumers at the last look"""
        self._said: set[str] = set()

    def run(self) -> None:
        usual, failures = self._process.settings.relay_pause, 0
        outage = Policy(first=2 * usual, longest=LONGEST_PAUSE_SECONDS)
        Counting(self._process)
        status_file.keep(self._process)
        beat = Beat(self._process.settings, "relay")
        while not self._stopped.is_set():
            try:
                self.look()
                pause, failures = usual * random.uniform(0.75, 1.0), 0  # noqa: S311 - jitter
                if time.monotonic() >= self._said_well + EVERY_SECONDS:
                    self._said_well = time.monotonic()
                    beat.well()
            except Unavailable as error:
                failures += 1
                pause = outage.pause(failures)
                beat.unwell(error.code)
                log.warning("look_failed", extra={"code": error.code, "error": str(error), "pause": round(pause, 1)})
            self._stopped.wait(pause)
        beat.end()

    def look(self) -> None:
        """Publish what there is; now and then, look for what is overdue and for dead letters."""
        publish.publish_all()
        if time.monotonic() >= self._care:
            self._care = time.monotonic() + min(CARE_SECONDS, self._process.settings.lease / 4)
            self._tidy_up()
            self.take_care()

    def take_care(self) -> None:
        with queues.connected(self._process.settings) as broker:
            try:
                depths = queues.depths(broker)
            except QueueMissing as error:  # somebody deleted it, or the broker lost everything
                log.warning("queue_missing", extra={"error": str(error)})
                queues.declare(self._process.settings, wait=0, said=readiness.warn)
                return
            _measure(depths)
            self._look_for_idle(depths)
            self._release_overdue(depths)
            with queues.dead_letters(broker, LETTERS) as letters:
                for letter, remove in letters:
                    self._bury(letter)
                    metrics.LETTERS.add(queue=letter.queue, reason=_known(letter.reason))
                    remove()

    def _tidy_up(self) -> None:
        """Hold searches back whose budget is spent; delete more of removed corpora, and expired rows of the API."""
        tenancy.sweep(self._process.database, TIDY_SECONDS)
        with self._process.database.transaction() as connection:
            publishing.hold_searches(connection)
            idempotency.forget_old(connection)
            access.forget_old(connection, 86_400.0 * self._process.settings.security_log_days)

    def _look_for_idle(self, depths: dict[str, Depth]) -> None:
        """Say, once, which queues hold messages that nobody takes."""
        idle = {name for name in queues.WORK if depths[name].ready and not depths[name].consumers}
        for name in idle & self._idle - self._said:
            log.warning("no_worker", extra={"queue": name, "messages": depths[name].ready})
        self._said = idle & (self._said | self._idle)
        self._idle = idle

    def _release_overdue(self, depths: dict[str, Depth]) -> None:
        """Have published again what is overdue and can be in no queue: where messages wait, it may be among them."""
        empty = [kind for kind, names in QUEUES.items() if not any(depths[name].ready for name in names)]
        lease = self._process.settings.lease
        with self._process.database.transaction() as connection:
            number = publishing.release_overdue(connection, lease, empty)
            number += publishing.release_overdue(connection, LONG_OVERDUE * lease, QUEUES)
        metrics.RELEASED.add(number)
        if number:
            log.warning("work_overdue", extra={"items": number})

    def _bury(self, letter: DeadLetter) -> None:
        """Note with its work that a message died; one that names no work is kept as a dead letter."""
        call = _call(letter)
        if call is None:
            with self._process.database.transaction() as connection:
                dead_letters.add(
                    connection,
                    queue=letter.queue,
                    reason=letter.reason,
                    task=letter.task,
                    message=letter.message_id,
                    body=letter.body,
                    died_at=letter.died_at,
                )
            buried = {"queue": letter.queue, "reason": letter.reason, "task": letter.task or "unreadable"}
            log.error("dead_letter", extra=buried)
            return
        message = str(letter.message_id)
        with self._process.database.transaction() as connection:
            # By the task that failed, or by us when the letter could not be removed: it counts once, and not against
            # what an operator has opened again since.
            settled = attempts.settled(connection, call.items, message, letter.died_at)
            name = corpora.name_of(connection, call.corpus)
        items = [item for item in call.items if item not in settled]
        error: CrochetError = MessageDied(reason=letter.reason)
        if letter.reason == "delivery_limit":
            error = WorkerLost(times=self._process.settings.delivery_limit + 1)
        where = {"task": str(letter.task), "message_id": message}
        failed = failures.note(self._process.database, self._process.settings, call.corpus, items, error, **where)
        causes = [item.origin for item in failed if item.origin is not None]
        told: dict[str, object] = {
            "task": letter.task,
            "corpus": name,
            "work": " ".join(map(str, items)),
            "reason": letter.reason,
        }
        told |= {"code": error.code, "error": str(error), "failed": bool(failed)}
        if causes:
            told["request"] = causes[0].request
        log.error("message_died", extra=told)


def _measure(depths: dict[str, Depth]) -> None:
    for name, depth in depths.items():
        metrics.QUEUE.set(depth.ready, queue=name)
        metrics.CONSUMERS.set(depth.consumers, queue=name)
    metrics.QUEUES_SEEN.set(time.time())


def _known(reason: str) -> str:
    """A broker's reason as a label: anybody can write one into a message."""
    return reason if reason in ("rejected", "delivery_limit", "expired", "maxlen") else "unknown"


def _call(letter: DeadLetter) -> Message | None:
    """What the message asked for; None where it cannot be read."""
    task = app.tasks.get(letter.task)
    if not isinstance(task, Step):
        return None
    with contextlib.suppress(ValidationError):
        return task.message.model_validate(letter.payload)
    return None
