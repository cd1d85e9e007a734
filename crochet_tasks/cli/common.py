"""What commands share: options, settings, output. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from crochet_tasks.errors import CrochetError, InvalidSetting, NotRemote, WrongCall, values
from crochet_tasks.terminal.streams import note, plain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crochet_tasks.client import Client
    from crochet_tasks.db.process import Process
    from crochet_tasks.settings import Settings


class Orthos(NamedTuple):
    """The value of --budget; None: all."""

    most: int | None


def _folder(value: str) -> Path:
    if not value:
        raise typer.BadParameter("it is empty; name a folder")
    return Path(value)


def _budget(value: str) -> Orthos:
    most = values.budget(value)
    return Orthos(None if most == "all" else most)


Number = TypeVar("Number", int, float)


def _number(read: Callable[[str], Number], least: float | None, most: float | None) -> Callable[[object], Number]:
    def parse(value: object) -> Number:
        number = read(str(value))
        if least is not None and number < least:
            raise ValueError(values.problem("greater_than_equal", {"ge": least}))
        if most is not None and number > most:
            raise ValueError(values.problem("less_than_equal", {"le": most}))
        return number

    return parse


def whole_number(metavar: str, about: str, *, least: int | None = None, most: int | None = None) -> Any:
    """An option that takes a whole number in plain digits; the limits are included."""
    return typer.Option(metavar=metavar, parser=_number(values.whole, least, most), help=about)


def number(metavar: str, about: str, *, least: float | None = None, most: float | None = None) -> Any:
    """As `whole_number`, with or without a fraction."""
    return typer.Option(metavar=metavar, parser=_number(values.decimal, least, most), help=about)


_STATE = typer.Option(
    "--state",
    metavar="DIR",
    parser=_folder,
    help="Folder of the private database; by default in your user data folder.",
)
_CORPUS = typer.Option("--corpus", metavar="NAME", help="Which corpus.")
_JSON = typer.Option("--json", help="Print one JSON object on standard output.")

State = Annotated[Path | None, _STATE]
Corpus = Annotated[str, _CORPUS]
Json = Annotated[bool, _JSON]
MaxAxes = Annotated[int | None, whole_number("N", "Most axes of an ortho (a new corpus: 3).")]
MaxSide = Annotated[int | None, whole_number("N", "Longest axis (a new corpus: 8).")]
MaxCells = Annotated[int | None, whole_number("N", "Most cells (a new corpus: 64).")]
Budget = Annotated[
    Orthos | None,
    typer.Option(
        metavar="N|all", parser=_budget, help="Begin no more searches once N orthos are stored; `all`: find all."
    ),
]
Answer = TypeVar("Answer")


def state_option(state: Path | None) -> dict[str, object]:
    return {} if state is None else {"state_dir": state}


def settings_of(state: Path | None) -> Settings:
    from crochet_tasks.settings import Settings

    settings = Settings.load(**state_option(state))
    if state is not None and settings.database_url is not None:
        note("CROCHET_DATABASE_URL is set, so --state is not used")
    return settings


def in_store(state: Path | None, step: Callable[[Process], Answer], nothing: Answer | CrochetError) -> Answer:
    """Run a step on the store. Where there is none, none is made: `nothing` is returned, or raised."""
    from crochet_tasks.embedded import store

    settings = settings_of(state)
    if not store.exists(settings):
        if isinstance(nothing, CrochetError):
            raise nothing
        return nothing
    with store.joined(settings) as process:
        return step(process)


def limits_of(max_axes: int | None, max_side: int | None, max_cells: int | None) -> dict[str, int]:
    """The limits that options give."""
    options = {"max_axes": max_axes, "max_side": max_side, "max_cells": max_cells}
    return {name: limit for name, limit in options.items() if limit is not None}


# ── an API instead of this machine ──────────────────────────────────────────────────────────────


def client_of(context: typer.Context, state: Path | None = None) -> Client | None:
    """A client of the API that --url or CROCHET_URL names, for as long as the command runs; None where none does."""
    if not _is_remote(context):
        return None
    if state is not None:
        raise WrongCall(problem="--state is a folder of this machine: with --url or CROCHET_URL it has no meaning")
    from crochet_tasks.client import Client
    from crochet_tasks.settings import Settings

    options: dict[str, object] = context.find_root().obj
    if {"key", "key_file"} <= options.keys():
        raise WrongCall(problem="give --key or --key-file, not both")
    settings = Settings.load(**options)
    if settings.url is None:
        raise WrongCall(problem="--key and --key-file go with --url or CROCHET_URL")
    client = Client(settings.url, _key(settings, options), plain_http=settings.plain_http)
    context.call_on_close(client.close)
    return client


def _is_remote(context: typer.Context) -> bool:
    """An option says so without reading the settings; else the environment or the settings file does."""
    if context.find_root().obj:
        return True
    from crochet_tasks.settings import is_set

    return is_set("url")


def _key(settings: Settings, options: Mapping[str, object]) -> str | None:
    """Options win over the environment, and a key over a file with one."""
    if settings.key is not None and "key_file" not in options:
        return settings.key.get_secret_value()
    if settings.key_file is None:
        return None
    try:
        return settings.key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        problem = f"it cannot be read: {reason or 'it is no text'}"
        raise InvalidSetting(variable="CROCHET_KEY_FILE", problem=problem) from None


class Local(TyperCommand):
    """A command that works on this machine only: it refuses to where an API is named."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # it is one
        _refuse(ctx)
        return super().invoke(ctx)


class LocalGroup(TyperGroup):
    """As Local, for a group of commands."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        _refuse(ctx)
        return super().invoke(ctx)


def _refuse(context: typer.Context) -> None:
    if _is_remote(context):
        raise NotRemote(command=context.command_path.removeprefix("crochet "))


# ── output ──────────────────────────────────────────────────────────────────────────────────────


def print_line(line: str) -> None:
    """A line of output; what would do something to a terminal is escaped."""
    sys.stdout.write(f"{plain(line)}\n")


def print_json(answer: BaseModel) -> None:
    """One line, at once; escaped as JSON escapes what would do something to a terminal."""
    sys.stdout.write(f"{plain(answer.model_dump_json())}\n")
    sys.stdout.flush()


def print_bytes(parts: Iterable[bytes]) -> None:
    """An export, as it is; in a terminal as `print_line`, line by line."""
    escape = sys.stdout.isatty()
    with contextlib.ExitStack() as stack:
        if isinstance(parts, Generator):  # it reads from the store, which is open now and not when it is collected
            stack.callback(parts.close)
        for part in parts:
            sys.stdout.buffer.write(plain(part.decode(errors="replace"), keep="\n").encode() if escape else part)
