"""The command line as a program. Expected orthos come from the oracle."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.schemas.reports import RunReport
from tests.support.cli import (
    EVENING,
    HARBOUR,
    closure,
    crochet,
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
    """One command works on it at a time; others look at it, and change its work, beside that."""
    with EmbeddedPostgres(harbour):
        assert exported(harbour) == closure(HARBOUR)
        for command in (["status"], ["corpora", "list"], ["work", "list"], ["verify"]):
            done = crochet(*command, CROCHET_STATE_DIR=str(harbour))
            assert (done.returncode, done.stdout != "") == (0, True), done.stderr
        refused(crochet("run", HARBOUR, "--state", harbour), 4, "state_in_use", f"process {os.getpid()}")
        checked = crochet("doctor", "--state", harbour)
    assert checked.returncode == 4
    assert f"in use by another crochet (process {os.getpid()})" in checked.stdout


@pytest.mark.usefixtures("ready_state")
def test_an_unknown_schema(state: Path) -> None:
    """Made by a newer program, and it does not serve this one; nothing is touched."""
    execute(state, "UPDATE alembic_version SET version_num = '9999', serves = '9999'")
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


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("from crochet_tasks.embedded import store; from crochet_tasks.operate import inspection", "celery redis"),
        ("import web; from crochet_tasks.services import http_server", "celery authlib joserfc alembic"),
    ],
    ids=["what looks at a store", "the API"],
)
def test_what_need_not_wait_for_a_package_does_not(program: str, heavy: str) -> None:
    check = f"import sys; sys.exit(str({set(heavy.split())} & set(sys.modules)))"
    done = in_shell(f'{sys.executable} -c "{program}; {check}"')
    assert done.stderr == "set()\n"
