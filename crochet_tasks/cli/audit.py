"""`crochet audit`: who changed what, when and from where."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import Json, State, client_of, in_store, print_json, print_line, whole_number

if TYPE_CHECKING:
    from crochet_tasks.db.audit import AuditFilter
    from crochet_tasks.db.process import Process
    from crochet_tasks.schemas.reports import AuditLine


def audit(
    context: typer.Context,
    state: State = None,
    corpus: Annotated[str | None, typer.Option("--corpus", metavar="NAME", help="Only of this corpus.")] = None,
    by: Annotated[str | None, typer.Option(metavar="WHO", help="Only by this key or user of a command line.")] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="WHAT", help="Only about this: 'text 7', 'work ID', 'key PREFIX'.")
    ] = None,
    about: Annotated[str | None, typer.Option(metavar="WHAT", help="Only what begins so: work, corpus.paused.")] = None,
    since: Annotated[dt.datetime | None, typer.Option(metavar="TIME", help="Only from then on, in UTC.")] = None,
    until: Annotated[dt.datetime | None, typer.Option(metavar="TIME", help="Only before then, in UTC.")] = None,
    limit: Annotated[int, whole_number("N", "The newest N changes.", least=1)] = 100,
    *,
    as_json: Json = False,
) -> None:
    """Show who changed texts, work, corpora, keys and tenants, when and from where, newest first.

    With --json, one JSON object per line. 'crochet verify' checks that nothing of it was changed.
    """
    moments = [None if each is None else each.replace(tzinfo=dt.UTC) for each in (since, until)]
    if (client := client_of(context, state)) is not None:
        for number, line in enumerate(
            client.audit(
                corpus=corpus,
                by=by,
                subject=subject,
                what=about,
                since=None if moments[0] is None else moments[0].isoformat(),
                until=None if moments[1] is None else moments[1].isoformat(),
            ),
            1,
        ):
            _show(line, as_json=as_json)
            if number == limit:
                return
        return
    from crochet_tasks.db.audit import AuditFilter

    which = AuditFilter(None, corpus, by, subject, about, since=moments[0], until=moments[1])
    in_store(state, lambda process: _print(process, which, limit, as_json=as_json), None)


def _print(process: Process, which: AuditFilter, limit: int, *, as_json: bool) -> None:
    from crochet_tasks.db import audit as rows

    begin: int | None = None
    while limit:
        with process.database.snapshot() as connection:
            lines, begin = rows.page(connection, which, begin, min(limit, 1000))
        for line in lines:
            _show(line, as_json=as_json)
        limit -= len(lines)
        if begin is None:
            return


def _show(line: AuditLine, *, as_json: bool) -> None:
    """Values that came with requests are quoted and escaped as JSON."""
    if as_json:
        print_json(line)
        return
    who = line.by or {}
    actor = who.get("key") or who.get("user") or who.get("program") or "pipeline"
    facts = {
        "address": who.get("address"),
        "request": who.get("request"),
        "before": line.before,
        "after": line.after,
    }
    about = " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items() if value is not None)
    where = line.corpus or line.tenant or "-"
    print_line(f"{line.at:%Y-%m-%d %H:%M:%S}  {line.what}  {line.subject}  {where}  {json.dumps(actor)}  {about}")
