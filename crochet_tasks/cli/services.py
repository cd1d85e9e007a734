"""Commands that run services until they are stopped, all at once or one each; and `health`, which checks them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from crochet_tasks.cli.common import State, print_line, settings_of, whole_number
from crochet_tasks.errors import values

MOST_PROCESSES = 256


def _autoscale(value: str) -> str:
    """MAX,MIN as Celery takes them, and in this order."""
    limits = [values.whole(part) for part in value.split(",")]
    if len(limits) > 2 or not MOST_PROCESSES >= limits[0] >= max(1, limits[-1]) or limits[-1] < 0:
        raise ValueError(f"must be MAX,MIN, such as 4,1: MAX from 1 to {MOST_PROCESSES}, and MIN not above it")
    return value


def up(
    state: State = None,
    search: Annotated[
        int | None,
        whole_number("N", "Processes that search; as many as cores by default.", least=1, most=MOST_PROCESSES),
    ] = None,
    *,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Without Flower.")] = False,
    no_api: Annotated[bool, typer.Option("--no-api", help="Without the API.")] = False,
) -> None:
    """Run everything on this machine but RabbitMQ and Redis: database, relay, workers, API and Flower.

    Ctrl-C or SIGTERM ends it in order. Without CROCHET_DATABASE_URL it brings its own Postgres.

    The schema of the database is brought up to date.
    """
    from crochet_tasks.services import up as services

    options = services.Options(search=search, api=not no_api, flower=not no_flower)
    raise typer.Exit(services.up(settings_of(state), options))


def view(
    state: State = None,
    port: Annotated[
        int | None, whole_number("PORT", "On which port of 127.0.0.1; any free one by default.", least=1, most=65_535)
    ] = None,
    *,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in your browser.")] = False,
) -> None:
    """Show a page over a store: read its orthos, post texts, and watch the work, which is done here as well.

    It prints an address that lets in once; Ctrl-C ends it, and the next run goes on.
    """
    from crochet_tasks.services import view as services

    def show(address: str) -> None:
        print_line(f"The page is at {address} (good once). Ctrl-C ends it.")
        sys.stdout.flush()

    services.view(settings_of(state), port or 0, show, open_browser=open_browser)


def worker(
    more: Annotated[
        list[str] | None, typer.Argument(metavar="-- CELERY OPTIONS", help="After `--`: options of `celery worker`.")
    ] = None,
    queues: Annotated[
        str | None, typer.Option(metavar="A,B", help="Queues to take work from, separated by commas; all by default.")
    ] = None,
    concurrency: Annotated[
        int | None, whole_number("N", "Processes that work at the same time.", least=1, most=MOST_PROCESSES)
    ] = None,
    autoscale: Annotated[
        str | None,
        typer.Option(
            metavar="MAX,MIN", parser=_autoscale, help="As many processes as there is work for, between these."
        ),
    ] = None,
) -> None:
    """Work on the queues until stopped; Ctrl-C or SIGTERM drains it: running tasks finish first."""
    from crochet_tasks.services import serving

    raise typer.Exit(serving.worker(queues, concurrency, autoscale, more or []))


def relay() -> None:
    """Publish open work to the queues until stopped. Several may run."""
    from crochet_tasks.services import serving

    serving.relay()


def api(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Where to listen; CROCHET_API_HOST by default.")
    ] = None,
    port: Annotated[int | None, whole_number("PORT", "On which port.", least=1, most=65_535)] = None,
) -> None:
    """Serve the REST API until stopped; requests that have begun are answered first."""
    from crochet_tasks.services import serving

    serving.api(host, port)


def flower() -> None:
    """Serve Flower, which shows workers, tasks and queues, until stopped."""
    from crochet_tasks.services import serving

    raise typer.Exit(serving.flower())


def health(
    service: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="worker, relay, one as its log names it, or api; by default all here."),
    ] = None,
    kill_after: Annotated[
        int | None,
        whole_number("SECONDS", "Kill what has been unhealthy for so long, for a supervisor to start again.", least=60),
    ] = None,
) -> None:
    """Say whether the services of this machine make progress: exit code 0, or 1 with what is wrong.

    Workers and relays write files in CROCHET_HEALTH_DIR; the API is asked for its /health/live.
    """
    from crochet_tasks.services import heartbeat
    from crochet_tasks.settings import Settings

    settings = Settings.load()
    found = [heartbeat.check_api(settings)] if service == "api" else heartbeat.read(settings, service)
    for each in found:
        print_line(f"{each.service}  {each.pid or ''}  {each.problem or 'well'}".replace("    ", "  "))
    if kill_after is not None:
        for pid in heartbeat.kill_unhealthy(settings, found, kill_after):
            print_line(f"killed {pid}")
    if not found:
        print_line("no such service runs here" if service else "no worker and no relay runs here")
    if not found or any(each.problem for each in found):
        raise typer.Exit(1)
