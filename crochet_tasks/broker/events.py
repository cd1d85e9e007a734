"""Celery's events, which Flower shows: a worker sends each once, and waits for nobody.

Celery repeats a worker's heartbeat until the broker has taken it, in the worker's event loop. While RabbitMQ hangs the
worker then does nothing else: it does not notice that its own connection is lost (celery issue 2312).
"""

from __future__ import annotations

from typing import Any, ClassVar

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher


class OnceEvents(Events):  # type: ignore[misc] # Celery ships no types
    """`app.events` with this dispatcher."""

    dispatcher_cls: ClassVar = f"{__name__}:OnceDispatcher"


class OnceDispatcher(EventDispatcher):  # type: ignore[misc]
    """What cannot be sent is kept until the worker is connected again, as Celery keeps events of tasks."""

    def send(self, *arguments: Any, **options: Any) -> Any:
        return super().send(*arguments, **{**options, "retry": False})
