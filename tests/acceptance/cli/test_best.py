"""`crochet best` as a program: of files and of what is stored, its certificates, and how it stops and goes on."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest

from crochet_tasks.schemas.best import BestReport
from tests.support import oracle
from tests.support.cli import EVENING, HARBOUR, closure, crochet, refused, started

pytestmark = pytest.mark.acceptance


def read(done: subprocess.CompletedProcess[str]) -> BestReport:
    assert done.returncode == 0, done.stderr
    return BestReport.model_validate_json(done.stdout)


def best_of(orthos: dict[oracle.Ortho, int]) -> list[oracle.Ortho]:
    """Those of the oracle's that share the largest volume and cells, in order."""
    ranked = sorted(orthos, key=lambda one: (*rank(one), one))
    return [one for one in ranked if rank(one) == rank(ranked[0])]


def rank(ortho: oracle.Ortho) -> tuple[int, int]:
    volume = cells = 1
    for side in ortho[0]:
        volume, cells = volume * (side - 1), cells * side
    return -volume, -cells


def as_orthos(report: BestReport) -> list[oracle.Ortho]:
    return [(tuple(one.shape), tuple(one.words)) for one in report.best]


def test_the_best_of_files_and_their_certificate(state: Path, tmp_path: Path) -> None:
    """The oracle's best; nothing is stored; the certificate holds for these texts in any order, and for no others."""
    certificate = tmp_path / "certificate.json"
    report = read(crochet("best", HARBOUR, EVENING, "--json", "--certificate", certificate, "--state", state))
    assert as_orthos(report) == best_of(closure(HARBOUR, EVENING))
    assert (report.complete, report.proven, report.incumbent, report.upper) == (True, True, None, None)
    assert sum(report.found.values()) == len(report.best)
    assert not state.exists()
    quick = crochet("best", "--check", certificate, EVENING, HARBOUR)
    assert "not checked: whether what it says is empty is empty" in quick.stdout
    full = crochet("best", "--check", certificate, HARBOUR, EVENING, "--full", "--transposed")
    assert full.returncode == 0, full.stderr
    assert "searched again" in full.stdout
    assert "an independent search agrees" in full.stdout
    refused(crochet("best", "--check", certificate, HARBOUR), 1, "certificate_refused", "other texts")


def test_a_certificate_that_was_changed_is_refused(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    read(crochet("best", HARBOUR, "--json", "--certificate", path, "--state", state))
    sound = json.loads(path.read_text())
    sound["listed"][0]["orthos"][0][0] = "harbour"
    path.write_text(json.dumps(sound))
    refused(crochet("best", "--check", path, HARBOUR), 1, "certificate_refused", "is no ortho of these texts")
    path.write_text("{}")
    refused(crochet("best", "--check", path, HARBOUR), 3, "certificate_unreadable", "format")
    refused(crochet("best", "--check", tmp_path / "none", HARBOUR), 3, "certificate_unreadable", "cannot be read")


def test_the_top_and_any_limits(state: Path) -> None:
    """`--top N` has the N best; `any` is no limit."""
    options = ("--max-axes", "any", "--max-cells", "any", "--max-side", "3", "--json", "--state", state)
    report = read(crochet("best", HARBOUR, "--top", "7", *options))
    every = sorted(closure(HARBOUR, max_axes=6, max_side=3, max_cells=10**6), key=lambda one: (*rank(one), one))
    assert as_orthos(report) == every[:7]
    assert report.limits == {"max_axes": None, "max_side": 3, "max_cells": None}


def test_the_best_of_a_stored_corpus_with_where_it_was_read(state: Path) -> None:
    """`crochet run` shows it first; later it is asked for, also within narrower limits than the corpus has."""
    run = crochet("run", HARBOUR, "--state", state)
    assert run.returncode == 0
    best = best_of(closure(HARBOUR))
    volume, cells = (-each for each in rank(best[0]))
    assert run.stderr.startswith(f"crochet: proven: no ortho is larger than volume {volume} with {cells} cells")
    report = read(crochet("best", "--corpus", "main", "--state", state, "--json"))
    assert as_orthos(report) == best
    for ortho in report.best:
        assert ortho.lines is not None
        assert len(ortho.lines) == sum(ortho.cells // side for side in ortho.shape)
        for line in ortho.lines:
            assert " ".join(line.words) in " ".join(line.sources[0].words)
    narrow = read(crochet("best", "--corpus", "main", "--state", state, "--json", "--max-side", "2"))
    assert as_orthos(narrow) == best_of(closure(HARBOUR, max_side=2))
    refused(crochet("best", "--corpus", "main", "--state", state, "--max-side", "9"), 2, "usage", "more than 8 words")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of them"),
        ([HARBOUR, "--corpus", "main"], "one of them"),
        ([HARBOUR, "--full"], "--check"),
        ([HARBOUR, "--check", "x", "--top", "3"], "those of the certificate"),
        ([HARBOUR, "--check", "x", "--json"], "do not go with --check"),
        ([HARBOUR, "--max-axes", "many"], "whole number"),
    ],
    ids=["nothing", "two sources", "full without check", "top with check", "json with check", "no number"],
)
def test_wrong_calls_say_what_is_wrong(arguments: list[object], says: str, state: Path) -> None:
    refused(crochet("best", *arguments, "--state", state), 2, "usage", says)


def test_a_search_that_is_stopped_says_what_is_proven_and_goes_on(state: Path, tmp_path: Path) -> None:
    """Ctrl-C: the best so far and a bound, and a saved state with which the same command goes on."""
    dice, text = random.Random(1), tmp_path / "dense.txt"
    text.write_text(
        ". ".join(" ".join(f"w{dice.choice('abcdefghijklmnopqrst')}" for _ in range(9)) for _ in range(9000))
    )
    command = ("best", text, "--state", state, "--json")
    for again in (False, True):
        running = started(*command)
        assert running.stderr is not None
        lines = [running.stderr.readline()]
        while "best so far" not in lines[-1]:  # then the signals are handled, too
            lines.append(running.stderr.readline())
            assert lines[-1]
        assert ("going on with the search that was saved" in lines[0]) == again
        running.send_signal(signal.SIGINT)
        output, _ = running.communicate()
        report = BestReport.model_validate_json(output)
        assert running.returncode == 128 + signal.SIGINT
        assert not report.complete
        assert report.incumbent is not None
        assert report.upper is not None
        assert (report.upper.volume, report.upper.cells) >= (report.incumbent.volume, report.incumbent.cells)
        assert len(list((state / "best").glob("*.json"))) == 1
