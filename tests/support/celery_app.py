"""Our Celery app on a broker instead of eager tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import celery

from crochet_tasks.app import app


@contextlib.contextmanager
def on_broker(url: str) -> Iterator[celery.Celery]:
    changes = {"task_always_eager": False, "broker_url": url}
    before = {name: app.conf[name] for name in changes}
    app.conf.update(changes)
    app._after_fork()  # forgets its pools, which an earlier test may have made for another address
    try:
        yield app
    finally:
        app.pool.force_close_all()
        app._after_fork()
        app.conf.update(before)
