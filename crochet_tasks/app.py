"""The Celery app, what a process holds while it lives, and the base of every task."""

from __future__ import annotations

import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import celery
import celery.exceptions
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection

from crochet_tasks import failures, telemetry
from crochet_tasks.broker import queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.db import texts
from crochet_tasks.db.sessions import Database
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import sentences
from crochet_tasks.errors import CrochetError, Retry, TaskTimedOut, retry_class
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import correlation, metrics

log = logging.getLogger(__name__)

app = celery.Celery("crochet_tasks")
app.config_from_object("celeryconfig")


@dataclass
class Process:
    """What one process holds: its settings, its pool, and an index per corpus that it works on."""

    settings: Settings
    database: Database
    indexes: dict[int, PhraseIndex] = field(default_factory=dict)
    parsed: dict[int, list[list[str]]] = field(default_factory=dict)
    pending: dict[tuple[int, int, int], PhraseIndex] = field(default_factory=dict)
    _ends: list[Callable[[], None]] = field(default_factory=list)

    def at_end(self, stop: Callable[[], None]) -> None:
        """Have something that uses the pool, such as a thread, stopped before the pool is closed."""
        self._ends.append(stop)

    def close(self) -> None:
        for stop in self._ends:
            stop()
        self.database.close()

    def index(self, connection: Connection, corpus: int, version: int) -> PhraseIndex:
        """The corpus' phrase index, brought forward to `version` at least."""
        index = self.indexes.get(corpus, PhraseIndex())
        metrics.LAG.set(max(0, version - index.version))
        metrics.CACHE.add(cache="index", outcome="miss" if index.version < version else "hit")
        if index.version < version:
            index = self.indexes[corpus] = texts.bring_forward(connection, corpus, index)
        return index

    def pending_index(self, connection: Connection, text: TextRow, version: int) -> PhraseIndex:
        """The index with what has come in of the text that is being ingested. The caller holds the ORDER lock.

        It is kept for the next part, under the text, its place in line (a new one when it is given again) and how far
        it is, once that is committed: so it cannot be taken for another's.
        """
        index = self.pending.get((text.id, text.seq, text.sentences))
        if index is None:
            index = self.index(connection, text.corpus, version)
            index = texts.bring_forward(connection, text.corpus, index, pending=True)
        return index

    def sentences(self, connection: Connection, text: int) -> list[list[str]]:
        """The sentences of a text; those of the last one are kept, because a big text is ingested in parts."""
        parsed = self.parsed.get(text)
        if parsed is None:
            parsed = sentences(texts.body(connection, text))
            self.parsed = {text: parsed}
        return parsed


_process: Process | None = None


@contextlib.contextmanager
def process(settings: Settings, where: str | Database) -> Iterator[Process]:
    """Open what this process' tasks work with, for as long as the context lasts; `where` is a URL or a pool."""
    global _process  # noqa: PLW0603 - the one global: a process has one pool, made after fork
    app.loader.import_default_modules()  # the tasks, which import this module
    database = Database(where, settings) if isinstance(where, str) else where
    _process = opened = Process(settings, database)
    try:
        yield opened
    finally:
        _process = None
        opened.close()


def here() -> Process:
    """What this process holds; tasks find it here."""
    if _process is None:
        raise RuntimeError("tasks run inside `app.process(...)`")
    return _process


PATIENCE_SECONDS = 10.0
"""how long a worker tries a step again at once, before it leaves it to the relay: a restart of a server takes less"""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0


class Step(celery.Task):
    """The base of every task: a step of the pipeline, one transaction, that may be run any number of times.

    Its payload is one `message`. What is raised is noted with the work that it befell (`retries`): in a worker it is
    tried again later or goes to the dead-letter queue, in one process the caller gets it.
    """

    abstract = True
    message: type[Message]

    def publish(self, call: Message) -> None:
        """Send this task its message; raises BrokerUnavailable when the broker did not take it, in a bounded time."""
        if self.app.conf.task_always_eager:
            self.apply_async(args=[call.payload()])
            return
        message = str(uuid.uuid4())
        try:
            with queues.broker_errors():
                self.apply_async(
                    args=[call.payload()],
                    argsrepr=f"({call})",
                    task_id=message,
                    headers={**correlation.headers(), SENT: time.time()},
                    confirm_timeout=here().settings.publish_timeout,
                )
        except CrochetError:
            telemetry.not_sent(self, message)
            raise
        metrics.MESSAGES.add(task=self.name)

    def __call__(self, payload: dict[str, Any]) -> None:
        call = self.message.model_validate(payload)
        # In one process the work is done where it is published, and the context is there.
        context = contextlib.nullcontext() if self.request.is_eager else correlation.received(vars(self.request))
        with context:
            about = {"task": self.name, "corpus": correlation.bound("corpus") or call.corpus, **_items(call)}
            profiled = telemetry.profiled(task=self.name, shape=correlation.bound("shape"))
            with telemetry.doing(**about), profiled, telemetry.results() as results:
                began = time.monotonic()
                with self._measured():
                    self._run(call)
                log.info("task_done", extra={**results, "seconds": round(time.monotonic() - began, 3)})

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        sent = getattr(self.request, SENT, None)
        if isinstance(sent, float):
            metrics.TASK_WAIT.observe(max(0.0, time.time() - sent), task=self.name)  # clocks of machines differ
        began, outcome = time.monotonic(), "failed"
        try:
            yield
            outcome = "done"
        except celery.exceptions.Retry:
            outcome = "retried"
            raise
        finally:
            metrics.TASKS.add(task=self.name, outcome=outcome)
            metrics.TASK_SECONDS.observe(time.monotonic() - began, task=self.name)

    def _run(self, call: Message) -> None:
        try:
            if self.request.is_eager:
                self.run(call)
            else:
                self._patiently(call)
        except Exception as error:
            problem = TaskTimedOut(seconds=self.soft_time_limit) if isinstance(error, SoftTimeLimitExceeded) else error
            telemetry.failed(problem)
            self._befell(call, problem)
            if problem is error:
                raise
            raise problem from error

    def _patiently(self, call: Message) -> None:
        """Run; what may succeed in a moment (a server that restarts, a deadlock) is tried again at once."""
        until, pause = time.monotonic() + PATIENCE_SECONDS, FIRST_PAUSE_SECONDS
        while True:
            try:
                self.run(call)
            except CrochetError as error:
                if error.retry is Retry.NEVER or time.monotonic() + pause > until:
                    raise
                metrics.TASK_TRIES.add(task=self.name, code=error.code)
                log.warning("tried_again", extra={**_said(error), "pause": round(pause, 1)})
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                return

    def _befell(self, call: Message, error: Exception) -> None:
        """Note an error with the work, once: a search that stores in the same process raises what storing raised."""
        if getattr(error, _NOTED, False):
            return
        later = retry_class(error) is Retry.LATER
        if self.request.is_eager:
            if not later:
                failures.note(here().database, here().settings, call.corpus, call.items, error, task=self.name)
                setattr(error, _NOTED, True)
            return
        where = {"task": self.name, "worker": str(self.request.hostname), "message_id": str(self.request.id)}
        about = {**_said(error), "later": later, "message_id": where["message_id"]}
        bug = None if isinstance(error, CrochetError) else error
        log.log(logging.WARNING if later else logging.ERROR, "task_failed", extra=about, exc_info=bug)
        noted, failed = False, []
        try:
            failed = failures.note(here().database, here().settings, call.corpus, call.items, error, **where)
            noted = True
        except CrochetError as second:
            log.error("failure_not_noted", extra=_said(second))  # noqa: TRY400 - it is ours
        if (later or noted) and not failed:
            # Acknowledged, and published again by the relay when its time has come or its lease is over. What has
            # failed for good is rejected instead, and so is a bug that could not be noted: the relay notes it then.
            raise celery.exceptions.Retry(str(error), error) from error


_NOTED = "_crochet_noted"
SENT = "crochet_sent"
"""header of a message: when it was sent, as a Unix time"""
MOST_NAMED = 8
"""items that a log line names"""


def _items(call: Message) -> dict[str, object]:
    """The work of a message, for log lines: all of it may be hundreds of items."""
    items = call.items
    named: dict[str, object] = {"work": " ".join(map(str, items[:MOST_NAMED]))}
    return named if len(items) <= 1 else {**named, "items": len(items)}


def _said(error: Exception) -> dict[str, str]:
    """An error, for log lines."""
    return {"code": error.code if isinstance(error, CrochetError) else "internal", "error": str(error)}
