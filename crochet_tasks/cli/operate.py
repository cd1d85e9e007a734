"""Commands of operators: ingest texts into a deployment, and inspect and change its work."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import (
    Corpus,
    Json,
    Local,
    MaxAxes,
    MaxCells,
    MaxSide,
    client_of,
    in_store,
    limits_of,
    number,
    print_json,
    print_line,
    whole_number,
)
from crochet_tasks.errors import CorpusUnknown, WorkUnknown, WrongCall
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from collections.abc import Callable

    from crochet_tasks.db.access import Entry
    from crochet_tasks.db.process import Process
    from crochet_tasks.schemas.reports import AllCancelled, IngestReport, WorkChanged, WorkList


def ingest(
    context: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="UTF-8 texts, ingested in order; '-' is standard input.")
    ],
    corpus: Corpus = "main",
    max_axes: MaxAxes = None,
    max_side: MaxSide = None,
    max_cells: MaxCells = None,
    priority: Annotated[
        int | None,
        whole_number(
            "N", "Hurry the corpus along until they are searched; each step doubles its share.", least=0, most=3
        ),
    ] = None,
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until their orthos are found; Ctrl-C only stops waiting.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add texts to a deployment: they are in the database when this returns, and its workers do the rest.

    Needs CROCHET_DATABASE_URL, or an API (--url).
    """
    from crochet_tasks.cli import accepting
    from crochet_tasks.settings import Settings

    client = client_of(context)
    request = accepting.Request(files, corpus, limits_of(max_axes, max_side, max_cells), wait, priority or 0)
    if client is not None:
        from crochet_tasks.cli import remote_ingest

        ingested = remote_ingest.ingest_texts(client, Settings.load(), request, note)
    else:
        ingested = accepting.ingest_texts(Settings.load(), request, note)
    if as_json:
        print_json(ingested.report)
    else:
        _print_report(ingested.report)
    if ingested.error is not None:
        raise ingested.error
    if ingested.signal is not None:
        raise typer.Exit(128 + ingested.signal)


def _print_report(report: IngestReport) -> None:
    from crochet_tasks.terminal import drawing
    from crochet_tasks.terminal.numbers import counted, seconds

    for text in report.texts:
        print_line(f"{text.id}  seq {text.seq}  {text.state}  {text.source}")
    waited = report.waited
    if waited is not None:
        found = f"{counted(waited.total, 'ortho')}, {seconds(waited.seconds)}"
        drawing.console().print(drawing.text(f"corpus {report.corpus}, version {waited.version}: {found}"))
        if waited.open_work:
            drawing.console().print(drawing.text(f"{counted(waited.open_work, 'work item')} open"))


# ── work ────────────────────────────────────────────────────────────────────────────────────────


def smoke(
    context: typer.Context,
    seconds: Annotated[float, number("SECONDS", "How long it may take.", least=1)] = 60.0,
) -> None:
    """Check that a deployment does its whole job: post texts to its API, wait for their orthos, compare, clean up.

    Needs an API (--url) and a key that may read, write and delete corpora. Exit code 4 when something is wrong.
    """
    from crochet_tasks.cli import smoke as test

    client = client_of(context)
    if client is None:
        raise WrongCall(problem="name the API to check with --url or CROCHET_URL")
    test.smoke(client, seconds, print_line)


def seed(
    context: typer.Context,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="UTF-8 texts.")] = None,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the corpora that it has made.")] = False,
) -> None:
    """Give the tenant of the key sample texts, such as examples/*.txt, each as a corpus `sample-NAME`.

    Again, it changes nothing.

    Needs an API (--url) and a key that may write, and to remove them delete corpora.
    """
    from crochet_tasks.cli import seeding
    from crochet_tasks.intake import files as inputs
    from crochet_tasks.settings import Settings

    client = client_of(context)
    if client is None:
        raise WrongCall(problem="name the API of the deployment with --url or CROCHET_URL")
    if remove == bool(files):
        raise WrongCall(problem="name the texts, or give --remove")
    texts = inputs.read(files or [], Settings.load().max_text_bytes)
    for line in seeding.remove(client) if remove else seeding.seed(client, texts):
        print_line(line)


work = typer.Typer(no_args_is_help=True, help="See and change work items: list, show, cancel, retry, drop.")


class State(enum.StrEnum):
    """As operate.names.STATES, which `--help` must not wait for."""

    OPEN = "open"
    READY = "ready"
    HELD = "held"
    PUBLISHED = "published"
    WAITING = "waiting"
    PARKED = "parked"
    FAILED = "failed"
    DONE = "done"
    CANCELLED = "cancelled"
    DEAD = "dead"


class Kind(enum.StrEnum):
    """The kinds of work, stage by stage."""

    INGEST = "ingest"
    CONTEXT = "context"
    REMEDIATIONS = "remediations"
    SEARCH = "search"
    BEST = "best"


ID = "The beginning of a work id, 4 digits at least; or text-NUMBER, or dead-NUMBER."
Ids = Annotated[list[str], typer.Argument(metavar="ID", help=ID)]
NO_WORK = "No work is open, and none has failed; 'crochet status' shows what there is."
NO_SUCH_WORK = "There is no such work; without options 'crochet work list' shows all that is open or has failed."
OneCorpus = Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Only of this corpus.")]


@work.command("list")
def list_work(
    context: typer.Context,
    corpus: OneCorpus = None,
    state: Annotated[
        State | None,
        typer.Option("--state", help="Only this state; `open` is ready, held, published, waiting and parked."),
    ] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only this kind.")] = None,
    limit: Annotated[int, whole_number("N", "How many, at the most.", least=1)] = 50,
    *,
    as_json: Json = False,
) -> None:
    """List work: by default what is open or has failed, and dead letters."""
    from crochet_tasks.terminal import drawing
    from crochet_tasks.terminal import work as terminal

    found = _listed(context, corpus, state, kind, limit)
    if as_json:
        print_json(found)
    elif found.work:
        drawing.console().print(terminal.work_table(found.work))
    else:
        print_line(NO_SUCH_WORK if corpus or state or kind else NO_WORK)
    if found.more and not as_json:
        note(f"{found.more:,} more: see --limit")


def _listed(context: typer.Context, corpus: str | None, state: State | None, kind: Kind | None, limit: int) -> WorkList:
    if (client := client_of(context)) is not None:
        from crochet_tasks.cli import remote

        return remote.listed(client, corpus, state, kind, limit)
    from crochet_tasks.operate import inspection
    from crochet_tasks.schemas.reports import WorkList

    def listed(process: Process) -> WorkList:
        return inspection.listed(process, corpus=corpus, state=state, kind=kind, most=limit)

    return in_store(None, listed, WorkList(work=[], more=0))


@work.command(cls=Local)
def show(name: Annotated[str, typer.Argument(metavar="ID", help=ID)], *, as_json: Json = False) -> None:
    """Show everything about a work item, a text or a dead letter: tries, errors, when it is published next."""
    from crochet_tasks.operate import inspection
    from crochet_tasks.terminal import drawing
    from crochet_tasks.terminal import work as terminal

    found = in_store(None, lambda process: inspection.details(process, name), WorkUnknown(work=name))
    if as_json:
        print_json(found)
    else:
        drawing.console().print(terminal.work_page(found))


@work.command()
def cancel(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="ID", help=ID)] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All open work of a corpus: with --corpus.")] = False,
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="With --all: of this corpus.")] = None,
    as_json: Json = False,
) -> None:
    """Cancel texts that are no version yet, and searches; `work retry` opens them again.

    What was ingested of a text is deleted. Without its searches a corpus is incomplete. An API (--url) takes whole ids,
    one after the other.
    """
    from crochet_tasks.operate import cancelling

    if bool(names) == everything or everything == (corpus is None):
        raise WrongCall(problem="give IDs, or --all with --corpus")
    client = client_of(context)
    if names and client is not None:
        from crochet_tasks.cli import remote

        _show_changed(remote.cancel(client, names), as_json=as_json)
    elif names:
        entry = _entry("work.cancelled", work=names)
        _change(lambda process: cancelling.cancel(process, names, entry), names, as_json=as_json, publishes=True)
    else:
        assert corpus is not None
        entry = _entry("work.cancelled", work="all", corpus=corpus)
        _show_cancelled(
            client.cancel_all_work(corpus)
            if client is not None
            else in_store(
                None,
                lambda process: cancelling.cancel_all(process, corpus, entry=entry),
                CorpusUnknown(corpus=corpus, known="none"),
            ),
            as_json=as_json,
        )


def _show_cancelled(done: AllCancelled, *, as_json: bool) -> None:
    from crochet_tasks.terminal.numbers import counted

    if as_json:
        print_json(done)
        return
    what = counted(done.texts, "text"), counted(done.work, "work item"), f"{done.best:,} searches for the best"
    print_line(f"{done.corpus}: {', '.join(what)} cancelled")
    for each in done.notes:
        note(each)


@work.command()
def retry(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="ID", help=ID)] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that has failed.")] = False,
    dropped: Annotated[bool, typer.Option("--dropped", help="With --all: what was dropped or cancelled, too.")] = False,
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="With --all: only of this corpus.")] = None,
    as_json: Json = False,
) -> None:
    """Retry failed or dropped work; a text is accepted again, after all others.

    An API (--url) takes whole ids, one after the other.
    """
    from crochet_tasks.operate import actions

    if bool(names) == everything or (names and (dropped or corpus)):
        raise WrongCall(problem="give IDs, or --all, perhaps with --dropped and --corpus")
    if (client := client_of(context)) is not None:
        from crochet_tasks.cli import remote

        if dropped:
            if corpus is None:
                raise WrongCall(problem="an API opens dropped work of one corpus: give --corpus")
            print_line(f"{client.retry_all_work(corpus).retried:,} open again")
            return
        made = remote.retry(client, names) if names else remote.retry_all(client, corpus)
        _show_changed(made, as_json=as_json)
        return

    def again(process: Process) -> WorkChanged:
        if names:
            return actions.retry(process, names, _entry("work.retried", work=names))
        entry = _entry("work.retried", work="all", corpus=corpus, dropped=dropped)
        return actions.retry_all(process, corpus, dropped=dropped, entry=entry)

    _change(again, names or [], as_json=as_json, publishes=True)


@work.command(cls=Local)
def drop(names: Ids, *, as_json: Json = False) -> None:
    """Drop failed work, or delete a dead letter.

    Without its searches a corpus is incomplete; a search for the best stops.
    """
    from crochet_tasks.operate import actions

    entry = _entry("work.dropped", work=names)
    _change(lambda process: actions.drop(process, names, entry), names, as_json=as_json, publishes=False)


def _entry(what: str, **details: object) -> Entry:
    """A line of the security log; whose command it was is the user of the database."""
    from crochet_tasks.db.access import Entry

    return Entry(what, details={name: value for name, value in details.items() if value})


def _change(step: Callable[[Process], WorkChanged], names: list[str], *, as_json: bool, publishes: bool) -> None:
    """Make a change and print it; its follow-up work is published once it is committed."""
    from crochet_tasks.cli import accepting
    from crochet_tasks.schemas.reports import WorkChanged

    def changed(process: Process) -> WorkChanged:
        made = step(process)
        if publishes and made.changed and process.settings.database_url is not None:
            accepting.publish(None, note)
        return made

    done = in_store(None, changed, WorkUnknown(work=names[0]) if names else WorkChanged(changed=[], notes=[]))
    _show_changed(done, as_json=as_json)


def _show_changed(done: WorkChanged, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
    else:
        for line in done.changed:
            print_line(f"{line.id}  {line.kind}  {line.state}  {line.about}")
    for each in done.notes:
        note(each)
