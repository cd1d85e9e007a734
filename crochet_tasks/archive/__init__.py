"""A corpus as one file: written from the store, checked without one, imported into any (docs/archive.md)."""

from crochet_tasks.archive.check import Checked, check
from crochet_tasks.archive.load import load
from crochet_tasks.archive.merge import Source, merge
from crochet_tasks.archive.read import Archive
from crochet_tasks.archive.write import StoredCorpus, opened, written

__all__ = ["Archive", "Checked", "Source", "StoredCorpus", "check", "load", "merge", "opened", "written"]
