"""Services in the foreground: set up, run until a signal comes, end in order."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable

from crochet_tasks.errors import WrongCall
from crochet_tasks.settings import Settings


def logs(service: str) -> None:
    """Log lines of this process on standard error."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {service} %(levelname)s %(message)s", force=True
    )
    for noisy in ("amqp", "kombu"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def worker(queues: str | None, concurrency: int | None) -> int:
    """Run a worker; its exit status. Raises WrongCall for a queue that there is not."""
    from crochet_tasks.queues import WORK

    chosen = list(WORK) if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in WORK]
    if unknown or not chosen:
        raise WrongCall(problem=f"there is no queue '{', '.join(unknown)}'; there are {', '.join(WORK)}")
    settings = Settings.load()
    logs(f"worker[{','.join(chosen) if queues else 'all'}]")
    from crochet_tasks import worker as service

    return service.serve(settings, chosen, concurrency or settings.concurrency)


def relay(said: Callable[[str], None]) -> None:
    """Run a relay until SIGTERM or SIGINT."""
    settings = Settings.load()
    logs("relay")
    from crochet_tasks import startup
    from crochet_tasks.app import process
    from crochet_tasks.relay import Relay

    startup.check(settings, said)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    assert settings.database_url is not None
    with process(settings, settings.database_url.get_secret_value()) as opened:
        Relay(opened, stopped).run()
