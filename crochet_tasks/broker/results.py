"""The result backend: Redis, which may be away. Tasks run all the same, and messages are sent.

Celery stores in Redis that a task has begun, and later its result. With Celery's own backend an error of Redis there
counts as the task's: it is not run, and a message that is acknowledged on failure is lost. In a worker's main process
20 retries, a second apart, block the event loop.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from celery.backends.redis import RedisBackend
from celery.exceptions import BackendError
from redis import RedisError

from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

AWAY = (RedisError, BackendError, OSError)


class Results(RedisBackend):  # type: ignore[misc] # Celery ships no types
    """Celery's Redis backend; a result that cannot be stored is logged and dropped: its caller's `get` times out."""

    retry_policy: ClassVar = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().store_result(task_id, result, state, *args, **kwargs)
        except AWAY as error:
            metrics.REDIS_FAILURES.add(use="results")
            log.warning("result_not_stored", extra=_about(task_id, error))
            return result

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to the result of a message that is about to be sent. Without it `get` subscribes later."""
        try:
            super().on_task_call(producer, task_id)
        except (*AWAY, RuntimeError) as error:  # the last: it could not connect again
            metrics.REDIS_FAILURES.add(use="results")
            log.warning("result_not_awaited", extra=_about(task_id, error))
            self.result_consumer.subscribed_to.discard(self.get_key_for_task(task_id))  # or `get` would not subscribe


def _about(task_id: str, error: Exception) -> dict[str, str]:
    return {"message_id": task_id, "error": " ".join(str(error).split())}
