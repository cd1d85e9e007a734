"""Archives by the command line: from one state folder into another, where the corpus goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from crochet_tasks.schemas.archive import ArchiveManifest
from tests.support.cli import HARBOUR, closure, crochet, exported, refused, report_of

pytestmark = pytest.mark.acceptance

EVENING = HARBOUR.with_name("harbour-evening.txt")


def test_a_corpus_moves_and_goes_on(tmp_path: Path) -> None:
    """Archived, checked without a store, imported elsewhere; with a second text it is what both texts are.

    So it is where the archive is merged with a corpus of that text; and in the end the file is cut off.
    """
    state, new, file = tmp_path / "state", tmp_path / "new", tmp_path / "main.crochet"
    report_of(crochet("run", HARBOUR, "--state", state, "--json"))
    made = crochet("archive", "main", file, "--state", state)
    assert (made.returncode, made.stdout.startswith("archived: main of ")) == (0, True), made.stderr
    assert file.stat().st_mode & 0o077 == 0, "others may read the texts"
    refused(crochet("archive", "main", file, "--state", state), 2, "file_exists", "--overwrite")
    checked = crochet("archive", "--check", file, "--full", "--json")
    assert ArchiveManifest.model_validate_json(checked.stdout).total == sum(closure(HARBOUR).values())
    imported = crochet("import", file, "--state", new, "--name", "moved")
    assert (imported.returncode, "570 orthos, as corpus 'moved'" in imported.stdout) == (0, True), imported.stderr
    report_of(crochet("run", EVENING, "--state", new, "--corpus", "moved", "--json"))
    both = closure(HARBOUR, EVENING)
    assert exported(new, "moved") == both
    report_of(crochet("run", EVENING, "--state", new, "--corpus", "evening", "--json"))
    merged = crochet("merge", "evening", file, "--into", "both", "--state", new)
    assert (merged.returncode, "merged into corpus 'both': " in merged.stdout) == (0, True), merged.stderr
    report_of(crochet("run", "--corpus", "both", "--state", new, "--json"))
    assert exported(new, "both") == both
    file.write_bytes(file.read_bytes()[:-100])
    refused(crochet("import", file, "--state", new, "--name", "again"), 3, "archive_foreign", "cut off")
