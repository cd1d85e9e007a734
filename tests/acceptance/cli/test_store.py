"""Commands that show, change, check and export a store, as programs."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from sqlalchemy import text

from crochet_tasks.db import schema
from crochet_tasks.embedded.server import EmbeddedPostgres
from crochet_tasks.schemas.reports import Status
from tests.support import oracle
from tests.support.cli import HARBOUR, closure, crochet, database, execute, in_shell, refused, report_of, shapes
from tests.support.commands import CROCHET
from tests.support.packed import in_order

pytestmark = pytest.mark.acceptance


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
