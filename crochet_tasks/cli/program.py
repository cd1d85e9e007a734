"""The command line. Nothing heavy is imported before a command needs it: `crochet --help` starts fast."""

from __future__ import annotations

import errno
import gc
import getpass
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from crochet_tasks.cli import archives, audit, best, corpora, keys, operate, recovery, services, store, tenants
from crochet_tasks.cli.common import Local, LocalGroup
from crochet_tasks.errors import CrochetError, OpenFilesLimited
from crochet_tasks.schemas.acting import acting
from crochet_tasks.terminal import streams

app = typer.Typer(
    name="crochet",
    help="Finds every box of words in a text whose lines, along every axis, are phrases of that text.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 bad input, 4 a service that is needed does not answer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:  # noqa: FBT001 - Typer calls it
    if requested:
        from crochet_tasks.settings import version

        typer.echo(f"crochet {version()}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Work on the API at this address, not on this machine; or CROCHET_URL."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="The API key; a list of processes (ps) shows it: better CROCHET_KEY."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="A file that holds the key; or CROCHET_KEY_FILE.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # --debug is declared for --help; `main` removes it from the arguments. --version has its callback.
    del debug, version
    options = {"url": url, "key": key, "key_file": key_file}
    context.obj = {name: value for name, value in options.items() if value is not None}


for command in (
    *(store.run, best.best, store.estimate, store.export, store.verify, store.status, store.migrate, store.roles),
    store.doctor,
    store.settings,
):
    kind = None if command in (best.best, store.export, store.status, store.settings) else Local
    app.command(rich_help_panel="Store", cls=kind)(command)
app.command(rich_help_panel="Store", cls=Local)(services.view)
app.command(rich_help_panel="Operate")(operate.ingest)
app.command(rich_help_panel="Operate")(operate.smoke)
app.command(rich_help_panel="Operate")(operate.seed)
app.command(rich_help_panel="Operate", cls=Local)(recovery.backup)
app.command(rich_help_panel="Operate", cls=Local)(recovery.restore)
app.command(rich_help_panel="Operate", cls=Local)(archives.archive)
app.command("import", rich_help_panel="Operate", cls=Local)(archives.import_archive)
app.command(rich_help_panel="Operate", cls=Local)(archives.merge)
app.command(rich_help_panel="Operate")(audit.audit)
app.add_typer(operate.work, name="work", rich_help_panel="Operate")
app.add_typer(keys.keys, name="keys", rich_help_panel="Operate", cls=LocalGroup)
app.add_typer(tenants.tenants, name="tenants", rich_help_panel="Operate", cls=LocalGroup)
app.add_typer(corpora.corpora, name="corpora", rich_help_panel="Operate")
for service in (services.up, services.worker, services.relay, services.api, services.flower, services.health):
    app.command(rich_help_panel="Services", cls=Local)(service)


# ── errors and exit codes ───────────────────────────────────────────────────────────────────────


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(*COLLECT)
    arguments, debug = _without_debug(sys.argv[1:])
    streams.prepare()
    signal.signal(signal.SIGTERM, _terminated)
    command = next((each for each in arguments if not each.startswith("-")), "")
    if command not in SERVICES:
        acting.set({"via": "command", "user": _user(), "host": socket.gethostname(), "command": command})
    sys.exit(outcome(arguments, debug=debug))


COLLECT = (50_000, 20, 20)
"""Thresholds of Python's garbage collector while a command starts. With its own it takes up to a quarter of that: it
looks again and again through what was imported, which is no garbage. Workers, relays and the API set others then."""
SERVICES = ("api", "flower", "relay", "up", "view", "worker")
"""whose changes are not those of who started them"""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a number without a name, in a container
        return str(os.getuid())


def _terminated(number: int, _frame: object) -> None:
    """End as after an error: the private server is stopped."""
    raise SystemExit(128 + number)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, and whether it was among them; what follows '--' belongs to Celery."""
    ours = arguments.index("--") if "--" in arguments else len(arguments)
    left = [argument for argument in arguments[:ours] if argument != "--debug"]
    return left + arguments[ours:], len(left) < ours


def outcome(arguments: list[str], *, debug: bool) -> int:
    """Run the command, and write all of its output; its exit code."""
    try:
        code = int(app(arguments, prog_name="crochet", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except typer.TyperException as error:  # usage errors: all that Typer itself raises
        if (words := _wrong_value(error)) is not None:
            error.message = words
        message = " ".join(error.format_message().split())
        return _failed(error, message or "say what to do; see 'crochet --help'", "usage", 2, debug=debug)
    except Exception as error:  # noqa: BLE001 - the last resort: a bug
        ours = OpenFilesLimited() if _limited_files(error) else error
        if isinstance(ours, CrochetError):
            return _failed(error, str(ours), ours.code, ours.exit_code, debug=debug)
        what = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        message = f"internal error, please report it: {what}{'' if debug else ' (--debug shows more)'}"
        return _failed(error, message, "internal", 1, debug=debug)


def _wrong_value(error: typer.TyperException) -> str | None:
    """What is wrong with the value of an option, in our words: Typer passes on pydantic's."""
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return None
    from crochet_tasks.errors import values

    detail = details(include_input=False, include_url=False)[0]
    return values.problem(detail["type"], detail.get("ctx", {}))


def _limited_files(error: BaseException | None) -> bool:
    """Whether the limit of open files is the cause, whatever it was wrapped in; libpq says it in words alone."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:  # an error that was raised again may stand in its own chain
        chain.append(error)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        if f"could not create socket: {os.strerror(errno.EMFILE)}" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _failed(error: BaseException, message: str, code: str, exit_code: int, *, debug: bool) -> int:
    if debug:
        import traceback

        sys.stderr.write(streams.plain("".join(traceback.format_exception(error)), keep="\n"))
    if getattr(sys.stderr, "logs", False):  # a service has begun to log: the reason belongs there
        logging.getLogger(__name__).error("command_failed", extra={"error": message, "code": code})
    else:
        streams.note(f"{message.replace(chr(10), ' ')} [{code}]")
    return exit_code
