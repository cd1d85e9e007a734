"""Errors of backups."""

from __future__ import annotations

from crochet_tasks.errors.base import BadInput, Unavailable, UsageError


class BackupPlaceUnusable(Unavailable):
    """{place} cannot be read or written: {reason}"""

    code = "backup_place_unusable"


class BackupFailed(Unavailable):
    """{program} failed: {reason}"""

    code = "backup_failed"


class BackupUnknown(BadInput):
    """{place} holds no complete backup{name}; 'crochet backup --list {argument}' shows what there is"""

    code = "backup_unknown"
    status = 404


class BackupOld(Unavailable):
    """the newest complete backup at {place} is {age} old, and at most {most} are allowed;
    look why no newer one was made
    """

    code = "backup_old"


class BackupDamaged(BadInput):
    """backup '{name}' is damaged: {reason}; use another backup"""

    code = "backup_damaged"


class RestoreUnfinished(Unavailable):
    """backup '{name}' was restored, but is not ready for use: {reason};
    start no service on it, and restore into another empty database or state folder
    """

    code = "restore_unfinished"


class BackupKeyWrong(UsageError):
    """{reason}"""

    code = "backup_key_wrong"


class StoreUnknown(BadInput):
    """there is no store in {folder}: name its folder with --state, or its database with CROCHET_DATABASE_URL"""

    code = "store_unknown"


class NotEmpty(BadInput):
    """{where} is not empty ({found}): a backup is restored into an empty one only; {advice}"""

    code = "not_empty"
