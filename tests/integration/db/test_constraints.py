"""Every constraint of the schema, tried with a row that is accepted and one that it refuses."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from psycopg.types.range import Range
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import IntegrityError

from crochet_tasks.db.metadata import metadata
from crochet_tasks.db.process import Process
from crochet_tasks.db.sessions import Database
from crochet_tasks.settings import Settings
from tests.support import steps

pytestmark = pytest.mark.integration


NOW = datetime(2026, 11, 1, tzinfo=UTC)
KNOWN, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
PART = Range(0, 1)

BATCH: dict[str, object] = {
    "key": KNOWN,
    "corpus": 1,
    "sides": [2, 2],
    "count": 1,
    "numbering": 1,
    "first": "a b c d",
    "last": "a b c d",
    "packed": bytes(8),
    "found_by": OTHER,
    "born": 1,
}

SEAL: dict[str, object] = {
    "source": "audit",
    "first": 1,
    "last": 1,
    "rows": 1,
    "oldest": NOW,
    "before": b"",
    "root": bytes(32),
    "hash": bytes(32),
}

# A small store: corpus 1 with a text, a word, two phrases, two batches (one searched) and work for the other one.
STORE: list[tuple[str, dict[str, object]]] = [
    (
        "keys",
        {
            "tenant": 1,
            "prefix": "a" * 10,
            "hash": bytes(32),
            "name": "known",
            "scopes": ["read"],
            "person": "known",
        },
    ),
    (
        "keys",
        {
            "tenant": 1,
            "prefix": "c" * 10,
            "hash": bytes(32),
            "name": "successor",
            "scopes": ["read"],
        },
    ),
    (
        "keys",
        {
            "tenant": 1,
            "prefix": "d" * 10,
            "hash": bytes(32),
            "name": "rotated",
            "scopes": ["read"],
            "rotated_at": NOW,
            "successor": 2,
        },
    ),
    ("sessions", {"id": KNOWN, "key": 1, "scopes": ["read"], "expires_at": NOW}),
    ("refresh_tokens", {"hash": bytes(32), "session": KNOWN}),
    ("signatures", {"signature": bytes(32)}),
    ("request_counts", {"client": "known", "slot": 1, "requests": 1}),
    ("seals", SEAL),
    ("corpora", {"name": "known", "max_axes": 3, "max_side": 8, "max_cells": 64, "reading": "2/18.0"}),
    ("idempotency", {"corpus": 1, "key": "known", "request": bytes(32), "status": 200, "answer": {}}),
    (
        "texts",
        {
            "corpus": 1,
            "seq": 1,
            "title": "one",
            "body": "a",
            "sha256": b"1" * 32,
            "state": "current",
            "version": 1,
            "phrases": 3,
        },
    ),
    ("second_factors", {"key": 1, "secret": b"secret"}),
    ("words", {"corpus": 1, "id": 0, "born": 1, "word": "a"}),
    ("phrases", {"corpus": 1, "first": 1, "count": 2, "born": 1, "parent": bytes(8), "word": bytes(8)}),
    ("batches", BATCH),
    ("batches", {**BATCH, "key": uuid.UUID(int=3)}),
    ("remediations", {"batch": 1, "phrases": bytes(4)}),
    (
        "work",
        {
            "id": KNOWN,
            "corpus": 1,
            "kind": "search",
            "subject": 1,
            "part": PART,
            "since": 0,
            "version": 1,
            "priority": 1,
        },
    ),
    ("windows", {"corpus": 1, "version": 1, "since": 0, "starts": 9}),
    ("counts", {"corpus": 1, "sides": [2, 2], "orthos": 2, "batches": 2}),
    ("best", {"corpus": 1, "version": 1, "max_side": 8}),
    ("best_faces", {"job": 1, "sides": [2, 2], "first": 0, "count": 1, "boxes": b"boxes"}),
]

# One more row of each table that is welcome there.
WELCOME: dict[str, dict[str, object]] = {
    "tenants": {"name": "new"},
    "keys": {"tenant": 1, "prefix": "b" * 10, "hash": bytes(32), "name": "new", "scopes": ["write", "admin"]},
    "second_factors": {"key": 2, "secret": b"secret"},
    "sessions": {"id": OTHER, "key": 1, "scopes": ["read"], "expires_at": NOW},
    "refresh_tokens": {"hash": b"1" * 32, "session": KNOWN},
    "signatures": {"signature": b"1" * 32},
    "idempotency": {"corpus": 1, "key": "new", "request": bytes(32), "status": 202, "answer": {"body": {}}},
    "request_counts": {"client": "known", "slot": 2, "requests": 1},
    "security_log": {"what": "key.created"},
    "seals": {**SEAL, "first": 2, "last": 2},
    "corpora": {"name": "new", "max_axes": 2, "max_side": 2, "max_cells": 4, "reading": "2/18.0"},
    "texts": {"corpus": 1, "seq": 2, "title": "two", "body": "b", "sha256": b"2" * 32},
    "words": {"corpus": 1, "id": 1, "born": 1, "word": "b"},
    "phrases": {"corpus": 1, "first": 3, "count": 1, "born": 1, "parent": bytes(4), "word": bytes(4)},
    "batches": {**BATCH, "key": OTHER, "sides": [2, 3]},
    "remediations": {"batch": 2, "phrases": b""},
    "work": {"id": OTHER, "corpus": 1, "kind": "ingest", "subject": 1, "since": 0, "version": 0, "priority": 1},
    "attempts": {"work": KNOWN, "corpus": 1, "number": 1, "error": {"code": "why"}},
    "dead_letters": {"queue": "search", "reason": "rejected", "body": b"", "died_at": NOW},
    "windows": {"corpus": 1, "version": 2, "since": 1, "due": b"", "starts": 0},
    "counts": {"corpus": 1, "sides": [2, 3], "orthos": 0, "batches": 0},
    "best": {"corpus": 1, "version": 1, "max_side": 7},
    "best_faces": {"job": 1, "sides": [2, 3], "first": 0, "count": 1, "boxes": b"boxes"},
}
SEARCH: dict[str, object] = {"kind": "search", "part": PART, "version": 1}

# The constraint, and what is wrong with an otherwise welcome row.
REFUSED: list[tuple[str, dict[str, object]]] = [
    ("seals_source_first_key", {"first": 1}),
    ("corpora_name_check", {"name": "with spaces"}),
    ("corpora_max_axes_check", {"max_axes": 1}),
    ("corpora_max_side_check", {"max_side": 65}),
    ("corpora_max_cells_check", {"max_cells": 3}),
    ("corpora_version_check", {"version": -1}),
    ("corpora_description_check", {"description": "x" * 2001}),
    ("corpora_budget_check", {"budget": 0}),
    ("corpora_revision_check", {"revision": 0}),
    ("corpora_priority_check", {"priority": 4}),
    ("corpora_tenant_fkey", {"tenant": 99}),
    ("corpora_tenant_name_key", {"name": "known"}),
    ("tenants_name_check", {"name": "with spaces"}),
    ("tenants_name_key", {"name": "default"}),
    ("tenants_max_corpora_check", {"max_corpora": -1}),
    ("tenants_rate_check", {"rate": 0}),
    ("texts_priority_check", {"priority": 4}),
    ("tenants_weight_check", {"weight": 101}),
    ("tenants_max_searches_check", {"max_searches": 0}),
    ("tenants_max_orthos_check", {"max_orthos": 0}),
    ("tenants_max_texts_check", {"max_texts": -1}),
    ("tenants_max_bytes_check", {"max_bytes": -1}),
    ("keys_prefix_check", {"prefix": "SHORT"}),
    ("keys_prefix_key", {"prefix": "a" * 10}),
    ("keys_hash_check", {"hash": b"short"}),
    ("keys_name_check", {"name": ""}),
    ("keys_scopes_check", {"scopes": ["root"]}),
    ("keys_scopes_check", {"scopes": []}),
    ("keys_corpora_check", {"corpora": []}),
    ("keys_tier_check", {"tier": "best"}),
    ("keys_rotated_check", {"rotated_at": NOW}),
    ("keys_tenant_fkey", {"tenant": 99}),
    ("keys_successor_fkey", {"rotated_at": NOW, "successor": 99}),
    ("keys_successor_key", {"rotated_at": NOW, "successor": 2}),
    ("keys_person_key", {"person": "known"}),
    ("second_factors_pkey", {"key": 1}),
    ("second_factors_key_fkey", {"key": 99}),
    ("sessions_pkey", {"id": KNOWN}),
    ("sessions_scopes_check", {"scopes": ["root"]}),
    ("sessions_key_fkey", {"key": 99}),
    ("refresh_tokens_pkey", {"hash": bytes(32)}),
    ("refresh_tokens_hash_check", {"hash": b"short"}),
    ("refresh_tokens_session_fkey", {"session": OTHER}),
    ("signatures_pkey", {"signature": bytes(32)}),
    ("signatures_signature_check", {"signature": b"short"}),
    ("request_counts_pkey", {"slot": 1}),
    ("idempotency_pkey", {"key": "known"}),
    ("idempotency_key_check", {"key": ""}),
    ("idempotency_request_check", {"request": b"short"}),
    ("idempotency_status_check", {"status": 100}),
    ("idempotency_corpus_fkey", {"corpus": 99}),
    ("texts_corpus_seq_key", {"seq": 1}),
    ("texts_corpus_version_key", {"state": "current", "version": 1, "phrases": 3}),
    ("texts_corpus_sha256_key", {"sha256": b"1" * 32}),
    ("texts_sha256_check", {"sha256": b"short"}),
    ("texts_state_check", {"state": "lost"}),
    ("texts_version_check", {"state": "current"}),
    ("texts_phrases_check", {"phrases": 3}),
    ("texts_error_check", {"state": "failed"}),
    ("texts_corpus_fkey", {"corpus": 99}),
    ("words_pkey", {"id": 0}),
    ("words_corpus_word_key", {"word": "a"}),
    ("words_numbers_check", {"born": 0}),
    ("words_corpus_fkey", {"corpus": 99}),
    ("phrases_pkey", {"first": 1}),
    ("phrases_corpus_next_key", {"first": 2}),
    ("phrases_corpus_after_fkey", {"first": 5}),
    ("phrases_numbers_check", {"count": 0, "parent": b"", "word": b""}),
    ("phrases_corpus_fkey", {"corpus": 99, "first": 1}),
    ("batches_key_key", {"key": KNOWN}),
    ("batches_count_check", {"count": 0}),
    ("batches_sides_check", {"sides": [4]}),
    ("batches_sides_check", {"sides": [1, 4]}),
    ("batches_sides_check", {"sides": [3, 2]}),
    ("batches_range_check", {"last": "a b c"}),
    ("batches_born_check", {"born": 0}),
    ("batches_born_check", {"born": 2}),
    ("batches_corpus_fkey", {"corpus": 99}),
    ("remediations_pkey", {"batch": 1}),
    ("remediations_batch_fkey", {"batch": 99}),
    ("work_pkey", {"id": KNOWN}),
    ("work_kind_check", {"kind": "dance"}),
    ("work_state_check", {"state": "lost"}),
    ("work_finished_check", {"state": "done"}),
    ("work_error_check", {"state": "failed"}),
    ("work_part_check", {**SEARCH, "part": None}),
    ("work_part_check", {**SEARCH, "boxes": b""}),
    ("work_part_check", {"part": PART}),
    ("work_versions_check", {**SEARCH, "since": 1}),
    ("windows_pkey", {"version": 1, "since": 0}),
    ("windows_numbers_check", {"since": 2}),
    ("windows_corpus_fkey", {"corpus": 99}),
    ("work_corpus_fkey", {"corpus": 99}),
    ("attempts_work_fkey", {"work": uuid.UUID(int=99)}),
    ("attempts_corpus_fkey", {"corpus": 99}),
    ("counts_pkey", {"sides": [2, 2]}),
    ("counts_numbers_check", {"orthos": -1}),
    ("counts_corpus_fkey", {"corpus": 99}),
    ("best_corpus_fkey", {"corpus": 99}),
    ("best_question_key", {"max_side": 8}),
    ("best_version_check", {"version": -1}),
    ("best_limits_check", {"max_axes": 1}),
    ("best_top_check", {"top": 0}),
    ("best_search_check", {"revision": 1}),
    ("best_search_check", {"search": "{}"}),
    ("best_finished_check", {"certificate": "{}"}),
    ("best_faces_pkey", {"sides": [2, 2]}),
    ("best_faces_job_fkey", {"job": 99}),
    ("best_faces_count_check", {"count": 0}),
    ("best_faces_sides_check", {"sides": [4]}),
    ("work_part_check", {"kind": "best", "boxes": b""}),
]


@pytest.fixture(scope="module")
def small(create: Callable[[str], str], migrated: str) -> Iterator[Database]:
    """A database that holds STORE; tests of this module leave it as it is."""
    database = Database(create(migrated), Settings())
    with database.transaction() as connection:
        for table, row in STORE:
            connection.execute(insert(metadata.tables[table]), row)
    yield database
    database.close()


def put(connection: Connection, table: str, **change: object) -> None:
    connection.execute(insert(metadata.tables[table]), {**WELCOME[table], **change})


@pytest.mark.parametrize("table", WELCOME)
def test_a_sound_row_is_accepted(small: Database, table: str) -> None:
    """A sound row is accepted: what the next test sees refused is refused for its fault."""
    with small.transaction() as connection:
        put(connection, table)
        connection.rollback()


@pytest.mark.parametrize(
    ("constraint", "change"), REFUSED, ids=[f"{number}-{name}" for number, (name, _) in enumerate(REFUSED)]
)
def test_each_constraint_refuses_its_row(small: Database, constraint: str, change: dict[str, object]) -> None:
    """A row that violates an invariant is refused by the constraint that states it."""
    with pytest.raises(IntegrityError) as refusal, small.transaction() as connection:
        put(connection, max((table for table in WELCOME if constraint.startswith(f"{table}_")), key=len), **change)
    assert refusal.value.orig is not None
    assert refusal.value.orig.diag.constraint_name == constraint  # type: ignore[attr-defined]


def test_no_constraint_is_forgotten(small: Database) -> None:
    """Every constraint and unique index of the schema has a row that it refuses, above."""
    with small.transaction() as connection:
        names = set(connection.execute(text(CONSTRAINTS)).scalars())
    # Of generated ids.
    generated = {f"{table}_pkey" for table in GENERATED}
    assert names - generated == {name for name, _ in REFUSED}


GENERATED = (
    "attempts",
    "audit",
    "batches",
    "best",
    "corpora",
    "dead_letters",
    "keys",
    "seals",
    "security_log",
    "tenants",
    "texts",
)
CONSTRAINTS = """
SELECT conname FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
 WHERE relnamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p', 'u') AND relname <> 'alembic_version'
 UNION
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
 WHERE relnamespace = 'public'::regnamespace AND indisunique AND relname NOT LIKE 'alembic%'
"""


def test_remediation_goes_with_its_batch(process: Process) -> None:
    """No remediation refers to orthos that are gone."""
    corpus = steps.new_corpus(process)
    steps.ingest_all(corpus, steps.TEXTS)
    assert steps.sql(process, "SELECT FROM remediations")
    steps.sql(process, "DELETE FROM batches")
    assert steps.sql(process, "SELECT FROM remediations") == []
