"""The fsck finds and names what psql can damage, and reports nothing for a healthy store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import make_url

from crochet_tasks import verify
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.settings import Settings
from tests.support import steps

pytestmark = pytest.mark.integration

SQUARES = "(SELECT min(id) FROM batches WHERE sides = '{2,2}' AND count > 1)"
OLD = "(SELECT min(id) FROM batches WHERE sides = '{2,2}' AND born = 1)"

# The damage, and what the fsck reports.
DAMAGE = {
    "counter of orthos": ("UPDATE counts SET orthos = orthos + 1 WHERE sides = '{2,3}'", "2x3: the counters say"),
    "counter of batches": ("UPDATE counts SET batches = batches + 1 WHERE sides = '{3,3}'", "3x3: the counters say"),
    "counter gone": ("DELETE FROM counts WHERE sides = '{2,2,3}'", "2x2x3: the counters say 0 orthos in 0 batches"),
    "batch twice": (
        """
        WITH again AS (
            INSERT INTO batches (key, corpus, sides, count, width, cells, found_by, born)
            SELECT gen_random_uuid(), corpus, sides, count, width, cells, found_by, born FROM batches
             WHERE sides = '{2,3}' ORDER BY id LIMIT 1 RETURNING id
        )
        INSERT INTO remediations SELECT again.id, 3, '' FROM again
        """,
        "orthos are stored more than once; ",
    ),
    "ortho twice in a batch": (
        (
            "UPDATE batches SET cells = substr(cells, 1, 2) || substr(cells, 1, 2) || substr(cells, 5, 2)"
            " || substr(cells, 5, 2)"
            f" || substr(cells, 9, 2) || substr(cells, 9, 2) || substr(cells, 13, 2) || substr(cells, 13, 2), count = 2"
            f" WHERE id = {SQUARES}"
        ),
        "is twice in batch",
    ),
    "unknown word": (f"UPDATE batches SET cells = set_byte(cells, 1, 255) WHERE id = {SQUARES}", "holds word id 65"),
    "wrong word": (
        f"UPDATE batches SET cells = set_byte(cells, 0, 20) WHERE id = {SQUARES}",
        "1 orthos with a line that is no phrase of version",
    ),
    "born too early": (
        "UPDATE batches SET born = 1 WHERE sides = '{2,2,3}'",
        "orthos with a line that is no phrase of version 1: [",
    ),
    "born in the future": (
        "UPDATE batches SET born = 9 WHERE sides = '{2,2,3}'",
        "was born in version 9, but there are 3",
    ),
    "axes swapped": (
        (
            "UPDATE batches SET cells = substr(cells, 1, 2 * count) || substr(cells, 1 + 4 * count, 2 * count)"
            f" || substr(cells, 1 + 2 * count, 2 * count) || substr(cells, 1 + 6 * count) WHERE id = {SQUARES}"
        ),
        "not in canonical form",
    ),
    "shells alike": (
        (
            "UPDATE batches SET cells = substr(cells, 1, 4 * count) || substr(cells, 1 + 2 * count, 2 * count)"
            f" || substr(cells, 1 + 6 * count) WHERE id = {SQUARES}"
        ),
        "with a word twice in one shell",
    ),
    "limits narrowed": ("UPDATE corpora SET max_cells = 6", "(2x4) is beyond the limits of the corpus"),
    "remediation gone": (f"DELETE FROM remediations WHERE batch = {OLD}", "neither a remediation nor open work"),
    "remediation doubled": (
        f"UPDATE remediations SET phrases = phrases || phrases WHERE batch = {OLD}",
        "not ascending, each once",
    ),
    "remediation of no phrase": (
        rf"UPDATE remediations SET phrases = phrases || '\xffffff00'::bytea WHERE batch = {OLD}",
        "waits on phrases that version 3 does not have",
    ),
    "remediation of the future": (
        f"UPDATE remediations SET searched = 9 WHERE batch = {OLD}",
        "was searched up to version 9",
    ),
    "due and forgotten": (
        rf"UPDATE remediations SET searched = 1, phrases = '\x01000000' WHERE batch = {OLD}",
        "is due and has no open work: it waits on phrase 1 (a), which version 3 continued",
    ),
    "work without batch": (
        (
            "INSERT INTO work (id, corpus, kind, subject, since, version, priority, sides)"
            " VALUES (gen_random_uuid(), 1, 'grow', 999, 0, 1, 1, '{2,2}')"
        ),
        "work is open for batch 999, which does not exist",
    ),
    "work from the beginning again": (
        (
            "INSERT INTO work (id, corpus, kind, subject, since, version, priority, sides, size)"
            f" SELECT gen_random_uuid(), 1, 'grow', id, 0, 1, 1, sides, count FROM batches WHERE id = {OLD}"
        ),
        "was searched up to version 3, its work says 0",
    ),
    "work for another shape": (
        (
            "INSERT INTO work (id, corpus, kind, subject, since, version, priority, sides, size)"
            f" SELECT gen_random_uuid(), 1, 'grow', id, 3, 4, 1, '{{3,3}}', count FROM batches WHERE id = {OLD}"
        ),
        "its work is for",
    ),
    "versions with a gap": ("UPDATE texts SET version = 7 WHERE version = 3", "its texts made versions [1, 2, 7]"),
    "version ahead": ("UPDATE corpora SET version = 4", "the corpus is at version 4"),
    "versions out of order": (
        "UPDATE texts SET seq = seq + 10; UPDATE texts SET seq = 14 - seq",
        "did not become versions in the order of their acceptance",
    ),
    "text rewritten": ("UPDATE texts SET body = body || ' more' WHERE version = 2", "its checksum differs"),
    "text forgotten": (
        "INSERT INTO texts (corpus, seq, title, body, sha256) VALUES (1, 4, 'x', 'x', sha256('x'))",
        "is accepted and has no open work",
    ),
    "limit moved": ("UPDATE texts SET phrases = phrases - 1 WHERE version = 1", "born in version"),
    "limits descending": ("UPDATE texts SET phrases = 2 WHERE version = 2", "do not ascend"),
    "phrases gone": (
        "DELETE FROM phrases WHERE first = (SELECT max(first) FROM phrases)",
        "version 3 has",
    ),
    "half-made phrases": (
        (
            "INSERT INTO phrases (corpus, first, count, born, parent, word)"
            r" SELECT 1, max(next), 1, 4, '\x01000000', '\x00000000' FROM phrases"
        ),
        "half-made phrases or words of version 4",
    ),
    "half-made words": (
        "INSERT INTO words SELECT 1, max(id) + 1, 4, 'new' FROM words",
        "the phrase of that one word does not",
    ),
    "phrase twice": (
        (
            "UPDATE phrases SET parent = substr(parent, 1, 4) || substr(parent, 1, 4) || substr(parent, 9),"
            " word = substr(word, 1, 4) || substr(word, 1, 4) || substr(word, 9) WHERE first = 1"
        ),
        "phrases 1 and 2 are the same",
    ),
    "phrase before its prefix": (
        r"UPDATE phrases SET parent = '\x05000000' || substr(parent, 5) WHERE first = 1",
        "phrase 1 does not come after its prefix",
    ),
    "phrase without its parts": (
        "UPDATE phrases SET word = substr(word, 1, 4 * (count - 1)) || '\\x00000000' WHERE first > 1 AND born = 3",
        "exists, but not all of its parts do",
    ),
    "words with a gap": ("DELETE FROM words WHERE id = 3", "the ids of the words have a gap"),
    "word gone": ("DELETE FROM words WHERE id = (SELECT max(id) FROM words)", "ends in a word that does not exist"),
    "word born early": (
        "UPDATE words SET born = 2 WHERE born = 3",
        "is born in version 2, the phrase of that one word in 3",
    ),
}

# What only searching again can tell.
DEEP_DAMAGE = {
    "batch gone": (
        (
            "WITH gone AS (DELETE FROM batches WHERE sides = '{2,2,3}' RETURNING 1)"
            " DELETE FROM counts WHERE sides = '{2,2,3}'"
        ),
        "2x2x3: 0 orthos stored, 1 exist; missing: [a b c / l m p / d e f / n o q]",
    ),
    "remediation emptied": (
        f"UPDATE remediations SET phrases = '' WHERE batch = {OLD}",
        "phrases that its search consults, such as phrase",
    ),
    "searched before it existed": (
        "UPDATE remediations SET searched = 1, phrases = '' FROM batches WHERE id = batch AND sides = '{2,2,3}'",
        "holds orthos younger than version 1",
    ),
    "another text": (
        "UPDATE texts SET body = 'no new words', sha256 = sha256('no new words') WHERE version = 3",
        "brings 6 phrases; version 3 has",
    ),
}


@pytest.fixture(scope="module")
def healthy(create: Callable[[str], str], migrated: str) -> str:
    """The name of a database that holds the closure of three texts as corpus 1, in many batches."""
    url = create(migrated)
    with open_process(Settings(batch_orthos=7), url) as process:
        corpus = steps.new_corpus(process, name="healthy")
        steps.ingest_all(corpus, steps.TEXTS)
    return str(make_url(url).database)


@pytest.fixture
def process(create: Callable[[str], str], healthy: str) -> Iterator[Process]:
    with open_process(Settings(), create(healthy)) as process:
        yield process


def problems(process: Process, *, closure: bool = False) -> list[str]:
    return verify.verify(process, corpus_of(process), closure=closure)


def corpus_of(process: Process) -> Corpus:
    with process.database.transaction() as connection:
        return corpora.named(connection, "healthy")


def test_healthy(process: Process) -> None:
    """A healthy store has no problems, and the progress tells what was done."""
    lines: list[str] = []
    assert verify.verify(process, corpus_of(process), closure=True, progress=lines.append) == []
    assert "searched everything again: 35 orthos" in lines
    assert any(line.startswith("checked 2x2x3: 1 orthos") for line in lines)


def test_nothing_yet(process: Process) -> None:
    """A corpus without texts has no problems either."""
    assert verify.verify(process, steps.new_corpus(process), closure=True) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(process: Process, damage: str) -> None:
    """Damage is found without searching, and named."""
    statement, message = DAMAGE[damage]
    for part in statement.split("; "):
        steps.sql(process, part)
    found = problems(process)
    assert any(message in problem for problem in found), found


@pytest.mark.parametrize("damage", DEEP_DAMAGE)
def test_deep_damage_is_found(process: Process, damage: str) -> None:
    """Damage that leaves everything consistent is found by searching again, and named."""
    statement, message = DEEP_DAMAGE[damage]
    steps.sql(process, statement)
    found = problems(process, closure=True)
    assert any(message in problem for problem in found), found


def test_many_passes(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at a few ids at a time, a healthy store is healthy and what is stored twice is found."""
    monkeypatch.setattr("crochet_tasks.verify.store.IDS_AT_ONCE", 3)
    assert problems(process, closure=True) == []
    steps.sql(process, DAMAGE["batch twice"][0])
    assert any("stored more than once" in problem for problem in problems(process))


def test_long_lists_are_cut(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many problems the first are reported and the others counted."""
    monkeypatch.setattr("crochet_tasks.verify.store.MOST_PROBLEMS", 2)
    steps.sql(process, "DELETE FROM remediations")
    found = problems(process)
    assert len(found) == 3
    assert found[2].startswith("and ")


def test_other_corpora_do_not_matter(process: Process) -> None:
    """Damage in one corpus is none in another."""
    other = steps.new_corpus(process)
    steps.ingest_all(other, steps.TEXTS[:1])
    steps.sql(process, "UPDATE counts SET orthos = orthos + 1 WHERE corpus = :corpus", corpus=other.id)
    assert problems(process, closure=True) == []
    assert verify.verify(process, other, closure=False) != []
