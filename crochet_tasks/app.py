"""The Celery app and the base of every task."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import celery
import celery.exceptions
from celery import signals
from celery.exceptions import SoftTimeLimitExceeded
from kombu.utils.imports import symbol_by_name
from structlog.contextvars import get_contextvars

from crochet_tasks import telemetry
from crochet_tasks.broker import messages, queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.db import failures, schema
from crochet_tasks.db.process import here
from crochet_tasks.errors import CrochetError, MessageTooNew, Retry, TaskTimedOut, WrongCall, retry_class
from crochet_tasks.retry import Policy
from crochet_tasks.telemetry import correlation, instruments, labels, metrics

log = logging.getLogger(__name__)

RESULT_BACKENDS = dict.fromkeys(("redis", "rediss"), "crochet_tasks.broker.results:Results")
"""in the place of Celery's own; by name: redis is imported where a result is stored or awaited"""

app = celery.Celery("crochet_tasks", events="crochet_tasks.broker.events:OnceEvents")
app.config_from_object("celeryconfig")
app.loader.override_backends = RESULT_BACKENDS


def needed(receiver: Callable[..., None]) -> Callable[..., None]:
    """A signal's receiver whose error ends the process, or in a thread other than the main one at least that.

    Celery would log it, and a worker would take messages and fail each of them.
    """

    @functools.wraps(receiver)
    def received(*arguments: Any, **about: Any) -> None:
        try:
            receiver(*arguments, **about)
        except Exception as error:
            said = f"{error} [{error.code}]" if isinstance(error, CrochetError) else repr(error)
            if not isinstance(error, CrochetError):
                log.exception("receiver_failed", extra={"receiver": receiver.__name__})
            raise SystemExit(f"crochet: {said}") from error

    return received


@signals.celeryd_init.connect
@needed
def _set_up_worker(**_: Any) -> None:
    """Set up every worker of this app, whatever starts it. Loaded by name: services/worker.py imports this module."""
    symbol_by_name("crochet_tasks.services.worker:attach")()


@app.on_after_finalize.connect
@needed
def _import_tasks(**_: Any) -> None:
    """Register every task before `app.tasks` is first read; the stages import this module, so it cannot import them."""
    app.loader.import_default_modules()


IN_PLACE = Policy(longest=2.0, seconds=10.0)
"""how a worker retries a task in place, before the relay publishes it again: a server restarts in less time"""


@contextlib.contextmanager
def charged(corpus: int) -> Iterator[None]:
    """Count the processor time of the block, in this thread, for the tenant of a corpus."""
    began = time.thread_time()
    try:
        yield
    finally:
        seconds = time.thread_time() - began
        if instruments.recorded():
            metrics.TASK_CPU.add(seconds, tenant=labels.tenant(here().tenant(corpus)))


class Immediate(celery.Task):
    """A task that runs as soon as its message is delivered: it takes no `eta` and no `countdown`.

    A worker takes a message from a quorum queue and holds it until its ETA. It takes as many messages as it has
    processes: so many of these, and it works on nothing until then. An ETA that another program sends is ignored.
    """

    abstract = True
    Strategy = "crochet_tasks.services.worker:at_once"

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if options.get("eta") is not None or options.get("countdown") is not None:
            raise WrongCall(problem=f"{self.name} cannot be delayed: call it without eta and countdown, when it is due")
        return super().apply_async(args, kwargs, **options)


class Checked(Immediate):
    """A task for people to call: wrong arguments raise in the caller, and in no worker."""

    abstract = True

    checked_by: Callable[..., dict[str, str]]
    """called with the arguments before they are sent: raises, or returns their representation for logs and Flower"""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        signature = inspect.signature(self.run)
        if args:
            raise WrongCall(problem=f"{self.name} takes its arguments by name: {', '.join(signature.parameters)}")
        bound = signature.bind(**(kwargs or {}))
        shown = self.checked_by(**bound.arguments)
        options["kwargsrepr"] = "{" + ", ".join(f"{name}: {value}" for name, value in shown.items()) + "}"
        return super().apply_async((), bound.arguments, **options)


class Step(Immediate):
    """The base class of the pipeline's tasks. A step is one idempotent task: one message, one transaction.

    Its payload is one `message`. An error is recorded with its work items (db/failures.py): in a worker the work is
    then retried later or the message is dead-lettered; in eager mode the error is raised in the caller. Celery's own
    retries are not used: the relay publishes the work again.
    """

    abstract = True
    message: type[Message]

    def publish(self, call: Message) -> None:
        """Send this task a message. Raises BrokerUnavailable where the broker does not confirm it in time."""
        if self.app.conf.task_always_eager:
            super().apply_async(args=[call.payload()])
            return
        message = str(uuid.uuid4())
        try:
            with queues.broker_errors():
                super().apply_async(
                    args=[call.payload()],
                    argsrepr=f"({call.shown(get_contextvars())})",
                    task_id=message,
                    headers={**correlation.headers(), SENT: time.time()},
                    confirm_timeout=here().settings.publish_timeout,
                )
        except CrochetError:
            telemetry.not_sent(self, message)
            raise
        metrics.MESSAGES.add(task=self.name)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """For calls by hand: a wrong payload raises WrongCall in the caller instead of becoming a dead letter."""
        try:
            given = [*(args or []), *(kwargs or {}).values()]
            self.message.model_validate(given[0] if len(given) == 1 else None)
        except ValueError as error:
            fields = ", ".join(self.message.model_fields)
            raise WrongCall(
                problem=f"{self.name} takes one payload of {fields}. It is a step of the pipeline, which publishes it "
                "by itself: to bring a text in, call crochet_tasks.ingest.accept"
            ) from error
        return super().apply_async(args, kwargs, **options)

    def __call__(self, payload: dict[str, Any]) -> None:
        call = messages.read(self.message, payload)
        # In eager mode the task runs where it is published, and the context is set.
        context = contextlib.nullcontext() if self.request.is_eager else correlation.received(vars(self.request))
        with context:
            about = {"task": self.name, "corpus": correlation.bound("corpus") or call.corpus, **_items(call)}
            profiled = telemetry.profiled(task=self.name, shape=correlation.bound("shape"))
            with telemetry.log_context(**about), profiled, telemetry.results() as results:
                began = time.monotonic()
                # In eager mode a task runs within another one, whose time it would be a second time.
                charge = contextlib.nullcontext() if self.request.is_eager else charged(call.corpus)
                with charge, self._measured():
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
            self._check_format(call)
            if self.request.is_eager:
                self.run(call)
            else:
                self._retried(call)
        except Exception as error:
            problem = TaskTimedOut(seconds=self.soft_time_limit) if isinstance(error, SoftTimeLimitExceeded) else error
            telemetry.failed(problem)
            self._record_error(call, problem)
            if problem is error:
                raise
            raise problem from error

    def _check_format(self, call: Message) -> None:
        """Raise MessageTooNew for what this program cannot read: its work is published again, for others."""
        if isinstance(call, messages.Envelope):
            raise MessageTooNew(found=call.format, reads=self.message.FORMAT)

    def _retried(self, call: Message) -> None:
        """Run; a temporary error (a server that restarts, a deadlock) is retried in place for a few seconds."""
        IN_PLACE.call(lambda: self.run(call), self._log_retry)

    def _log_retry(self, error: BaseException, pause: float, _left: float) -> None:
        assert isinstance(error, CrochetError)
        metrics.TASK_TRIES.add(task=self.name, code=error.code)
        log.warning("task_retried", extra={**_error_fields(error), "pause": round(pause, 1)})

    def _record_error(self, call: Message, error: Exception) -> None:
        """Record an error with the work, once: an eager search raises again what storing its result raised."""
        if getattr(error, _RECORDED, False):
            return
        later = retry_class(error) is Retry.LATER
        if self.request.is_eager:
            if not later:
                failures.record(here().database, here().settings, call.corpus, call.items, error, task=self.name)
                setattr(error, _RECORDED, True)
            return
        where = {"task": self.name, "worker": str(self.request.hostname), "message_id": str(self.request.id)}
        about = {**_error_fields(error), "later": later, "message_id": where["message_id"]}
        bug = None if isinstance(error, CrochetError) else error
        log.log(logging.WARNING if later else logging.ERROR, "task_failed", extra=about, exc_info=bug)
        recorded, failed = False, []
        try:
            failed = failures.record(here().database, here().settings, call.corpus, call.items, error, **where)
            recorded = True
        except CrochetError as second:
            log.error("error_not_recorded", extra=_error_fields(second))  # noqa: TRY400 - it is ours
        if (later or recorded) and not failed:
            # Celery acknowledges the message; the relay publishes the work again after its backoff or lease. Permanent
            # failures are rejected instead, as are bugs that could not be recorded: the relay records their letters.
            raise celery.exceptions.Retry(str(error), error) from error


_RECORDED = "_crochet_recorded"
SENT = "crochet_sent"
"""header of a message: when it was sent, as a Unix time"""
MOST_NAMED = 8
"""at most so many items are named in a log line"""


def _items(call: Message) -> dict[str, object]:
    """Return the work items of a message for log lines: at most MOST_NAMED ids, there may be hundreds."""
    items = call.items
    named: dict[str, object] = {"work": " ".join(map(str, items[:MOST_NAMED]))}
    return named if len(items) <= 1 else {**named, "items": len(items)}


def _error_fields(error: Exception) -> dict[str, str]:
    """Return the fields of an error for log lines."""
    return {"code": error.code if isinstance(error, CrochetError) else "internal", "error": str(error)}


# ── beside the pipeline ─────────────────────────────────────────────────────────────────────────


# The caller gets the error as the result; the message must not become a dead letter.
@app.task(base=Immediate, name="maintenance.probe", ignore_result=False, acks_on_failure=True)
def probe() -> dict[str, str]:
    """Return host, process and schema of a worker. `crochet doctor` reads the result."""
    with here().database.transaction() as connection:
        found = schema.revision(connection)
    return {"host": socket.gethostname(), "process": str(os.getpid()), "schema": found or "none"}
