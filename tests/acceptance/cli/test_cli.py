"""The command line as a program. Expected orthos come from the oracle."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from crochet_tasks.db import schema
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.schemas.reports import RunReport, Status
from tests.support import oracle
from tests.support.cli import (
    EVENING,
    HARBOUR,
    closure,
    crochet,
    database,
    execute,
    exported,
    fed,
    in_shell,
    refused,
    report_of,
    shapes,
)
from tests.support.commands import CROCHET
from tests.support.packed import in_order

pytestmark = pytest.mark.acceptance


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with one text in it, for tests that only read."""
    state = tmp_path_factory.mktemp("harbour") / "state"
    assert crochet("run", HARBOUR, "--state", state).returncode == 0
    return state


# ── run ─────────────────────────────────────────────────────────────────────────────────────────


def test_run_finds_the_closure_and_a_second_text_continues_it(state: Path) -> None:
    """One text, then another: the same as both at once. The limits hold, the report is the promised object."""
    first = report_of(crochet("run", HARBOUR, "--state", state, "--max-axes", 2, "--json"))
    assert first.orthos == shapes(closure(HARBOUR, max_axes=2))
    assert (first.corpus, first.version, first.texts, first.open_work, first.closed) == ("main", 1, 1, 0, True)
    assert first.total == sum(first.orthos.values())
    assert 0 < first.search_seconds < first.seconds

    both = report_of(crochet("run", EVENING, "--state", state, "--json"))
    expected = closure(HARBOUR, EVENING, max_axes=2)
    assert (both.orthos, both.version, both.texts) == (shapes(expected), 2, 2)
    assert exported(state) == expected

    assert [(tuple(best.shape), tuple(best.words)) for best in both.best] == in_order(expected)[: len(both.best)]


def test_the_best_are_the_first_in_order(harbour: Path) -> None:
    """Running the same text again changes nothing and says so."""
    done = crochet("run", HARBOUR, "--state", harbour, "--json")
    assert "has this text already" in done.stderr
    report = report_of(done)
    assert report.version == 1
    first = [(list(sides), list(words)) for sides, words in in_order(closure(HARBOUR))[:3]]
    assert [(best.shape, best.words) for best in report.best] == first


def test_run_without_json_draws_the_best_and_counts_shapes(harbour: Path) -> None:
    done = crochet("run", HARBOUR, "--state", harbour)
    assert done.returncode == 0
    assert "3x3  volume 4\n┌─────┬──────┬─────┐\n│ the │" in re.sub(r" +\n", "\n", done.stdout)
    counted = dict(re.findall(r"^ *(\d(?:x\d)+) +(\d+) *$", done.stdout, re.MULTILINE))
    assert counted == {shape: str(number) for shape, number in shapes(closure(HARBOUR)).items()}
    assert re.search(r"^version 1 · work 0 open, \d+ done · 570 orthos · .* · best 3x3 · \d+\.\d s$", done.stderr, re.M)


def test_standard_input_and_a_byte_order_mark(state: Path) -> None:
    """Several files are versions in the order given; the same body under another name is the same text."""
    sea, shore = b"\xef\xbb\xbfthe sea and the sky", b"the sea. the sky. sea and. sky and."
    report = report_of(fed(shore, "run", "-", "--state", state, "--corpus", "sea", "--json"))
    assert (report.corpus, report.texts, report.total) == ("sea", 1, 1)
    other = state.parent / "other.txt"
    other.write_bytes(shore)
    (state.parent / "sea.txt").write_bytes(sea)
    done = crochet("run", other, state.parent / "sea.txt", "--state", state, "--corpus", "sea", "--json")
    assert "already, as 'standard input'" in done.stderr
    assert report_of(done).texts == 2


# ── export ──────────────────────────────────────────────────────────────────────────────────────


def test_export_writes_every_ortho_in_order(harbour: Path) -> None:
    lines = [json.loads(line) for line in crochet("export", "--state", harbour).stdout.splitlines()]
    orthos = [(tuple(line["shape"]), tuple(line["words"])) for line in lines]
    assert orthos == in_order(closure(HARBOUR))
    assert {ortho: line["born"] for ortho, line in zip(orthos, lines, strict=True)} == closure(HARBOUR)
    some = crochet("export", "--state", harbour, "--starts-with", "The wind").stdout.splitlines()
    assert [json.loads(line) for line in some] == [line for line in lines if line["words"][:2] == ["the", "wind"]]
    assert all(list(line) == ["id", "shape", "words", "born"] for line in lines)
    assert all(re.fullmatch(r"[0-9a-f]{32}", line["id"]) for line in lines)


def test_export_formats_say_the_same(harbour: Path) -> None:
    chosen = {words: born for (sides, words), born in closure(HARBOUR).items() if sides == (2, 2, 2)}
    arguments = ["export", "--state", harbour, "--shape", "2x2x2", "--format"]
    ids = {json.loads(line)["id"] for line in crochet(*arguments, "jsonl").stdout.splitlines()}
    rows = list(csv.DictReader(crochet(*arguments, "csv").stdout.splitlines()))
    assert {tuple(row["words"].split()): int(row["born"]) for row in rows} == chosen
    assert {row["id"] for row in rows} == ids
    assert {row["shape"] for row in rows} == {"2x2x2"}
    blocks = crochet(*arguments, "text").stdout.removesuffix("\n\n").split("\n\n")
    assert len(blocks) == len(chosen)
    for block in blocks:
        head, label, *first, other, third, fourth = block.splitlines()
        assert re.fullmatch(r"2x2x2  [0-9a-f]{32}  born 1", head)
        assert (label, other) == ("layer 1", "layer 2")
        rows_of_words = [*first, third, fourth]
        assert tuple(" ".join(rows_of_words).split()) in chosen
        assert len({row.rindex(row.split()[1]) for row in first}) == 1  # columns are aligned


def test_a_shape_without_orthos_is_no_error(harbour: Path) -> None:
    for shape in ("7x7", "2x99999999"):
        done = crochet("export", "--state", harbour, "--shape", shape)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("command", "first"), [("export", '{"id":'), ("export --format text", "3x3  ")])
def test_export_into_a_pipe_that_closes(harbour: Path, command: str, first: str) -> None:
    """No traceback, no complaint."""
    done = in_shell(f"set -o pipefail; {' '.join(CROCHET)} {command} --state '{harbour}' | head -n 1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(first)


def test_output_that_cannot_be_written_is_an_error(harbour: Path) -> None:
    for command in ("export", "status"):
        done = in_shell(f"{' '.join(CROCHET)} {command} --state '{harbour}' > /dev/full")
        refused(done, 1, "output_failed", "No space left")


# ── errors ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (None, "text_not_found", "no such file"),
        ("folder", "text_is_directory", "is a directory"),
        (b"the sea \xe9t", "text_not_utf8", "at offset 8"),
        (b"\xef\xbb\xbfthe sea \xff", "text_not_utf8", "at offset 11"),
        (b"the sea\0", "text_has_nul", "offset 7"),
        (b"", "text_without_words", "holds no words"),
        (b" 12 - 13 ... \n", "text_without_words", "holds no words"),
        (b"the sea " * 200, "text_too_large", "1000 bytes"),
    ],
)
def test_a_bad_file_leaves_nothing_behind(
    state: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str | None, code: str, says: str
) -> None:
    """Not even when a good one comes before it: no corpus, no state folder."""
    monkeypatch.setenv("CROCHET_MAX_TEXT_BYTES", "1000")
    good, bad = state.parent / "good.txt", state.parent / "bad.txt"
    good.write_text("the sea and the land")
    if content == "folder":
        bad.mkdir()
    elif isinstance(content, bytes):
        bad.write_bytes(content)
    refused(crochet("run", good, bad, "--state", state), 3, code, says, str(bad))
    assert not state.exists()


def test_an_unreadable_and_an_endless_file(state: Path) -> None:
    refused(crochet("run", "/proc/self/mem", "--state", state), 3, "text_unreadable", "cannot be read")
    refused(crochet("run", "/dev/zero", "--state", state), 3, "text_too_large", "CROCHET_MAX_TEXT_BYTES")
    refused(fed(b"...", "run", "-", "--state", state), 3, "text_without_words", "standard input")
    assert not state.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nonsense"], "usage", "nonsense"),
        (["run", "--nope", HARBOUR], "usage", "--nope"),
        (["run", HARBOUR, "--max-axes", "two"], "usage", "--max-axes"),
        (["run", HARBOUR, "--budget", 0], "usage", "--budget"),
        (["run", HARBOUR, "--budget", "none"], "usage", "or 'all'"),
        (["run"], "usage", "FILE"),
        (["run", "-", "-"], "usage", "only once"),
        (["run", HARBOUR, "--max-axes", 1], "limit_out_of_range", "max_axes must lie between 2 and 8, not 1"),
        (["run", HARBOUR, "--max-side", 65], "limit_out_of_range", "max_side"),
        (["run", HARBOUR, "--max-cells", 3], "limit_out_of_range", "max_cells"),
        (["run", HARBOUR, "--corpus", "a b"], "invalid_name", "'a b'"),
        (["export", "--shape", "3x2"], "invalid_shape", "'3x2'"),
        (["export", "--shape", "2"], "invalid_shape", "'2'"),
        (["export", "--shape", "02x2"], "invalid_shape", "'02x2'"),
        (["export", "--format", "xml"], "usage", "xml"),
    ],
)
def test_wrong_usage_makes_nothing(state: Path, arguments: list[object], code: str, says: str) -> None:
    refused(crochet(*arguments, "--state", state), 2, code, says)
    assert not state.exists()


def test_an_unknown_corpus_is_named_beside_the_known_ones(harbour: Path, state: Path) -> None:
    for command in (["export"], ["verify"], ["run"]):
        done = crochet(*command, "--corpus", "lost", "--state", harbour)
        refused(done, 3, "corpus_unknown", "no corpus 'lost'", "known: main")
    refused(crochet("export", "--state", state), 3, "corpus_unknown", "known: none")
    assert not state.exists()


def test_the_limits_of_a_corpus_are_fixed(harbour: Path) -> None:
    """The same ones may be given again."""
    done = crochet("run", EVENING, "--state", harbour, "--max-side", 5)
    refused(done, 2, "limits_fixed", "max_axes 3, max_side 8, max_cells 64", "cannot become max_side 5")
    assert report_of(crochet("run", HARBOUR, "--state", harbour, "--max-side", 8, "--json")).texts == 1


def test_a_setting_is_named_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROCHET_LOCK_TIMEOUT", "soon")
    refused(crochet("status"), 2, "invalid_setting", "CROCHET_LOCK_TIMEOUT")
    checked = crochet("doctor")
    assert checked.returncode == 4
    assert "WRONG  configuration: CROCHET_LOCK_TIMEOUT" in checked.stdout


def test_services_that_do_not_answer(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_text("a file")
    refused(crochet("run", HARBOUR, "--state", state), 4, "state_unusable", str(state))
    monkeypatch.setenv("CROCHET_DATABASE_URL", "postgresql://someone:hunter2@localhost:1/x")
    done = crochet("status")
    refused(done, 4, "database_unavailable", "Connection refused")
    checked = crochet("doctor")
    assert checked.returncode == 4
    assert "WRONG  server" in checked.stdout
    assert "hunter2" not in done.stderr + checked.stdout


def test_a_state_folder_in_use(harbour: Path) -> None:
    with EmbeddedPostgres(harbour):
        refused(crochet("run", HARBOUR, "--state", harbour), 4, "state_in_use", f"process {os.getpid()}")
        checked = crochet("doctor", "--state", harbour)
    assert checked.returncode == 4
    assert f"in use by another crochet (process {os.getpid()})" in checked.stdout


@pytest.mark.usefixtures("ready_state")
def test_an_unknown_schema(state: Path) -> None:
    """Made by a newer program; nothing is touched."""
    execute(state, "UPDATE alembic_version SET version_num = '9999'")
    for command in (["run", HARBOUR], ["status"], ["migrate"]):
        refused(crochet(*command, "--state", state), 4, "schema_unknown", "'9999'", "newer crochet")
    assert crochet("doctor", "--state", state).returncode == 4


def test_a_traceback_only_with_debug(harbour: Path) -> None:
    for arguments in (["--debug", "run", "lost.txt"], ["run", "lost.txt", "--debug"]):
        done = crochet(*arguments)
        assert done.returncode == 3
        assert done.stderr.startswith("Traceback")
        assert done.stderr.endswith("crochet: lost.txt: no such file [text_not_found]\n")


@pytest.mark.usefixtures("ready_state")
def test_a_text_that_cannot_be_ingested_fails_and_the_others_go_on(state: Path) -> None:
    """Its words are gone, its reason is shown, also the next time."""
    execute(
        state,
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'poisoned'; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON words FOR EACH ROW "
        "WHEN (NEW.word = 'poison') EXECUTE FUNCTION poison()",
    )
    bad = state.parent / "bad.txt"
    bad.write_text("the sea and the poison")
    done = crochet("run", bad, HARBOUR, "--state", state, "--json")
    assert done.returncode == 3
    assert re.search(r"^crochet: .*bad.txt could not be ingested: .*poisoned.* \[text_failed\]$", done.stderr, re.M)
    report = RunReport.model_validate_json(done.stdout)
    assert (report.version, report.texts, report.open_work) == (1, 1, 0)
    assert exported(state) == closure(HARBOUR)
    assert "poisoned" in crochet("run", bad, "--state", state).stderr
    assert report_of(crochet("run", HARBOUR, "--state", state, "--json")).closed


@pytest.mark.usefixtures("ready_state")
def test_work_that_fails_is_reported_and_tried_again_by_the_next_run(state: Path) -> None:
    execute(
        state,
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken'; END $$",
        "CREATE TRIGGER broken BEFORE INSERT ON batches FOR EACH ROW EXECUTE FUNCTION broken()",
    )
    done = crochet("run", HARBOUR, "--state", state, "--json", "--debug")
    assert done.returncode == 1
    assert re.search(r"^crochet: \d+ work items failed .*broken.* \[work_failed\]$", done.stderr, re.M)
    assert "Traceback" in done.stderr  # and it is that of the work
    report = RunReport.model_validate_json(done.stdout)
    assert report.failed_work > 0
    assert not report.closed
    execute(state, "DROP TRIGGER broken ON batches")
    assert report_of(crochet("run", "--state", state, "--json")).closed
    assert exported(state) == closure(HARBOUR)


# ── the other commands ──────────────────────────────────────────────────────────────────────────


def test_status_says_what_there_is(harbour: Path, state: Path) -> None:
    """Where there is nothing it makes nothing."""
    empty = crochet("status", "--state", state)
    assert (empty.returncode, empty.stdout[:20]) == (0, "There is nothing yet")
    assert Status.model_validate_json(crochet("status", "--state", state, "--json").stdout).corpora == []
    assert not state.exists()

    status = Status.model_validate_json(crochet("status", "--state", harbour, "--json").stdout)
    (corpus,) = status.corpora
    known = oracle.phrases([HARBOUR.read_text()], 8)
    assert (corpus.words, corpus.phrases) == (sum(len(phrase) == 1 for phrase in known), len(known))
    assert corpus.orthos == shapes(closure(HARBOUR))
    assert next(iter(corpus.orthos)) == "3x3"
    assert (corpus.texts, corpus.work["open"], corpus.version) == ({"current": 1}, 0, 1)
    assert 0 < corpus.bytes < (status.bytes or 0)
    assert "570" in crochet("status", "--state", harbour).stdout


NO_CORPUS = "There is no corpus yet: 'crochet corpora create NAME' makes one, and so does the first text.\n"


@pytest.mark.usefixtures("ready_state")
def test_corpora_of_a_store_are_made_changed_and_deleted(state: Path) -> None:
    """As those of an API; what is deleted leaves nothing, and its name is free."""
    at = ("--state", state)
    made = json.loads(crochet("corpora", "create", "one", "--max-axes", 2, *at, "--json").stdout)
    assert (made["name"], made["limits"]["max_axes"], made["budget"]) == ("one", 2, None)
    refused(crochet("corpora", "create", "one", *at), 2, "corpus_exists", "'one'")
    changed = crochet("corpora", "set", "one", "--rename", "two", "--budget", 5, "--description", "x", *at, "--json")
    assert json.loads(changed.stdout).items() >= {"name": "two", "budget": 5, "description": "x"}.items()
    assert json.loads(crochet("corpora", "set", "two", "--no-budget", *at, "--json").stdout)["budget"] is None
    refused(crochet("corpora", "set", "two", *at), 2, "usage", "--description")
    assert report_of(crochet("run", HARBOUR, *at, "--corpus", "two", "--json")).total == len(
        closure(HARBOUR, max_axes=2)
    )
    assert crochet("verify", *at).stdout == "corpus 'two': no problems\n"
    refused(crochet("corpora", "delete", "two", *at), 2, "not_confirmed", "--confirm two")
    assert crochet("corpora", "delete", "two", "--confirm", "two", *at).returncode == 0
    assert crochet("corpora", "list", *at).stdout == NO_CORPUS
    assert crochet("verify", *at).stdout == "There is no corpus yet: 'crochet run FILE' makes one.\n"
    refused(crochet("run", *at), 2, "usage", "crochet run FILE")
    with database(state) as opened, opened.transaction() as connection:
        assert (
            connection.execute(text("SELECT (SELECT count(*) FROM batches) + (SELECT count(*) FROM texts)")).scalar()
            == 0
        )


def test_corpora_of_no_store_make_none(state: Path) -> None:
    assert (crochet("corpora", "list", "--state", state).stdout, state.exists()) == (NO_CORPUS, False)
    assert crochet("corpora", "list", "--state", state, "--json").stdout == ""
    for command in (["delete", "x", "--confirm", "x"], ["set", "x", "--no-budget"]):
        refused(crochet("corpora", *command, "--state", state), 3, "corpus_unknown", "'x'")
    assert not state.exists()


def test_settings_are_shown_with_where_each_comes_from(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROCHET_BROKER_URL", "amqp://guest:hunter2@host:5672//")
    shown = crochet("settings", "--state", state)
    assert "hunter2" not in shown.stdout
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in shown.stdout.splitlines()}
    assert lines["CROCHET_BROKER_URL"] == ["environment", "amqp://***@host:5672//"]
    assert lines["CROCHET_STATE_DIR"] == ["option", str(state)]
    assert lines["CROCHET_API_PORT"] == ["default", "8080"]


@pytest.mark.usefixtures("ready_state")
def test_verify_names_what_is_wrong(state: Path) -> None:
    crochet("run", HARBOUR, "--state", state)
    execute(state, "UPDATE counts SET orthos = orthos + 1 WHERE sides = '{2,2}'")
    done = crochet("verify", "--state", state)
    assert done.returncode == 1
    assert "2x2" in done.stdout
    assert done.stderr.rstrip().endswith("[store_corrupt]")


def test_a_server_of_ones_own(harbour: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is migrated by `migrate` and by nothing else, and then does what the private one does."""
    with EmbeddedPostgres(tmp_path / "server") as server:
        monkeypatch.setenv("CROCHET_DATABASE_URL", server.url)
        refused(crochet("run", HARBOUR), 4, "schema_unknown", "'none'", "run 'crochet migrate'")
        checked = crochet("doctor")
        assert checked.returncode == 4
        assert "WRONG  schema: none  ->  run 'crochet migrate'" in checked.stdout
        assert crochet("migrate").stdout == f"schema: none -> {schema.HEAD}\n"
        assert crochet("migrate").stdout == f"schema: {schema.HEAD} -> {schema.HEAD} (nothing to do)\n"
        done = crochet("run", HARBOUR, "--state", tmp_path / "unused", "--json")
        assert "--state is not used" in done.stderr
        assert report_of(done).orthos == shapes(closure(HARBOUR))
        assert crochet("doctor").returncode == 0
        assert not (tmp_path / "unused").exists()


def test_doctor_finds_a_good_set_up_good(harbour: Path, state: Path) -> None:
    """It makes no state folder to find out; a variable that is none is pointed out."""
    for folder in (harbour, state):
        checked = crochet("doctor", "--state", folder)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert "ok     server: Postgres 18" in checked.stdout
        assert "WRONG" not in checked.stdout
    assert not state.exists()


def test_help_and_version() -> None:
    """How long --help takes is shown, not judged: machines differ."""
    began = time.perf_counter()
    shown = crochet("--help")
    print(f"crochet --help: {time.perf_counter() - began:.2f} s")  # noqa: T201
    assert shown.returncode == 0
    for command in ("run", "export", "verify", "migrate", "status", "doctor"):
        assert command in shown.stdout
    assert crochet("--version").stdout.startswith("crochet")
    assert crochet().returncode == 2
    loaded = in_shell(f"{sys.executable} -X importtime {' '.join(CROCHET[1:])} --help")
    heavy = {"numpy", "sqlalchemy", "celery", "pydantic_settings", "psycopg", "alembic"}
    assert not heavy & {line.rsplit("|", 1)[-1].strip() for line in loaded.stderr.splitlines()}
