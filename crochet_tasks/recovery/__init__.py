"""Backups of a store: make them, list them, and restore one into an empty database (docs/recovery.md)."""

from crochet_tasks.recovery.backup import backup, due_in, remove_old
from crochet_tasks.recovery.places import Place, chosen, read_all, read_backups, unknown
from crochet_tasks.recovery.restore import check, restore

__all__ = [
    "Place",
    "backup",
    "check",
    "chosen",
    "due_in",
    "read_all",
    "read_backups",
    "remove_old",
    "restore",
    "unknown",
]
