"""Commands that make backups of a store and restore them."""

from __future__ import annotations

import datetime as dt
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import Json, State, number, print_json, print_line, settings_of, whole_number
from crochet_tasks.errors import BackupOld, CrochetError, StoreUnknown, WrongCall
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from pyrage.x25519 import Recipient

    from crochet_tasks.recovery import Place
    from crochet_tasks.schemas.recovery import Manifest

RETRY_SECONDS = 300.0
"""after which a backup that failed is tried again, with --every"""
PLACE = "A folder, or an address such as s3://BUCKET/FOLDER."


def _place(value: str) -> str:
    if not value.strip():
        raise typer.BadParameter("it is empty; name a folder or an address")
    return value


_Place = Annotated[str, typer.Argument(metavar="PLACE", parser=_place, help=PLACE)]


def backup(
    place: _Place,
    state: State = None,
    recipient: Annotated[
        str | None, typer.Option(metavar="KEY", help="Encrypt it for this public key (age1…) of `age-keygen`.")
    ] = None,
    keep: Annotated[
        int | None, whole_number("N", "Afterwards remove all complete backups but the newest N.", least=1)
    ] = None,
    every: Annotated[
        float | None, number("SECONDS", "Make one whenever the newest is so old, until stopped.", least=1)
    ] = None,
    *,
    shown: Annotated[bool, typer.Option("--list", help="Show the complete backups there; make none.")] = False,
    max_age: Annotated[
        float | None, number("SECONDS", "With --list: exit code 4 where the newest is older than that.", least=1)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a backup of everything in the database, as it is at one moment, while all services go on.

    A store in a state folder can be in use by another crochet. See docs/recovery.md.
    """
    from crochet_tasks import recovery
    from crochet_tasks.recovery import encryption

    if shown and (recipient, keep, every) != (None, None, None):
        raise WrongCall(problem="--list makes no backup: --recipient, --keep and --every have no meaning with it")
    os.umask(0o077)  # it holds what the database holds: only its owner may read it
    at = recovery.Place(place)
    if shown:
        _list(at, max_age, as_json=as_json)
        return
    if max_age is not None:
        raise WrongCall(problem="--max-age goes with --list")
    to = None if recipient is None else encryption.recipient(recipient)
    if every is not None:
        _wait_until_due(at, every)
    while True:
        pause = every
        try:
            manifest = _backup(at, state, to)
        except CrochetError as error:
            if every is None:
                raise
            note(f"no backup was made: {error}")
            pause = min(every, RETRY_SECONDS)
        else:
            _show(manifest, as_json=as_json)
            _remove_old(at, keep, go_on=every is not None)
        if pause is None:
            return
        threading.Event().wait(pause)


def restore(
    place: _Place,
    state: State = None,
    name: Annotated[
        str | None, typer.Option("--backup", metavar="NAME", help="Which one, by its name in --list (the newest).")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file of `age-keygen` with the key it is encrypted for.")
    ] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Only read it and compare its checksum.")] = False,
    as_json: Json = False,
) -> None:
    """Restore a backup into an empty database, or a new state folder: all of it, or nothing.

    No service may use the database meanwhile. Open work goes on when services start.
    """
    from crochet_tasks import recovery
    from crochet_tasks.embedded import store
    from crochet_tasks.recovery import encryption

    at = recovery.Place(place)
    keys = None if identity is None else encryption.identities(identity)
    if check:
        manifest = recovery.check(at, name)
    else:
        recovery.chosen(at, name)  # before a server is started, or a state folder made
        with store.connected(settings_of(state)) as process:
            manifest = recovery.restore(process.database, at, name, keys)
    if as_json:
        print_json(manifest)
    else:
        print_line(f"{'intact' if check else 'restored'}: {_line(manifest)}")


def _wait_until_due(at: Place, every: float) -> None:
    from crochet_tasks import recovery
    from crochet_tasks.terminal.numbers import seconds

    try:
        pause = recovery.due_in(at, every)
    except CrochetError:  # making one says what is wrong there, and is tried again
        return
    if pause > 0:
        note(f"the newest backup is young enough: the next is made in {seconds(pause)}")
        threading.Event().wait(pause)


def _list(at: Place, max_age: float | None, *, as_json: bool) -> None:
    from crochet_tasks import recovery
    from crochet_tasks.schemas.recovery import Backups

    found, damaged = recovery.read_all(at)
    for error in damaged:
        note(str(error))
    if max_age is not None:
        _check_age(at, found, max_age)
    if as_json:
        print_json(Backups(backups=found))
    for manifest in [] if as_json else found:
        print_line(_line(manifest))


def _backup(at: Place, state: Path | None, to: Recipient | None) -> Manifest:
    from crochet_tasks import recovery
    from crochet_tasks.embedded import store

    settings = settings_of(state)
    if not store.exists(settings):
        raise StoreUnknown(folder=settings.state_dir)
    with store.joined(settings) as process:
        return recovery.backup(process.database, at, to)


def _show(manifest: Manifest, *, as_json: bool) -> None:
    if as_json:
        print_json(manifest)
    else:
        print_line(_line(manifest))


def _remove_old(at: Place, keep: int | None, *, go_on: bool) -> None:
    """`go_on`: say an error and go on. The backup was made: making another one at once would only fill the disk."""
    from crochet_tasks import recovery

    try:
        for name in [] if keep is None else recovery.remove_old(at, keep):
            note(f"removed backup {name}")
    except CrochetError as error:
        if not go_on:
            raise
        note(f"old backups were not removed: {error}")


def _check_age(at: Place, found: list[Manifest], most: float) -> None:
    from crochet_tasks import recovery
    from crochet_tasks.terminal.numbers import seconds

    if not found:
        raise recovery.unknown(at)
    age = (dt.datetime.now(dt.UTC) - found[-1].began_at).total_seconds()
    if age > most:
        raise BackupOld(place=at.address, age=seconds(age), most=seconds(most))


def _line(manifest: Manifest) -> str:
    from crochet_tasks.terminal.numbers import counted, size

    orthos, texts = sum(each.orthos for each in manifest.corpora), sum(each.texts for each in manifest.corpora)
    corpora = counted(len(manifest.corpora), "corpus", "corpora")
    sealed = ", encrypted" if manifest.dump.encrypted else ""
    return (
        f"{manifest.name}  {size(manifest.dump.bytes)}{sealed}: {corpora}, {counted(texts, 'text')}, "
        f"{counted(orthos, 'ortho')}"
    )
