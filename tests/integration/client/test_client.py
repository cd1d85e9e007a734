"""The client, and the command line as a client, on the real application behind a real server."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from werkzeug.serving import make_server

from crochet_tasks.cli import program
from crochet_tasks.client import Client
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine.best import certificate
from crochet_tasks.engine.best.shapes import Scope
from crochet_tasks.errors import (
    CorpusExists,
    CorpusUnknown,
    Forbidden,
    InvalidRequest,
    NotConfirmed,
    PreconditionFailed,
    SignatureRefused,
    TextStarted,
    Unauthorized,
    WorkNotFailed,
)
from crochet_tasks.operate import actions
from crochet_tasks.query import export
from crochet_tasks.query.best import CERTIFICATES
from crochet_tasks.query.export import Format
from crochet_tasks.reporting import reports
from crochet_tasks.schemas.answers import Gone, Progress
from crochet_tasks.schemas.best import BestReport
from crochet_tasks.schemas.reports import IngestReport, Status, WorkChanged, WorkList
from crochet_tasks.settings import Settings
from tests.integration.api.test_work import with_failed
from tests.support import best, steps
from tests.support.api import SETTINGS, made

pytestmark = pytest.mark.integration

ORTHOS = steps.expected(steps.TEXTS)


class Served(NamedTuple):
    """An API with the corpus `whole`, in which all of steps.TEXTS are searched; what needs `admin` must be signed."""

    url: str
    process: Process
    keys: dict[str, str]

    def client(self, scope: str = "admin", *, sign: bool = True) -> Client:
        return Client(self.url, self.keys[scope], sign=sign)

    def corpus(self, name: str) -> Corpus:
        with self.process.database.transaction() as connection:
            return corpora.named(connection, name)


@pytest.fixture(scope="module")
def served(create: Callable[[str], str], migrated: str) -> Iterator[Served]:
    settings = Settings(**SETTINGS, signed_admin=True, api_events_seconds=0.05)
    with open_process(Settings(), create(migrated)) as process, pytest.MonkeyPatch.context() as quick:
        quick.setattr("crochet_tasks.query.events.POLL_SECONDS", 0.05)
        quick.setattr("api.events.RECONNECT_MILLISECONDS", 10)
        api = made(process, settings)
        corpus = steps.new_corpus(process, name="whole")
        steps.ingest_all(corpus, steps.TEXTS)
        server = make_server("127.0.0.1", 0, api.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Served(f"http://127.0.0.1:{server.server_port}", process, api.keys)
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.client() as client:
        yield client


# ── the client ──────────────────────────────────────────────────────────────────────────────────


def test_corpora(client: Client) -> None:
    """Made, listed over several pages, changed by who has seen them last, deleted by who confirms it."""
    for name in ("one", "two"):
        made = client.create_corpus(name, limits={"max_axes": 2}, description=f"number {name}")
        assert (made.name, made.limits.max_axes, made.limits.max_side, made.budget) == (name, 2, 8, 10_000_000)
    with pytest.raises(CorpusExists):
        client.create_corpus("one")
    with pytest.raises(InvalidRequest) as invalid:
        client.create_corpus("three", limits={"max_axes": 99})
    with pytest.raises(InvalidRequest, match="max_side must be at most 64"):
        client.create_corpus("three", max_side=99)
    assert isinstance(invalid.value.context["errors"], list)
    assert {"one", "two", "whole"} <= {each.name for each in client.corpora(at_once=1)}
    seen = client.corpus("one")
    changed = client.change_corpus("one", seen.tag, budget=5, name="uno")
    assert (changed.corpus.name, changed.corpus.budget) == ("uno", 5)
    with pytest.raises(PreconditionFailed):
        client.change_corpus("uno", seen.tag, budget=None)
    assert client.change_corpus("uno", changed.tag, budget=None).corpus.budget is None
    with pytest.raises(NotConfirmed):
        client.delete_corpus("uno", confirm="one")
    for name in ("uno", "two"):
        client.delete_corpus(name, confirm=name)
        with pytest.raises(CorpusUnknown) as raised:
            client.corpus(name)
        assert raised.value.context["status"] == 404


def test_texts(client: Client, served: Served) -> None:
    """Posted as text or bytes, known again, listed over several pages, cancelled."""
    client.create_corpus("texts")
    first = client.post_text("texts", "ü & co", steps.TEXTS[0])
    assert (first.new, first.text.title, first.text.state) == (True, "ü & co", "accepted")
    again = client.post_text("texts", "other", steps.TEXTS[0].encode())
    assert (again.new, again.text.id) == (False, first.text.id)
    posted = [client.post_text("texts", "two", "seas and land", idempotency_key="mine").text.id for _ in range(2)]
    assert posted[0] == posted[1] != first.text.id
    assert [text.id for text in client.texts("texts", at_once=1)] == [first.text.id, posted[0]]
    assert client.cancel_text("texts", posted[0]).state == client.cancel_text("texts", posted[0]).state == "cancelled"
    assert [text.id for text in client.texts("texts", state="cancelled")] == posted[:1]
    steps.run(served.corpus("texts"))
    assert (client.text("texts", first.text.id).version, client.version("texts")) == (1, 1)
    with pytest.raises(TextStarted):
        client.cancel_text("texts", first.text.id)


def test_the_context(client: Client) -> None:
    """Words and phrases over several pages, and what waits on one."""
    words = [seen.word for seen in client.words("whole", at_once=4)]
    assert words == sorted(set(" ".join(steps.TEXTS).replace(",", "").split()))
    assert [seen.word for seen in client.words("whole", "a")] == ["a"]
    assert ("a", "b") in [tuple(seen.words) for seen in client.phrases("whole", "a", at_once=2)]
    assert client.waiting_on("whole", "a").phrase == ["a"]


def test_orthos(client: Client) -> None:
    """Over several pages, as a stream, one, the best, counted, checked: all the same ones."""
    paged = [(tuple(each.shape or []), tuple(each.words or [])) for each in client.orthos("whole", at_once=5)]
    rows = list(client.export("whole"))
    assert set(paged) == {(tuple(row.shape), tuple(row.words)) for row in rows} == ORTHOS.keys()
    assert len(paged) == len(rows) == sum(ORTHOS.values()) > 5
    best = client.best("whole", 3).orthos
    assert [each.id for each in best] == [row.id for row in rows[:3]]
    chosen = list(client.orthos("whole", shape="2x2", contains="a", min_volume=1, fields=["words"]))
    assert {tuple(each.words or []) for each in chosen} == {
        words for shape, words in ORTHOS if shape == (2, 2) and "a" in words
    }
    assert all(each.id is None for each in chosen)
    whole = client.ortho("whole", rows[0].id)
    assert (whole.words, whole.lines[0].sources != []) == (rows[0].words, True)
    assert client.shapes("whole").total == len(rows)
    checked = client.check("whole", ids=[rows[0].id, "0" * 32]).results
    assert [each.stored for each in checked] == [True, False]
    assert client.check("whole", grids=[whole.grid], exact=False).results[0].id == rows[0].id


def test_work(client: Client, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is listed, retried and done; a text is cancelled by its work."""
    client.create_corpus("work")
    with_failed(served.corpus("work"), monkeypatch, "search.part")
    (failed,) = client.work("work", state="failed").work
    assert (failed.kind, client.status("work").closed) == ("search", False)
    assert [line.state for line in client.retry_work("work", failed.id).changed] == ["ready"]
    with pytest.raises(WorkNotFailed):
        client.retry_work("work", failed.id)
    steps.run(served.corpus("work"))
    status = client.status("work")
    assert (status.closed, status.total) == (True, sum(steps.expected(steps.TEXTS[:1]).values()))
    text = client.post_text("work", "another", "land and seas").text
    (ingest,) = client.work("work", kind="ingest").work
    assert {line.state for line in client.cancel_work("work", ingest.id).changed} == {"cancelled"}
    assert client.text("work", text.id).state == "cancelled"


class Counting(httpx.HTTPTransport):
    """Counts the requests."""

    requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return super().handle_request(request)


def test_events(served: Served) -> None:
    """From one stream to the next without a gap, until the corpus is gone; nothing comes twice."""
    counted = Counting()
    client = Client(served.url, served.keys["admin"], transport=counted)
    client.create_corpus("followed")
    events = client.events("followed")
    seen = [next(events)]
    steps.accept(served.corpus("followed"), steps.TEXTS[0])
    steps.run(served.corpus("followed"))
    while not (isinstance(seen[-1], Progress) and seen[-1].version and not seen[-1].open_work):
        seen.append(next(events))
    client.delete_corpus("followed", confirm="followed")
    with contextlib.suppress(CorpusUnknown):  # where it was deleted between two streams
        seen.extend(events)
    client.close()
    assert counted.requests > 3  # a stream lasts 0.05 s here
    with served.client("read") as reader:
        assert set(reader.changes("whole")) == {None}  # at least the end
    progress = [each for each in seen if isinstance(each, Progress)]
    assert progress[-1].orthos == sum(steps.expected(steps.TEXTS[:1]).values())
    assert len(set(map(str, progress))) == len(progress)
    assert set(seen) - set(progress) <= {Gone(corpus="followed")}
    with served.client("stranger") as stranger, pytest.raises(CorpusUnknown):
        next(stranger.events("whole"))


def test_health_needs_no_key(served: Served) -> None:
    with Client(served.url) as client:
        assert (client.live().status, client.started().status) == ("live", "started")
        assert client.ready().components["database"].state == "ok"
        with pytest.raises(Unauthorized):
            client.version("whole")


def test_tokens(served: Served) -> None:
    """Got for a key, used in its place, renewed, given back; what must be signed needs the key itself."""
    with served.client() as client:
        tokens = client.exchange_key(["read"])
        whole = client.exchange_key()
    with Client(served.url, tokens.access_token) as reader:
        assert reader.version("whole") == 3
        with pytest.raises(Forbidden):
            reader.create_corpus("nope")
        renewed = reader.refresh_tokens(tokens.refresh_token)
    with Client(served.url, whole.access_token) as unsigned, pytest.raises(SignatureRefused):
        unsigned.delete_corpus("whole", confirm="whole")
    with Client(served.url, renewed.access_token) as again:
        again.end_session()
        with pytest.raises(Unauthorized):
            again.version("whole")


def test_what_administrators_ask_is_signed(served: Served) -> None:
    """Unless one does not want that: then it is refused."""
    with served.client() as client, served.client(sign=False) as unsigned:
        client.create_corpus("a.b-c")
        with pytest.raises(SignatureRefused):
            unsigned.delete_corpus("a.b-c", confirm="a.b-c")
        client.delete_corpus("a.b-c", confirm="a.b-c")


# ── the command line ────────────────────────────────────────────────────────────────────────────


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


def test_the_best(client: Client, crochet: Crochet, served: Served, tmp_path: Path) -> None:
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
    ran = crochet("ingest", *files, "--corpus", "shared", "--max-axes", "3", "--wait", "--json")
    report = IngestReport.model_validate_json(ran.out)
    assert (ran.code, [text.state for text in report.texts]) == (0, ["current"] * 3), ran.err
    waited = report.waited
    assert waited is not None
    assert (waited.closed, waited.version, waited.total) == (True, 3, sum(ORTHOS.values()))
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
    with_failed(served.corpus("operated"), monkeypatch, "search.part")
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
