"""The command line as a client of the API, on the real application behind a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from crochet_tasks.cli import program
from crochet_tasks.client import Client
from crochet_tasks.engine.best import certificate
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.errors import (
    CorpusUnknown,
)
from crochet_tasks.operate import actions
from crochet_tasks.query import export
from crochet_tasks.query.best import CERTIFICATES
from crochet_tasks.query.export import Format
from crochet_tasks.reporting import reports
from crochet_tasks.schemas.best import BestReport
from crochet_tasks.schemas.reports import IngestReport, Status, WorkChanged, WorkList
from tests.integration.client.conftest import Served
from tests.support import best, steps
from tests.support.failing_work import with_bug
from tests.support.paths import ROOT

pytestmark = pytest.mark.integration


class Ran(NamedTuple):
    code: int
    out: bytes
    err: str


Crochet = Callable[..., Ran]


@pytest.fixture
def crochet(
    served: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> Crochet:
    """Runs a command with the key of an administrator in a file; no database is there for it."""
    monkeypatch.setenv("CROCHET_STATE_DIR", str(tmp_path / "nothing"))
    file = tmp_path / "key"
    file.write_text(f"{served.keys['admin']}\n")

    def run(*arguments: str, before: tuple[str, ...] = ("--key-file", str(file)), url: str = served.url) -> Ran:
        code = program.outcome(["--url", url, *before, *arguments], debug=False)
        out, err = capsysbinary.readouterr()
        assert not (tmp_path / "nothing").exists()
        return Ran(code, out, err.decode())

    return run


@pytest.fixture
def worker(served: Served) -> Iterator[None]:
    """Does all work of the corpus `shared`, in a thread, for as long as the test takes."""
    ended = threading.Event()

    def run() -> None:
        corpus = None
        while not ended.wait(0.05):
            try:
                corpus = corpus or served.corpus("shared")
            except CorpusUnknown:
                continue
            steps.run(corpus)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_the_best_are_asked_for_stopped_and_proven(
    client: Client, crochet: Crochet, served: Served, tmp_path: Path
) -> None:
    """Asked, followed by a command in a thread's time, stopped and asked again; the certificate holds here."""
    asked = client.find_best("whole", top=3, limits={"max_axes": None})
    assert (asked.state, asked.limits["max_axes"], asked.top) == ("queued", None, 3)
    assert client.best_job("whole") == client.best_job("whole", asked.id)
    assert client.cancel_best("whole", asked.id).state == "stopped"
    assert client.find_best("whole", top=3, limits={"max_axes": None}).id == asked.id
    question = ("best", "--corpus", "whole", "--top", "3", "--max-axes", "any")
    waiting = crochet(*question, "--no-wait", "--json")
    assert (waiting.code, BestReport.model_validate_json(waiting.out).complete) == (0, False)
    assert f"goes on as {asked.id}" in waiting.err
    proof, ended = tmp_path / "proof.json", threading.Event()

    def work() -> None:
        while not ended.wait(0.05):
            steps.run(served.corpus("whole"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        ran = crochet(*question, "--json", "--certificate", str(proof))
    finally:
        ended.set()
        thread.join()
    report = BestReport.model_validate_json(ran.out)
    wanted = best.expected(steps.TEXTS, Scope(None), 3)
    assert (ran.code, report.complete) == (0, True), ran.err
    assert [(tuple(one.shape), tuple(one.words)) for one in report.best] == wanted
    assert proof.read_bytes() == client.best_certificate("whole", asked.id) + b"\n"
    with served.process.database.snapshot() as connection:
        tree = served.process.tree(connection, served.corpus("whole").id, 3)
    certificate.check(CERTIFICATES.validate_json(proof.read_bytes()), tree)
    shown = crochet(*question)
    assert (shown.code, b"proven: no ortho is better than these 3" in shown.out) == (0, True)


def test_what_best_refuses_with_an_api(crochet: Crochet, tmp_path: Path) -> None:
    for arguments, code in (
        (("best", "a.txt"), "usage"),
        (("best",), "usage"),
        (("best", "--corpus", "nowhere"), "corpus_unknown"),
        (("best", "--corpus", "whole", "--max-side", "9"), "limit_out_of_range"),
        (("best", "--corpus", "whole", "--check", str(tmp_path / "proof")), "usage"),
    ):
        ran = crochet(*arguments)
        assert (ran.code != 0, f"[{code}]" in ran.err) == (True, True), ran.err


def test_ingest_status_and_export(crochet: Crochet, served: Served, worker: None, tmp_path: Path) -> None:
    """As on this machine: the same reports, and the same bytes in every format."""
    files = []
    for number, text in enumerate(steps.TEXTS):
        files.append(str(tmp_path / f"{number}.txt"))
        Path(files[-1]).write_text(text)
    ran = crochet("ingest", *files, "--corpus", "shared", "--max-axes", "3", "--priority", "1", "--wait", "--json")
    report = IngestReport.model_validate_json(ran.out)
    assert (ran.code, [text.state for text in report.texts]) == (0, ["current"] * 3), ran.err
    with served.client() as client:
        assert [text.priority for text in client.texts("shared")] == [1, 1, 1]
    waited = report.waited
    assert waited is not None
    assert (waited.closed, waited.version, waited.total) == (True, 3, sum(steps.expected(steps.TEXTS).values()))
    again = crochet("ingest", files[0], "--corpus", "shared")
    assert (again.code, "has this text already" in again.err) == (0, True)
    assert again.out.decode() == f"{report.texts[0].id}  seq {report.texts[0].seq}  current  {files[0]}\n"
    other = crochet("ingest", files[0], "--corpus", "shared", "--max-axes", "2")
    assert (other.code, "[limits_fixed]" in other.err) == (2, True)
    for form in Format:
        local = b"".join(export.export(served.process, "shared", form))
        assert crochet("export", "--corpus", "shared", "--format", form).out == local
    status = Status.model_validate_json(crochet("status", "--json").out)
    (remote,) = (corpus for corpus in status.corpora if corpus.corpus == "shared")
    same = {"rate": remote.rate, "statistics": remote.statistics}  # they move on
    assert remote in [corpus.model_copy(update=same) for corpus in reports.status(served.process).corpora]
    assert (remote.statistics.corpora, remote.statistics.versions, remote.statistics.orthos) == (1, 3, remote.total)
    assert status.statistics is not None
    assert status.statistics.corpora == len(status.corpora)
    page = crochet("status").out.decode()
    assert page.startswith(f"API at {served.url}")
    assert "shared" in page


def test_work_and_corpora(crochet: Crochet, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed over all corpora, retried, cancelled by an id alone; corpora made, listed, deleted."""
    assert crochet("corpora", "create", "operated", "--max-axes", "2", "--budget", "9").code == 0
    assert b"operated  max_axes 2, max_side 8, max_cells 64  budget 9\n" in crochet("corpora", "list").out
    assert b"budget 9  priority -2\n" in crochet("corpora", "set", "operated", "--priority", "-2").out
    assert crochet("corpora", "set", "operated", "--priority", "4").code == 2
    with_bug(served.corpus("operated"), monkeypatch, "search.part")
    listed = WorkList.model_validate_json(crochet("work", "list", "--state", "failed", "--json").out)
    (failed,) = (line for line in listed.work if line.corpus == "operated")
    assert failed.id[:8].encode() in crochet("work", "list", "--corpus", "operated").out
    retried = WorkChanged.model_validate_json(crochet("work", "retry", "--all", "--corpus", "operated", "--json").out)
    assert [(line.id, line.state) for line in retried.changed] == [(failed.id, "ready")]
    refused = crochet("work", "retry", failed.id)
    assert (refused.code, "[work_not_failed]" in refused.err) == (2, True)
    with served.client() as client:
        text = client.post_text("operated", "late", "late and later").text
    cancelled = crochet("work", "cancel", text.id)
    assert (cancelled.code, b"cancelled" in cancelled.out) == (0, True)
    actions.retry_all(served.process)
    unconfirmed = crochet("corpora", "delete", "operated")
    assert (unconfirmed.code, "[not_confirmed]" in unconfirmed.err) == (2, True)
    assert crochet("corpora", "delete", "operated", "--confirm", "operated").code == 0
    gone = crochet("export", "--corpus", "operated")
    assert (gone.code, gone.out, "[corpus_unknown]" in gone.err) == (3, b"", True)


def test_status_is_watched(crochet: Crochet, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object per line, until Ctrl-C."""
    pauses = iter([None])

    def sleep(seconds: float) -> None:
        if next(pauses, seconds) is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr("crochet_tasks.cli.remote.time.sleep", sleep)
    ran = crochet("status", "--watch", "--json")
    assert (ran.code, ran.out.count(b"\n")) == (0, 2)
    assert {"whole"} <= {corpus["corpus"] for corpus in json.loads(ran.out.splitlines()[-1])["corpora"]}


@pytest.mark.parametrize(
    "command",
    ["run", "verify", "migrate", "doctor", "up", "worker", "relay", "api", "flower", "keys list", "work show x"],
)
def test_what_works_here_only_is_refused(crochet: Crochet, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option as by the environment."""
    ran = crochet(*command.split())
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.endswith("[not_remote]\n")
    monkeypatch.setenv("CROCHET_URL", "https://api.example")
    assert program.outcome(command.split(), debug=False) == 2


def test_what_is_wrong_with_the_way_to_an_api(
    crochet: Crochet, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its exit code; the key is in none of it."""
    monkeypatch.setattr("crochet_tasks.client.calls.time.sleep", lambda seconds: None)
    monkeypatch.setenv("CROCHET_KEY", served.keys["read"])
    for ran, code, name in [
        (crochet("status", before=()), 0, ""),
        (crochet("corpora", "create", "x", before=()), 2, "[forbidden]"),
        (crochet("status", before=("--key", "crk_nobody")), 2, "[unauthorized]"),
        (crochet("status", url="http://127.0.0.1:9"), 4, "[api_unavailable]"),
        (crochet("status", url="http://api.example"), 2, "[not_encrypted]"),
        (crochet("status", url="api.example"), 2, "[usage]"),
        (crochet("status", "--state", "x"), 2, "[usage]"),
        (crochet("work", "retry", "--all", "--dropped"), 2, "[usage]"),
        (crochet("work", "retry", "text-999"), 2, "[not_found]"),
    ]:
        assert (ran.code, name in ran.err) == (code, True), ran.err
        assert served.keys["read"].split("_", 2)[2] not in ran.err
    monkeypatch.delenv("CROCHET_KEY")
    missing = crochet("status", before=("--key-file", "/nowhere"))
    assert (missing.code, "CROCHET_KEY_FILE" in missing.err) == (2, True)
    assert program.outcome(["--key", "x", "status"], debug=False) == 2


def test_sample_texts_are_seeded_once_and_removed(crochet: Crochet, served: Served) -> None:
    """Each in a corpus of its own; what others have called so stays."""
    files = [str(ROOT / "examples" / f"{name}.txt") for name in ("garden", "harbour")]
    assert crochet("seed", *files).out.decode() == "sample-garden: accepted\nsample-harbour: accepted\n"
    assert crochet("seed", *files).out.decode() == "sample-garden: is there already\nsample-harbour: is there already\n"
    with served.client() as client:
        assert [text.title for text in client.texts("sample-garden")] == ["garden"]
        assert client.corpus("sample-garden").corpus.budget == 100_000
        client.create_corpus("sample-of-others")
        assert crochet("seed", "--remove").out.decode() == "sample-garden: deleted\nsample-harbour: deleted\n"
        assert [line.name for line in client.corpora() if line.name.startswith("sample-")] == ["sample-of-others"]
        client.delete_corpus("sample-of-others", confirm="sample-of-others")
    assert crochet("seed").code == crochet("seed", "--remove", *files).code == 2
