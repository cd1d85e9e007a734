"""Backups of a store: make them, list them, and restore one into an empty database (docs/recovery.md)."""

from crochet_tasks.recovery.backup import backup, remove_old
from crochet_tasks.recovery.places import Place, read_backups
from crochet_tasks.recovery.restore import check, restore

__all__ = ["Place", "backup", "check", "read_backups", "remove_old", "restore"]
