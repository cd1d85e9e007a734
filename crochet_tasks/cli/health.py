"""`crochet health`: for probes, and for whoever wants to know."""

from __future__ import annotations

from typing import Annotated

import typer


def health(
    service: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="worker, relay, one as its log names it, or api; by default all here."),
    ] = None,
) -> None:
    """Say whether the services of this machine make progress: exit code 0, or 1 with what is wrong.

    Workers and relays leave word in CROCHET_HEALTH_DIR; the API is asked for its /health/live.
    """
    from crochet_tasks.cli.common import output
    from crochet_tasks.services import heartbeat as word
    from crochet_tasks.settings import Settings

    settings = Settings.load()
    found = [word.ask_api(settings)] if service == "api" else word.look(settings, service)
    with output():
        for seen in found:
            typer.echo(f"{seen.service}  {seen.pid or ''}  {seen.problem or 'well'}".replace("    ", "  "))
        if not found:
            typer.echo("no such service runs here" if service else "no worker and no relay runs here")
    if not found or any(seen.problem for seen in found):
        raise typer.Exit(1)
