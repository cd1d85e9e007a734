"""`crochet --url ... best`: ask an API for the best orthos of a corpus, and follow the search."""

from __future__ import annotations

import contextlib
from pathlib import Path

from crochet_tasks.cli import accepting
from crochet_tasks.cli.accepting import Note
from crochet_tasks.cli.proving import Finished, Request
from crochet_tasks.cli.running import Stop
from crochet_tasks.client import Client
from crochet_tasks.engine.best.plan import Left
from crochet_tasks.engine.best.solve import Progress
from crochet_tasks.engine.best.state import Aim, Ortho
from crochet_tasks.errors import OutputFailed, WorkFailed, WrongCall
from crochet_tasks.retry import Outage
from crochet_tasks.schemas.best import BestJob, BestOrtho, BestReport
from crochet_tasks.terminal.best import BestMeter
from crochet_tasks.terminal.drawing import console

UNFINISHED = ("queued", "running")


def prove(client: Client, request: Request, note: Note, *, follow: bool) -> Finished:
    """Ask, and follow the job until it is at its end or a signal comes; then it goes on, and the command follows again.

    Raises WorkFailed.
    """
    if request.corpus is None or request.files:
        raise WrongCall(problem="with --url it searches a corpus: give --corpus, and no files")
    job = client.find_best(request.corpus, top=request.top, limits=request.limits)
    signal = None
    if follow and job.state in UNFINISHED:
        job, signal = _followed(client, job, note)
    if job.state == "failed":
        raise WorkFailed(failed=1, error="unknown" if job.error is None else job.error.message)
    if job.state in UNFINISHED:
        note(f"the search goes on as {job.id}; 'crochet best --corpus {request.corpus}' follows it")
    if request.certificate is not None:
        if job.state == "proven":
            _write(request.certificate, client.best_certificate(job.corpus, job.id))
        else:
            note("there is no certificate yet: it needs the whole proof")
    return Finished(report(job), signal)


def _followed(client: Client, job: BestJob, note: Note) -> tuple[BestJob, int | None]:
    outage = Outage(note, "waiting for it")
    meter = BestMeter(console(stderr=True))
    with Stop(meter) as stop, meter, contextlib.closing(accepting.backing_off()) as moments:
        for _ in moments:
            with outage.tolerated():
                job = client.best_job(job.corpus, job.id)
                meter.show(_progress(job))
            if job.state not in UNFINISHED or stop.signal is not None:
                break
    return job, None if job.state not in UNFINISHED else stop.signal


def _write(path: Path, certificate: bytes) -> None:
    try:
        path.write_bytes(certificate + b"\n")
    except OSError as error:
        raise OutputFailed(reason=f"{path}: {error.strerror}") from None


def _progress(job: BestJob) -> Progress:
    left, parts = job.estimated_seconds_left, job.parts
    return Progress(
        None if job.incumbent is None else _ortho(job.incumbent),
        None if job.upper is None else (job.upper.volume, job.upper.cells),
        None if job.searching is None else tuple(map(int, job.searching.shape.split("x"))),
        None if job.searching is None else Aim(job.searching.aim),
        parts.done / parts.total if parts is not None and parts.total else 0.0,
        None if left is None else Left(left.low, left.low if left.high is None else left.high, left.high is not None),
    )


def _ortho(ortho: BestOrtho) -> Ortho:
    return Ortho(tuple(ortho.shape), tuple(range(ortho.cells)))


def report(job: BestJob) -> BestReport:
    """A job as `crochet best` reports a search of its own."""
    seconds = 0.0
    if job.began_at is not None and job.changed_at is not None:
        seconds = (job.changed_at - job.began_at).total_seconds()
    return BestReport(
        complete=job.state == "proven",
        proven=job.state == "proven" or bool(job.best),
        best=job.best,
        found=job.found,
        incumbent=job.incumbent,
        upper=job.upper,
        empty=job.empty,
        too_large=job.too_large,
        limits=job.limits,
        top=job.top,
        seconds=round(seconds, 3),
    )
