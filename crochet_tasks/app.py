"""The Celery app and the base of every task."""

from __future__ import annotations

import contextlib
import inspect
import logging
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

from crochet_tasks import failures, telemetry
from crochet_tasks.broker import queues
from crochet_tasks.broker.messages import Message
from crochet_tasks.db.process import here
from crochet_tasks.errors import CrochetError, Retry, TaskTimedOut, WrongCall, retry_class
from crochet_tasks.retry import Policy
from crochet_tasks.telemetry import correlation, metrics

log = logging.getLogger(__name__)

app = celery.Celery("crochet_tasks")
app.config_from_object("celeryconfig")


@signals.celeryd_init.connect
def _make_full(**_: Any) -> None:
    """Whatever starts a worker of this app, it opens what tasks need (services/worker.py, which stands above)."""
    symbol_by_name("crochet_tasks.services.worker:attach")()


@app.on_after_finalize.connect
def _import_tasks(**_: Any) -> None:
    """Register every task before `app.tasks` is first read; the stages import this module, so it cannot import them."""
    app.loader.import_default_modules()


IN_PLACE = Policy(longest=2.0, seconds=10.0)
"""how a worker retries a step before it leaves it to the relay: a server restarts in less time"""


class Checked(celery.Task):
    """A task for people to call: wrong arguments raise in the caller, and in no worker."""

    abstract = True

    checked_by: Callable[..., dict[str, str]]
    """called with the arguments before they are sent: raises, or returns how logs and Flower are to show them"""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        bound = inspect.signature(self.run).bind(*(args or ()), **(kwargs or {}))
        shown = self.checked_by(**bound.arguments)
        options["kwargsrepr"] = "{" + ", ".join(f"{name}: {value}" for name, value in shown.items()) + "}"
        return super().apply_async((), bound.arguments, **options)


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
        """For people who call a step by hand: a wrong payload raises WrongCall here, and is no dead letter later."""
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
                self._retried(call)
        except Exception as error:
            problem = TaskTimedOut(seconds=self.soft_time_limit) if isinstance(error, SoftTimeLimitExceeded) else error
            telemetry.failed(problem)
            self._befell(call, problem)
            if problem is error:
                raise
            raise problem from error

    def _retried(self, call: Message) -> None:
        """Run; a temporary error (a server that restarts, a deadlock) is retried in place for a few seconds."""
        IN_PLACE.call(lambda: self.run(call), self._log_retry)

    def _log_retry(self, error: BaseException, pause: float, _left: float) -> None:
        assert isinstance(error, CrochetError)
        metrics.TASK_TRIES.add(task=self.name, code=error.code)
        log.warning("tried_again", extra={**_said(error), "pause": round(pause, 1)})

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
