"""What commands share: options, settings, output. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from crochet_tasks.errors import CorpusUnknown, InvalidSetting, NotRemote, OutputFailed, WrongCall

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crochet_tasks.client import Client
    from crochet_tasks.settings import Settings


def _folder(value: str) -> Path:
    if not value:
        raise typer.BadParameter("it is empty; name a folder")
    return Path(value)


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


def given(state: Path | None) -> dict[str, object]:
    return {} if state is None else {"state_dir": state}


def settings_of(state: Path | None) -> Settings:
    from crochet_tasks.settings import Settings

    settings = Settings.load(**given(state))
    if state is not None and settings.database_url is not None:
        say("CROCHET_DATABASE_URL is set, so --state is not used")
    return settings


def looked_into(state: Path | None, corpus: str) -> Settings:
    """The settings for a command that only reads: it does not make a store to find out that it is empty."""
    from crochet_tasks.embedded import pipeline

    settings = settings_of(state)
    if not pipeline.store_exists(settings):
        raise CorpusUnknown(corpus=corpus, known="none")
    return settings


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
    """By an option, of which nothing else need be known, or by the environment."""
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


def say(line: str) -> None:
    """A note beside the output."""
    sys.stderr.write(f"crochet: {line}\n")


def print_json(answer: BaseModel) -> None:
    sys.stdout.buffer.write(answer.model_dump_json().encode() + b"\n")


@contextlib.contextmanager
def output() -> Iterator[None]:
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
