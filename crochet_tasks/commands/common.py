"""What commands share: options, settings, output. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.errors import CorpusUnknown, OutputFailed

if TYPE_CHECKING:
    from pydantic import BaseModel

    from crochet_tasks.settings import Settings

_STATE = typer.Option(
    "--state", metavar="DIR", help="Folder of the private database; by default in your user data folder."
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
    from crochet_tasks import embedded

    settings = settings_of(state)
    if not embedded.store_exists(settings):
        raise CorpusUnknown(corpus=corpus, known="none")
    return settings


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
