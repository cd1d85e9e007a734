"""The command line. Nothing heavy is imported before a command needs it: `crochet --help` is there at once."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.errors import CorpusUnknown, CrochetError, OutputFailed, StoreCorrupt

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crochet_tasks.running import Finished
    from crochet_tasks.settings import Settings

app = typer.Typer(
    name="crochet",
    help="Finds every box of words in a text whose lines, along every axis, are phrases of that text.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input, 4 a service that is needed does not answer.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_STATE = typer.Option(
    "--state", metavar="DIR", help="Folder of the private database; by default in your user data folder."
)
_CORPUS = typer.Option("--corpus", metavar="NAME", help="Which corpus.")
_JSON = typer.Option("--json", help="Print one JSON object on standard output.")

State = Annotated[Path | None, _STATE]
Corpus = Annotated[str, _CORPUS]
Json = Annotated[bool, _JSON]


class Format(enum.StrEnum):
    """As reports.Format, which `--help` does not wait for."""

    JSONL = "jsonl"
    CSV = "csv"
    TEXT = "text"


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"crochet {version('crochet-tasks')}")
        except PackageNotFoundError:
            typer.echo("crochet, not installed")
        raise typer.Exit


@app.callback()
def options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # --debug stands here for --help; `main` takes it out of the arguments, wherever it is.
    pass


# ── commands ────────────────────────────────────────────────────────────────────────────────────


@app.command()
def run(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="UTF-8 texts, ingested in order; '-' is standard input. Without any, open work goes on.",
        ),
    ] = None,
    state: State = None,
    corpus: Corpus = "main",
    max_axes: Annotated[int | None, typer.Option(metavar="N", help="Most axes of an ortho (a new corpus: 3).")] = None,
    max_side: Annotated[int | None, typer.Option(metavar="N", help="Longest axis (a new corpus: 8).")] = None,
    max_cells: Annotated[int | None, typer.Option(metavar="N", help="Most cells (a new corpus: 64).")] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Take up no more work once N orthos are stored.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Ingest texts, find every ortho in them, and show the best.

    Run again with another text, it continues. Ctrl-C stops it cleanly; the next run goes on.

    Limits belong to a corpus from its creation.
    """
    from crochet_tasks import running

    limits = {"max_axes": max_axes, "max_side": max_side, "max_cells": max_cells}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    finished = running.run(_settings(state), running.Request(files or [], corpus, given, budget))
    with _output():
        if as_json:
            _print_json(finished.report)
        else:
            _print_report(finished)
    if finished.error is not None:
        raise finished.error
    if finished.signal is not None:
        raise typer.Exit(128 + finished.signal)


@app.command()
def export(
    state: State = None,
    corpus: Corpus = "main",
    shape: Annotated[str | None, typer.Option(metavar="SHAPE", help="Only this shape, such as 2x3.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write them.")] = Format.JSONL,
) -> None:
    """Write every ortho of a corpus to standard output, best volume first."""
    from crochet_tasks import embedded, reports

    only = None if shape is None else reports.sides_of(shape)
    settings = _looked_into(state, corpus)
    with embedded.opened(settings) as process, _output():
        for part in reports.export(process, corpus, reports.Format(form), only):
            sys.stdout.buffer.write(part)


@app.command()
def verify(
    state: State = None,
    corpus: Corpus = "main",
    *,
    closure: Annotated[bool, typer.Option("--closure", help="Search everything again, too, and compare.")] = False,
) -> None:
    """Check every stored ortho, and what goes with it, against its definition."""
    from crochet_tasks import embedded
    from crochet_tasks.db import corpora
    from crochet_tasks.verify import verify as problems_of

    settings = _looked_into(state, corpus)
    with embedded.opened(settings) as process:
        with process.database.transaction() as connection:
            named = corpora.named(connection, corpus)
        problems = problems_of(process, named, closure=closure, progress=_say)
    with _output():
        for problem in problems:
            typer.echo(problem)
        if not problems:
            typer.echo(f"corpus '{corpus}': no problems")
    if problems:
        more = f" (and {len(problems) - 1} more, listed above)" if len(problems) > 1 else ""
        raise StoreCorrupt(problem=f"{problems[0]}{more}")


@app.command()
def migrate(state: State = None) -> None:
    """Make the schema in the database, or bring it up to date."""
    from crochet_tasks import embedded
    from crochet_tasks.db import schema

    with embedded.connected(_settings(state)) as process:
        before, after = schema.migrate(process.database)
    with _output():
        typer.echo(f"schema: {before or 'none'} -> {after}{' (nothing to do)' if before == after else ''}")


@app.command()
def status(state: State = None, *, as_json: Json = False) -> None:
    """Show what there is: corpora, their texts, orthos and open work."""
    from crochet_tasks import drawing, embedded, reports

    settings = _settings(state)
    found = reports.nothing_yet()
    if embedded.store_exists(settings):
        with embedded.opened(settings) as process:
            found = reports.status(process)
    with _output():
        if as_json:
            _print_json(found)
        else:
            drawing.console().print(drawing.status_page(found))


@app.command()
def doctor(state: State = None) -> None:
    """Check configuration, paths and database, and say what to do. Exit code 4 when something is wrong."""
    from crochet_tasks import doctor as looks

    well = True
    with _output():
        for check in looks.checks(**_given(state)):
            well = well and check.well
            advice = f"  ->  {check.advice}" if check.advice else ""
            typer.echo(f"{'ok   ' if check.well else 'WRONG'}  {check.name}: {check.found}{advice}")
            sys.stdout.flush()
    if not well:
        raise typer.Exit(4)


# ── what they share ─────────────────────────────────────────────────────────────────────────────


def _given(state: Path | None) -> dict[str, object]:
    return {} if state is None else {"state_dir": state}


def _settings(state: Path | None) -> Settings:
    from crochet_tasks.settings import Settings

    settings = Settings.load(**_given(state))
    if state is not None and settings.database_url is not None:
        _say("CROCHET_DATABASE_URL is set, so --state is not used")
    return settings


def _looked_into(state: Path | None, corpus: str) -> Settings:
    """The settings for a command that only reads: it does not make a store to find out that it is empty."""
    from crochet_tasks import embedded

    settings = _settings(state)
    if not embedded.store_exists(settings):
        raise CorpusUnknown(corpus=corpus, known="none")
    return settings


def _say(line: str) -> None:
    """A note beside the output."""
    sys.stderr.write(f"crochet: {line}\n")


def _print_json(answer: BaseModel) -> None:
    sys.stdout.buffer.write(answer.model_dump_json().encode() + b"\n")


def _print_report(finished: Finished) -> None:
    from crochet_tasks import drawing

    report = finished.report
    out = drawing.console()
    if report.best:
        out.print(drawing.gallery([(best.shape, best.words) for best in report.best]))
        out.print(drawing.shapes_table(report.orthos))
    words = f"{report.total:,} orthos of {report.texts} text{'s' * (report.texts != 1)}"
    out.print(drawing.text(f"corpus {report.corpus}, version {report.version}: {words}, {report.seconds:.1f} s"))
    if report.open_work:
        why = {
            "budget": "the budget is reached",
            "stopped": "stopped",
            "elsewhere": "another process is at work",
        }.get(report.ended, "not done")
        open_work = f"{report.open_work:,} pieces of work are open"
        out.print(drawing.text(f"{why}: {open_work}; 'crochet run' goes on with them"))


@contextlib.contextmanager
def _output() -> Iterator[None]:
    """Writing to standard output: when nobody reads on, that is no error; when it cannot be written, it is."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
        raise typer.Exit(0) from None
    except OSError as error:
        _close_output()
        raise OutputFailed(reason=error.strerror or str(error)) from error


def _close_output() -> None:
    """Let what is still buffered go nowhere, else the interpreter complains at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# ── errors and exit codes ───────────────────────────────────────────────────────────────────────


def main() -> None:
    """Entry point of the console script."""
    arguments, debug = _without_debug(sys.argv[1:])
    # What a terminal's encoding lacks is shown escaped; exports and JSON are UTF-8 whatever it is.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(_outcome(arguments, debug=debug))


def _terminated(number: int, _frame: object) -> None:
    """End as after an error: the private server is stopped."""
    raise SystemExit(128 + number)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, and whether it was among them; what follows '--' is none of ours."""
    ours = arguments.index("--") if "--" in arguments else len(arguments)
    left = [argument for argument in arguments[:ours] if argument != "--debug"]
    return left + arguments[ours:], len(left) < ours


def _outcome(arguments: list[str], *, debug: bool) -> int:
    """Run the command; its exit code."""
    try:
        return int(app(arguments, prog_name="crochet", standalone_mode=False) or 0)
    except typer.TyperException as error:  # usage errors: all that Typer itself raises
        message = " ".join(error.format_message().split())
        return _failed(error, message or "say what to do; see 'crochet --help'", "usage", 2, debug=debug)
    except CrochetError as error:
        return _failed(error, str(error), error.code, error.exit_code, debug=debug)
    except Exception as error:  # noqa: BLE001 - the last resort: a bug
        what = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        message = f"internal error, please report it: {what}{'' if debug else ' (--debug shows more)'}"
        return _failed(error, message, "internal", 1, debug=debug)


def _failed(error: BaseException, message: str, code: str, exit_code: int, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    line = message.replace("\n", " ")
    sys.stderr.write(f"crochet: {line} [{code}]\n")
    return exit_code


if __name__ == "__main__":
    main()
