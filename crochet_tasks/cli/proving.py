"""`crochet best`: the search for the best orthos in this process, its state kept in a file while it is not done."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from crochet_tasks.cli.running import Stop
from crochet_tasks.db import corpora
from crochet_tasks.embedded import store
from crochet_tasks.engine.best import certificate as certificates
from crochet_tasks.engine.best.certificate import Certificate, Refused
from crochet_tasks.engine.best.faces import Faces
from crochet_tasks.engine.best.plan import begun
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.engine.best.solve import Progress, Solver
from crochet_tasks.engine.best.state import State
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.engine.tree import Tree
from crochet_tasks.errors import (
    CertificateRefused,
    CertificateUnreadable,
    CorpusUnknown,
    NotEnoughMemory,
    OutputFailed,
    WrongCall,
)
from crochet_tasks.intake import files as inputs
from crochet_tasks.query import best
from crochet_tasks.query.store import Reader, Store
from crochet_tasks.schemas.best import BestReport
from crochet_tasks.settings import Settings
from crochet_tasks.terminal.best import BestMeter
from crochet_tasks.terminal.drawing import console
from crochet_tasks.terminal.streams import note

SAVE_SECONDS = 30.0
"""between two times that the state is written, so that little is lost if the process is killed"""
_STATES = TypeAdapter(State)


class Request(NamedTuple):
    """The command's arguments. `limits`: those of its options, None for any number; the others are the defaults, or
    those of the corpus.
    """

    files: list[str]
    corpus: str | None
    limits: dict[str, int | None]
    top: int | None
    certificate: Path | None


class Finished(NamedTuple):
    report: BestReport
    signal: int | None


# ── the texts ───────────────────────────────────────────────────────────────────────────────────


class Source(NamedTuple):
    tree: Tree
    scope: Scope
    reader: Reader | None
    """None where the texts are files"""


@contextlib.contextmanager
def _source(
    settings: Settings, files: list[str], corpus: str | None, limits: dict[str, int | None]
) -> Iterator[Source]:
    if bool(files) == (corpus is not None):
        raise WrongCall(problem="give texts, or --corpus for texts that are stored: one of them")
    if corpus is None:
        scope = _checked(Scope()._replace(**limits))  # type: ignore[arg-type]
        yield Source(best.tree_of(_read(settings, files), scope.max_side), scope, None)
        return
    if not store.exists(settings):
        raise CorpusUnknown(corpus=corpus, known="none")
    with store.joined(settings) as process, process.database.snapshot() as connection:
        found = corpora.named(connection, corpus)
        scope = _checked(Scope(*found.limits)._replace(**limits))  # type: ignore[arg-type]
        if scope.max_side > found.limits.max_side:
            problem = f"corpus '{corpus}' has no phrases of more than {found.limits.max_side} words (its max_side)"
            raise WrongCall(problem=problem)
        reader = Reader(Store(process), connection, found)
        yield Source(reader.tree, scope, reader)


def _read(settings: Settings, files: list[str]) -> list[str]:
    return [text.body for text in inputs.read(files, settings.max_text_bytes)]


def _checked(scope: Scope) -> Scope:
    """The limits, or LimitOutOfRange."""
    defaults = Limits()
    given = {name: value for name, value in scope._asdict().items() if value is not None}
    corpora.checked(defaults._replace(**given))
    return scope


# ── the search ──────────────────────────────────────────────────────────────────────────────────


def prove(settings: Settings, request: Request) -> Finished:
    """Search until all is proven, or a signal comes; then the state stays in the state folder."""
    began = time.perf_counter()
    with _source(settings, request.files, request.corpus, request.limits) as (tree, scope, reader):
        saved = _Saved(settings.state_dir, begun(tree, scope, request.top))
        state = saved.state
        meter = BestMeter(console(stderr=True))
        with Stop(meter) as stop, meter:

            def show(progress: Progress) -> None:
                meter.show(progress)
                saved.keep_if_due()

            try:
                Solver(Faces(tree), state, best.threads()).run(show, lambda: stop.signal is not None)
            except MemoryError as error:
                saved.keep()
                raise NotEnoughMemory(what=str(error)) from None
        if state.done:
            certificate = best.certified(state, tree)
            if request.certificate is not None:
                _write(request.certificate, certificate)
            saved.remove()
        else:
            saved.keep()
            if request.certificate is not None:
                note("there is no certificate yet: it needs the whole proof")
        report = best.report(state, tree, time.perf_counter() - began)
        if reader is not None:
            report = best.with_sources(report, reader)
    return Finished(report, None if state.done else stop.signal)


class _Saved:
    """The file of a state that is not done, named by what is searched."""

    def __init__(self, folder: Path, fresh: State) -> None:
        limits = "-".join("any" if most is None else str(most) for most in fresh.scope)
        self._path = folder / "best" / f"{fresh.context}-{limits}-{fresh.top or 'best'}.json"
        self._written = time.monotonic()
        self.state = self._read(fresh)

    def _read(self, fresh: State) -> State:
        try:
            found = _STATES.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return fresh
        except (OSError, ValidationError) as error:
            note(f"the saved search {self._path} cannot be read, the search starts again: {type(error).__name__}")
            return fresh
        if any(getattr(found, name) != getattr(fresh, name) for name in ("format", "context", "scope", "top")):
            return fresh
        note(f"going on with the search that was saved: {self._path}")
        return found

    def keep_if_due(self) -> None:
        if time.monotonic() - self._written > SAVE_SECONDS:
            self.keep()

    def keep(self) -> None:
        self._written = time.monotonic()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(f".{os.getpid()}")
            new.write_bytes(_STATES.dump_json(self.state))
            new.replace(self._path)
        except OSError as error:
            note(f"the search cannot be saved in {self._path.parent}: {error.strerror}")

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


# ── certificates ────────────────────────────────────────────────────────────────────────────────


def _write(path: Path, certificate: Certificate) -> None:
    try:
        path.write_bytes(best.CERTIFICATES.dump_json(certificate) + b"\n")
    except OSError as error:
        raise OutputFailed(reason=f"{path}: {error.strerror}") from None


def check(settings: Settings, request: Request, *, full: bool, transposed: bool) -> list[str]:
    """Check a certificate; what that proves, in sentences. Raises CertificateRefused."""
    assert request.certificate is not None
    if request.limits or request.top is not None:
        raise WrongCall(problem="limits and --top are those of the certificate")
    certificate = _certificate(request.certificate)
    sides: dict[str, int | None] = {"max_side": certificate.scope.max_side}
    with _source(settings, request.files, request.corpus, sides) as (tree, _, _), Stop(BestMeter(console())) as stop:
        try:
            certificates.check(certificate, tree)
            for other in [False] * full + [True] * transposed:
                _repeat(certificate, tree, stop, other=other)
        except Refused as refused:
            raise CertificateRefused(file=request.certificate, reason=refused) from None
        except MemoryError as error:
            raise NotEnoughMemory(what=str(error)) from None
    return [*_claims(certificate), *_checked_how(full=full, transposed=transposed)]


def _repeat(certificate: Certificate, tree: Tree, stop: Stop, *, other: bool) -> None:
    flag = np.zeros(1, np.uint8)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            flag[0] = stop.signal is not None

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        certificates.repeat(certificate, tree, best.threads(), other=other, note=note, stop=flag)
    except InterruptedError:
        note("stopped: the certificate is checked only in part")
        raise SystemExit(128 + (stop.signal or 0)) from None
    finally:
        over.set()
        watcher.join()


def _certificate(path: Path) -> Certificate:
    try:
        return best.CERTIFICATES.validate_json(path.read_bytes())
    except OSError as error:
        raise CertificateUnreadable(file=path, problem=f"it cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise CertificateUnreadable(file=path, problem=f"{where}: {first['msg']}") from None


def _claims(certificate: Certificate) -> list[str]:
    total = sum(listing.found for listing in certificate.listed)
    if not total:
        return ["it says that the texts have no ortho"]
    kept = sum(len(listing.orthos) for listing in certificate.listed)
    lists = [
        f"the {kept} orthos that it lists are orthos of these texts" if kept > 1 else "the ortho that it lists is one"
    ]
    return [*lists, "every shape that would be better contains one that it says is empty, or is listed"]


def _checked_how(*, full: bool, transposed: bool) -> list[str]:
    lines = []
    if full:
        lines.append("all parts were searched again, with the same counts")
    if transposed:
        lines.append("all shapes were searched along another axis, with other faces: an independent search agrees")
    if lines:
        return [*lines, "so nothing better exists, as far as this program searches without fault"]
    return ["not checked: whether what it says is empty is empty; --full searches everything again"]
