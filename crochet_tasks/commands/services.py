"""Commands that serve until they are stopped: worker, relay."""

from __future__ import annotations

from typing import Annotated

import typer

from crochet_tasks.commands.common import say


def worker(
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Queues to take work from, separated by commas; all by default.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=256, help="Processes that work at the same time.")
    ] = None,
) -> None:
    """Do work from the queues until stopped; Ctrl-C or SIGTERM finishes what is in hand first."""
    from crochet_tasks import serving

    raise typer.Exit(serving.worker(queues, concurrency))


def relay() -> None:
    """Publish open work to the queues until stopped. Several may run."""
    from crochet_tasks import serving

    serving.relay(say)
