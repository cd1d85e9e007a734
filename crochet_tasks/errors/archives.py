"""Errors of archives of corpora."""

from __future__ import annotations

from crochet_tasks.errors.base import BadInput, UsageError


class CorpusUnfinished(BadInput):
    """corpus '{corpus}' is not complete ({what}), and only a complete one is {done}: {advice}"""

    code = "corpus_unfinished"
    status = 409


class ArchiveForeign(BadInput):
    """{file} is no archive of a corpus: {problem}; 'crochet archive CORPUS FILE' makes one"""

    code = "archive_foreign"


class ArchiveDamaged(BadInput):
    """{file} is damaged or was altered: {problem}; nothing of it was used: make or fetch it again"""

    code = "archive_damaged"


class ArchiveTooNew(BadInput):
    """{file} has format {found}, which a newer crochet wrote; this one knows {known}: use a newer crochet"""

    code = "archive_too_new"


class FileUnknown(BadInput):
    """there is no file {file}"""

    code = "file_unknown"
    status = 404


class FileExists(UsageError):
    """{file} exists already; name another file, or say --overwrite"""

    code = "file_exists"


class LimitsDiffer(BadInput):
    """{first} has {limits} and {second} has {others}: only corpora with the same limits and reading rules are merged"""

    code = "limits_differ"
    status = 409


class ZipRefused(BadInput):
    """the texts in {file} cannot be unpacked: {problem}"""

    code = "zip_refused"
