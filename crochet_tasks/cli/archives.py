"""Commands that write a corpus as one file, check such a file, and import it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crochet_tasks.cli.common import Budget, Json, State, in_store, number, print_json, print_line, settings_of
from crochet_tasks.errors import CorpusUnknown, WrongCall
from crochet_tasks.terminal.streams import note

if TYPE_CHECKING:
    from crochet_tasks.archive import Archive, Source
    from crochet_tasks.db.corpora import Corpus
    from crochet_tasks.db.process import Process
    from crochet_tasks.schemas.archive import ArchiveManifest

SUFFIX = ".crochet"
SOURCE = f"what has a slash in it or ends with {SUFFIX}"
_Identity = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The file of `age-keygen` with the key it is encrypted for.")
]
_FILE = "A file, or an address such as s3://BUCKET/FILE."
_File = Annotated[str, typer.Argument(metavar="FILE", help=_FILE)]


def archive(
    corpus: Annotated[str | None, typer.Argument(metavar="CORPUS", help="The corpus' name.")] = None,
    file: Annotated[str | None, typer.Argument(metavar="FILE", help=_FILE)] = None,
    state: State = None,
    check: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write none, but check all that is in this one. Needs no store.")
    ] = None,
    wait: Annotated[
        float, number("SECONDS", "Wait so long for the corpus' open work, which others must do.", least=0)
    ] = 0.0,
    recipient: Annotated[
        str | None, typer.Option(metavar="KEY", help="Encrypt it for this public key (age1…) of `age-keygen`.")
    ] = None,
    identity: _Identity = None,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="With --check: search the texts again, too; it tells if an ortho is missing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a complete corpus as one file that can be checked and imported anywhere: texts, phrases and orthos.

    All of it is as it was at one moment. See docs/archive.md.
    """
    if check is not None:
        if corpus is not None or (recipient, wait, overwrite) != (None, 0.0, False):
            raise WrongCall(problem="--check FILE takes nothing else but --full, --identity and --json")
        _check(check, identity, full=full, as_json=as_json)
        return
    if corpus is None or file is None:
        raise WrongCall(problem="say which corpus, and into which file: crochet archive CORPUS FILE")
    if full or identity is not None:
        raise WrongCall(problem="--full and --identity go with --check")
    os.umask(0o077)  # it holds the texts: only its owner may read it

    def write(process: Process) -> None:
        from crochet_tasks import archive as archives
        from crochet_tasks.recovery import encryption, files

        to = None if recipient is None else encryption.recipient(recipient)
        made: list[ArchiveManifest] = []
        with archives.opened(process, corpus, done="archived", wait=wait) as contents:
            parts = archives.written(contents, finished=made.append)
            size = files.write(file, parts, to, overwrite=overwrite)
        _show(made[0], as_json=as_json, size=size)

    in_store(state, write, CorpusUnknown(corpus=corpus, known="none"))


def import_archive(
    file: _File,
    state: State = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What to call the corpus. Default: as it was.")
    ] = None,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose corpus it becomes.")] = "default",
    identity: _Identity = None,
    *,
    full: Annotated[bool, typer.Option("--full", help="Search the texts again before it is imported.")] = False,
    as_json: Json = False,
) -> None:
    """Import the corpus of an archive, all of it or nothing. It is checked first: nobody has to trust it.

    Afterwards it takes further texts, as it did where it was archived. See docs/archive.md.
    """
    from crochet_tasks import archive as archives
    from crochet_tasks.db.access import Entry
    from crochet_tasks.embedded import store

    with _opened(file, identity) as source:
        checked = archives.check(source, full=full, progress=note)
        with store.joined(settings_of(state)) as process:
            called = name or source.about.name
            entry = Entry("corpus.imported", details={"corpus": called, "tenant": tenant, "file": file})
            made = archives.load(process, source, checked.context.tree, called, tenant=tenant, entry=entry)
        _show(source.manifest, as_json=as_json, corpus=made)


def merge(
    one: Annotated[str, typer.Argument(metavar="A", help=f"A corpus, or an archive: {SOURCE}.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    into: Annotated[str, typer.Option(metavar="NAME", help="The new corpus.")],
    state: State = None,
    budget: Budget = None,
) -> None:
    """Make a corpus of the texts of two, with the orthos of the larger one. Both must be complete; they stay.

    The texts of the smaller one are then read and searched, by `crochet run --corpus NAME` or the workers. See
    docs/archive.md.
    """
    from crochet_tasks import archive as archives
    from crochet_tasks.embedded import budget as budgets
    from crochet_tasks.embedded import store
    from crochet_tasks.terminal.numbers import counted

    settings = settings_of(state)
    most = budgets.of_new_corpus(settings) if budget is None else budget.most
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(store.joined(settings))
        first, second = (stack.enter_context(_source(process, each)) for each in (one, other))
        made = archives.merge(process, first, second, into, budget=most)
    kept = f"{counted(made.orthos, 'ortho')} of {made.kept.source}"
    print_line(
        f"merged into corpus '{into}': {kept}; {counted(made.texts, 'text')} of {made.accepted.source} to be read"
    )
    if made.texts:
        print_line(f"without workers, 'crochet run --corpus {into}' finds the orthos that are missing")


@contextlib.contextmanager
def _source(process: Process, name: str) -> Iterator[Source]:
    from crochet_tasks import archive as archives

    if "/" not in name and not name.endswith(SUFFIX):
        with archives.opened(process, name, done="merged") as contents:
            yield archives.Source(contents, contents.orthos)
        return
    with _opened(name, None) as file:
        checked = archives.check(file, progress=note)
        yield archives.Source(file, file.manifest.total, checked.context.tree)


def _check(file: str, identity: Path | None, *, full: bool, as_json: bool) -> None:
    from crochet_tasks import archive as archives

    with _opened(file, identity) as source:
        archives.check(source, full=full, progress=note)
        _show(source.manifest, as_json=as_json, checked=True)


@contextlib.contextmanager
def _opened(file: str, identity: Path | None) -> Iterator[Archive]:
    from crochet_tasks.archive import Archive
    from crochet_tasks.recovery import encryption, files

    keys = None if identity is None else encryption.identities(identity)
    with files.opened(file, keys) as source:
        yield Archive(source, file)


def _show(
    manifest: ArchiveManifest,
    *,
    as_json: bool,
    size: int | None = None,
    corpus: Corpus | None = None,
    checked: bool = False,
) -> None:
    from crochet_tasks.terminal import numbers

    if as_json:
        print_json(manifest)
        return
    texts, orthos = manifest.corpus.version, manifest.total
    held = f"{numbers.counted(texts, 'text')}, {numbers.counted(orthos, 'ortho')}"
    what = "intact" if checked else "archived"
    if corpus is not None:
        what, held = "imported", f"{held}, as corpus '{corpus.name}'"
    elif size is not None:
        held = f"{held} in {numbers.size(size)}"
    print_line(f"{what}: {manifest.corpus.name} of {manifest.created_at:%Y-%m-%d %H:%M}: {held}")
