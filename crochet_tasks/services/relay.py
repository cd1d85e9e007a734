"""The relay: polls the outbox, publishes unpublished and overdue work, and records dead letters with their work.

Any number of relays may run: each takes rows with a lease (their stamp), and no two take the same row.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time

from pydantic import ValidationError

from crochet_tasks import merging, publish, readiness
from crochet_tasks.access import tenancy
from crochet_tasks.app import Step, app
from crochet_tasks.broker import messages, queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.broker.queues import DeadLetter, Depth
from crochet_tasks.broker.repair import Repair
from crochet_tasks.db import attempts, corpora, dead_letters, failures, publishing
from crochet_tasks.db.process import Process
from crochet_tasks.errors import CrochetError, MessageDied, QueueMissing, Unavailable, WorkerLost
from crochet_tasks.operate.retention import Retention
from crochet_tasks.operate.sealing import Sealer
from crochet_tasks.reporting.queue_depths import Notes
from crochet_tasks.retry import Policy
from crochet_tasks.services import status_file
from crochet_tasks.services.census import CensusThread
from crochet_tasks.services.heartbeat import EVERY_SECONDS, Heartbeat
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 10.0
"""between two polls while the database or the broker is away"""
MAINTENANCE_SECONDS = 2.0
"""at most this often the relay handles overdue work and dead letters"""
SWEEP_SECONDS = 1.0
"""for how long one poll deletes rows of removed corpora"""
RETENTION_SECONDS = 0.2
"""for how long one poll deletes old rows: at most a tenth of the time"""
LONG_OVERDUE = 10
"""leases after which work is published again even where messages wait; it may then be delivered twice"""
DEAD_LETTERS_AT_ONCE = 100
"""at most so many dead letters are handled in one poll"""

QUEUES = {
    "ingest": ("ingest",),
    "context": ("context",),
    "remediations": ("remediations",),
    "search": ("search", "orthos"),
    "best": ("best",),
}
"""the queues of a kind of work"""


class Relay:
    """Polls until it is stopped. While a server is away it backs off."""

    def __init__(self, process: Process, stopped: threading.Event) -> None:
        self._process, self._stopped = process, stopped
        self._repair = Repair(process.settings)
        self._retention = Retention(process.database, process.settings)
        self._sealer = Sealer(process.database)
        self._notes = Notes(process.settings, process.database)
        self._next_maintenance = self._next_merges = 0.0
        self._beat_at = -EVERY_SECONDS
        self._idle: set[str] = set()
        """queues that had messages and no consumers at the last poll"""
        self._warned_of: set[str] = set()

    def run(self) -> None:
        usual, failures = self._process.settings.relay_pause, 0
        outage = Policy(first=2 * usual, longest=LONGEST_PAUSE_SECONDS)
        CensusThread(self._process)
        status_file.keep(self._process)
        heartbeat = Heartbeat(self._process.settings, "relay")
        while not self._stopped.is_set():
            try:
                self.poll()
                pause, failures = usual * random.uniform(0.75, 1.0), 0  # noqa: S311 - jitter
                if time.monotonic() >= self._beat_at + EVERY_SECONDS:
                    self._beat_at = time.monotonic()
                    heartbeat.healthy()
            except Unavailable as error:
                failures += 1
                self._repair.due = True
                pause = outage.pause(failures)
                heartbeat.unhealthy(error.code)
                log.warning(
                    "relay_poll_failed", extra={"code": error.code, "error": str(error), "pause": round(pause, 1)}
                )
                with contextlib.suppress(Unavailable):  # a broken queue may be why it failed
                    self._repair.check()
            self._stopped.wait(pause)
        heartbeat.end()

    def poll(self) -> None:
        """Publish what the outbox holds; every MAINTENANCE_SECONDS handle overdue work and dead letters."""
        publish.publish_all()
        self._repair.check()
        if time.monotonic() >= self._next_maintenance:
            self._next_maintenance = time.monotonic() + min(MAINTENANCE_SECONDS, self._process.settings.lease / 4)
            self.delete_expired()
            self.maintain()
        if time.monotonic() >= self._next_merges:
            self._next_merges = time.monotonic() + merging.EVERY_SECONDS
            merging.publish_merges()

    def maintain(self) -> None:
        """Read the queues' lengths, publish overdue work again and record dead letters; declare missing queues."""
        with queues.connected(self._process.settings) as broker:
            try:
                depths = queues.depths(broker)
            except QueueMissing as error:  # it was deleted, or the broker lost its data
                log.warning("queue_missing", extra={"error": str(error)})
                queues.declare(self._process.settings, wait=0, report=readiness.warn)
                return
            _measure(depths)
            self._notes.note({name: depths[name].ready for name in queues.WORK})
            self._warn_of_idle_queues(depths)
            self._release_overdue(depths)
            with queues.dead_letters(broker, DEAD_LETTERS_AT_ONCE) as letters:
                for letter, remove in letters:
                    self._record_dead_letter(letter)
                    metrics.LETTERS.add(queue=letter.queue, reason=_known(letter.reason))
                    remove()

    def delete_expired(self) -> None:
        """Hold searches of spent budgets; delete rows of removed corpora, and what is older than the settings say.

        Seals the audit.
        """
        tenancy.sweep(self._process.database, SWEEP_SECONDS)
        with self._process.database.transaction() as connection:
            publishing.hold_searches(connection)
        self._retention.sweep(RETENTION_SECONDS)
        self._sealer.seal()

    def _warn_of_idle_queues(self, depths: dict[str, Depth]) -> None:
        """Warn once of each queue that has messages and no consumers."""
        idle = {name for name in queues.WORK if depths[name].ready and not depths[name].consumers}
        for name in idle & self._idle - self._warned_of:
            log.warning("no_worker", extra={"queue": name, "messages": depths[name].ready})
        self._warned_of = idle & (self._warned_of | self._idle)
        self._idle = idle

    def _release_overdue(self, depths: dict[str, Depth]) -> None:
        """Have overdue work published again where its queues are empty; in others its message may still wait."""
        empty = [kind for kind, names in QUEUES.items() if not any(depths[name].ready for name in names)]
        lease = self._process.settings.lease
        with self._process.database.transaction() as connection:
            number = publishing.release_overdue(connection, lease, empty)
            number += publishing.release_overdue(connection, LONG_OVERDUE * lease, QUEUES)
        metrics.RELEASED.add(number)
        if number:
            log.warning("work_overdue", extra={"items": number})

    def _record_dead_letter(self, letter: DeadLetter) -> None:
        """Record a dead letter as an error of its work; store one that names no work in the table of dead letters."""
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
            about = {"queue": letter.queue, "reason": letter.reason, "task": letter.task or "unreadable"}
            log.error("dead_letter", extra=about)
            return
        message = str(letter.message_id)
        with self._process.database.transaction() as connection:
            # Recorded already by the task that failed, or by a relay that could not remove the letter: an error counts
            # once, and not for work that an operator has reopened since.
            settled = attempts.settled(connection, call.items, message, letter.died_at)
            name = corpora.name_of(connection, call.corpus)
        items = [item for item in call.items if item not in settled]
        error: CrochetError = MessageDied(reason=letter.reason)
        if letter.reason == "delivery_limit":
            error = WorkerLost(times=self._process.settings.delivery_limit + 1)
        where = {"task": str(letter.task), "message_id": message}
        failed = failures.record(self._process.database, self._process.settings, call.corpus, items, error, **where)
        causes = [item.origin for item in failed if item.origin is not None]
        fields: dict[str, object] = {
            "task": letter.task,
            "corpus": name,
            "work": " ".join(map(str, items)),
            "reason": letter.reason,
        }
        fields |= {"code": error.code, "error": str(error), "failed": bool(failed)}
        if causes:
            fields["request"] = causes[0].request
        log.error("message_died", extra=fields)


def _measure(depths: dict[str, Depth]) -> None:
    for name, depth in depths.items():
        metrics.QUEUE.set(depth.ready, queue=name)
        metrics.CONSUMERS.set(depth.consumers, queue=name)
    metrics.QUEUES_READ_AT.set(time.time())


def _known(reason: str) -> str:
    """Return the broker's reason as a metric label; unknown ones, which any sender can make up, share one."""
    return reason if reason in ("rejected", "delivery_limit", "expired", "maxlen") else "unknown"


def _call(letter: DeadLetter) -> Message | None:
    """Return the message of a dead letter; None where it cannot be read."""
    task = app.tasks.get(letter.task)
    if not isinstance(task, Step):
        return None
    with contextlib.suppress(ValidationError):
        return messages.read(task.message, letter.payload)
    return None
