"""The fsck finds and names what psql can damage, and reports nothing for a healthy store."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import make_url

from crochet_tasks import verify
from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import Corpus
from crochet_tasks.db.process import Process, open_process
from crochet_tasks.engine import runs
from crochet_tasks.engine.geometry import Limits
from crochet_tasks.settings import Settings
from tests.support import steps
from tests.support.closures import indexed

pytestmark = pytest.mark.integration

SQUARES = "(SELECT min(id) FROM batches WHERE sides = '{2,2}' AND count > 1)"
OLD = "(SELECT min(id) FROM batches WHERE sides = '{2,2}' AND born = 1)"


def literal(numbers: npt.NDArray[np.int32]) -> str:
    return f"'\\x{runs.pack_numbers(numbers).hex()}'"


def phrases_with(version: int, places: slice, parent: int | None = None, word: int | None = None) -> str:
    """Write other prefixes or last words at these places into the phrases of a version."""
    index = indexed(steps.TEXTS, Limits().max_side)
    new = slice(*index.limits[version - 1 : version + 1])
    prefixes, lasts = index.parent[new].copy(), index.word[new].copy()
    prefixes[places] = prefixes[places] if parent is None else parent
    lasts[places] = lasts[places] if word is None else word
    return f"UPDATE phrases SET parent = {literal(prefixes)}, word = {literal(lasts)} WHERE born = {version}"


ZERO, ONE = (literal(np.full(1, number, np.int32)) for number in (0, 1))
TWO = runs.pack_set(np.arange(2, dtype=np.uint32)).hex()
# The damage, and what the fsck reports.
DAMAGE = {
    "counter of orthos": ("UPDATE counts SET orthos = orthos + 1 WHERE sides = '{2,3}'", "2x3: the counters say"),
    "counter of batches": ("UPDATE counts SET batches = batches + 1 WHERE sides = '{3,3}'", "3x3: the counters say"),
    "counter gone": ("DELETE FROM counts WHERE sides = '{2,2,3}'", "2x2x3: the counters say 0 orthos in 0 batches"),
    "bytes changed": (
        f"UPDATE batches SET packed = set_byte(packed, 20, get_byte(packed, 20) # 1) WHERE id = {SQUARES}",
        "is damaged (its checksum differs); see 'crochet verify'",
    ),
    "batch cut short": (
        f"UPDATE batches SET packed = substr(packed, 1, 12) WHERE id = {SQUARES}",
        "is damaged (its checksum differs)",
    ),
    "unknown format": (
        f"UPDATE batches SET packed = set_byte(packed, 0, 9) WHERE id = {SQUARES}",
        "is damaged (its format is 09, and 01 is known)",
    ),
    "wrong number": (
        f"UPDATE batches SET count = count + 1 WHERE id = {SQUARES}",
        "orthos, and",
    ),
    "of another shape": (
        f"UPDATE batches SET sides = '{{2,2,2}}' WHERE id = {SQUARES}",
        "is damaged (its numbers are no ascending phrases)",
    ),
    "numbering of the future": (
        f"UPDATE batches SET numbering = 9 WHERE id = {SQUARES}",
        "has the phrase ids of version 9, there are 3",
    ),
    "wrong range": (
        f"UPDATE batches SET first = 'a' WHERE id = {SQUARES}",
        "is recorded from 'a' to '",
    ),
    "born too early": (
        "UPDATE batches SET born = 1 WHERE sides = '{2,2,3}'",
        "orthos with a line that is no phrase of version 1: [",
    ),
    "limits narrowed": ("UPDATE corpora SET max_cells = 6", "(2x4) is beyond the limits of the corpus"),
    "remediation gone": (f"DELETE FROM remediations WHERE batch = {OLD}", "waits on nothing: it has no remediation"),
    "remediation damaged": (
        f"UPDATE remediations SET phrases = phrases || phrases WHERE batch = {OLD}",
        "the remediation of batch",
    ),
    "remediation of another batch": (
        (
            "UPDATE remediations SET phrases = (SELECT phrases FROM remediations JOIN batches ON batches.id = batch"
            f" WHERE sides = '{{2,3}}' AND born = 1 LIMIT 1) WHERE batch = {OLD}"
        ),
        "of its lines, such as '",
    ),
    "window gone": ("DELETE FROM windows WHERE version = 2", "the window of version 3 begins after 2, not 1"),
    "last window gone": ("DELETE FROM windows WHERE version = 3", "the windows reach to version 2 of 3"),
    "due phrases damaged": (
        "UPDATE windows SET due = '\\x00' WHERE version = 2",
        "the window of version 2 is damaged (its format is 00",
    ),
    "starts forgotten": (
        f"UPDATE windows SET due = '\\x{TWO}', starts = 3 WHERE version = 2",
        "the window of version 2 records 3 starts, and has 2",
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
            f" SELECT 1, max(next), 1, 4, {ONE}, {ZERO} FROM phrases"
        ),
        "half-made phrases or words of version 4",
    ),
    "half-made words": (
        "INSERT INTO words SELECT 1, max(id) + 1, 4, 'new' FROM words",
        "the phrase of that one word does not",
    ),
    "phrases damaged": (
        "UPDATE phrases SET word = set_byte(word, 12, get_byte(word, 12) # 1) WHERE first = 1",
        "are damaged (its checksum differs); see 'crochet verify'",
    ),
    "fewer phrases than recorded": (
        f"UPDATE phrases SET parent = {ONE} WHERE first = 1",
        "are damaged (it holds 1 numbers, and",
    ),
    "phrase twice": (phrases_with(1, slice(2), parent=0, word=0), "phrases 1 and 2 are the same"),
    "phrase before its prefix": (phrases_with(1, slice(1), parent=5), "phrase 1 does not come after its prefix"),
    "phrase without its parts": (phrases_with(3, slice(-1, None), word=0), "exists, but not all of its parts do"),
    "words with a gap": ("DELETE FROM words WHERE id = 3", "the ids of the words have a gap"),
    "word gone": ("DELETE FROM words WHERE id = (SELECT max(id) FROM words)", "ends in a word that does not exist"),
    "a gap in the phrases": (
        "ALTER TABLE phrases DROP CONSTRAINT phrases_corpus_after_fkey; DELETE FROM phrases WHERE first = 1",
        "the phrases have a gap: 1 to",
    ),
    "phrases too long": ("UPDATE corpora SET max_side = 2", "words, more than max_side"),
    "word born late": ("UPDATE words SET born = 2 WHERE id = 0", "not numbered in the order of their birth"),
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


def test_a_healthy_store_has_no_problems(process: Process) -> None:
    """A healthy store has no problems, and the progress says what was done."""
    lines: list[str] = []
    assert verify.verify(process, corpus_of(process), closure=True, progress=lines.append) == []
    assert "searched everything again: 35 orthos" in lines
    assert any(line.startswith("checked 2x2x3: 1 orthos") for line in lines)


def test_a_corpus_without_texts_has_no_problems(process: Process) -> None:
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


def put(process: Process, lines: list[list[str]]) -> None:
    """Put a 2x2, given by its lines along the leading axis, in the place of a batch, with a remediation that fits."""
    with process.database.transaction() as connection:
        tree = process.tree(connection, corpus_of(process).id, 3)
    row = np.array([[tree.find(line) for line in lines]], np.uint32)
    phrases = np.unique(runs.every_line(tree, (2, 2), runs.words(tree, (2, 2), row))[0][:, :3])
    packed, key = runs.pack(row, tree.levels[1]), " ".join(lines[0] + lines[1])
    statement = f"""
    UPDATE batches SET packed = :packed, count = 1, numbering = 3, born = 3, first = :key, last = :key
     WHERE id = {SQUARES} RETURNING id
    """
    ((batch,),) = steps.sql(process, statement, packed=packed, key=key)
    update = "UPDATE remediations SET phrases = :phrases WHERE batch = :batch"
    steps.sql(process, update, phrases=runs.pack_set(phrases), batch=batch)


FALSE = {
    "columns that do not read": (
        [["a", "b"], ["e", "f"]],
        "1 orthos with a line that is no phrase of version 3: [a b /",
    ),
    "axes swapped": ([["a", "b"], ["d", "e"]], "1 orthos not in canonical form: [a b / d e]"),
    "a word twice in one shell": ([["b", "d"], ["d", "n"]], "1 orthos with a word twice in one shell: [b d / d n]"),
    "an ortho of another batch": (
        [["l", "n"], ["m", "o"]],
        "1 orthos are stored more than once; [l n / m o] is in batch",
    ),
}


@pytest.mark.parametrize("what", FALSE)
def test_what_is_no_ortho_is_found(process: Process, what: str) -> None:
    """Also where batch and remediation are undamaged and fit each other."""
    lines, message = FALSE[what]
    put(process, lines)
    found = problems(process)
    assert any(message in problem for problem in found), found


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
