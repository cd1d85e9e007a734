"""Errors of calls, settings, texts and work."""

from __future__ import annotations

from crochet_tasks.errors.base import BadInput, CrochetError, UsageError

# ── usage ───────────────────────────────────────────────────────────────────────────────────────


class InvalidSetting(UsageError):
    """{variable}: {problem}"""

    code = "invalid_setting"


class WrongCall(UsageError):
    """{problem}"""


class LimitOutOfRange(UsageError):
    """{limit} must lie between {low} and {high}, not {value}"""

    code = "limit_out_of_range"
    status = 422


class LimitsFixed(UsageError):
    """corpus '{corpus}' was created with {existing}; its limits are fixed and cannot become {wanted}"""

    code = "limits_fixed"
    status = 409


class ReadingRulesDiffer(UsageError):
    """the texts of corpus '{corpus}' were read by rules {found} and this program reads by {needed}: it takes no
    more texts; `crochet corpora rebuild {corpus} NEW_NAME` reads them again into a new corpus
    """

    code = "reading_rules_differ"
    status = 409


class InvalidName(UsageError):
    """'{name}' is not a corpus name: 1 to 100 ASCII letters, digits, '.', '_', '-', beginning with a letter or digit"""

    code = "invalid_name"
    status = 422


class InvalidShape(UsageError):
    """'{shape}' is not a shape: write two or more sides of at least 2, smallest first, as in 2x3"""

    code = "invalid_shape"
    status = 422


class SettingMissing(UsageError):
    """{variable} is not set: {needed_for}"""

    code = "setting_missing"


class NotOnLoopback(UsageError):
    """{variable} is {address}: without a login Flower may listen on 127.0.0.1 only; set CROCHET_FLOWER_AUTH"""

    code = "not_on_loopback"


class WorkUnknown(UsageError):
    """there is no piece of work or dead letter '{work}'"""

    code = "work_unknown"
    status = 404


class WorkAmbiguous(UsageError):
    """'{work}' is the beginning of several ids; give more of it"""

    code = "work_ambiguous"
    status = 409


class WorkNotCancellable(UsageError):
    """{work} cannot be {wanted}, its kind is {kind}: {why}"""

    code = "work_not_cancellable"
    status = 409


class WorkNotFailed(UsageError):
    """{work} is {state}: only what has failed can be {wanted}"""

    code = "work_not_failed"
    status = 409


class TextStarted(UsageError):
    """'{title}' is being ingested, and the part that is being worked on is not done yet: try again"""

    code = "text_started"
    status = 409


class TextIsVersion(UsageError):
    """'{title}' is version {version} of its corpus and cannot be taken back: orthos rest on it.
    To be without it, submit the other texts to a new corpus and delete this one
    """

    code = "text_is_version"
    status = 409


# ── bad input ───────────────────────────────────────────────────────────────────────────────────


class TextNotFound(BadInput):
    """{source}: no such file"""

    code = "text_not_found"
    status = 404


class TextIsDirectory(BadInput):
    """{source} is a directory, not a text file"""

    code = "text_is_directory"


class TextUnreadable(BadInput):
    """{source} cannot be read: {reason}"""

    code = "text_unreadable"


class TextNotUtf8(BadInput):
    """{source} is not UTF-8 (at offset {offset}): {looks}"""

    code = "text_not_utf8"


class TextHasNul(BadInput):
    """{source} holds a NUL character at offset {offset}, which no text does: {looks}"""

    code = "text_has_nul"


class TextTooLarge(BadInput):
    """{source} is larger than the limit of {limit} bytes (CROCHET_MAX_TEXT_BYTES)"""

    code = "text_too_large"
    status = 413


class TextWithoutWords(BadInput):
    """{source} holds no words: nothing with a letter in it"""

    code = "text_without_words"


class TextFailed(BadInput):
    """{source} could not be ingested: {reason}"""

    code = "text_failed"


class CorpusUnknown(BadInput):
    """there is no corpus '{corpus}' here; known: {known}"""

    code = "corpus_unknown"
    status = 404


class WorkFailed(CrochetError):
    """{failed} work items failed and stay open for inspection; the first: {error}"""

    code = "work_failed"


class OutputFailed(CrochetError):
    """the output cannot be written: {reason}"""

    code = "output_failed"


class CertificateRefused(CrochetError):
    """the certificate {file} does not hold: {reason}"""

    code = "certificate_refused"


class CertificateUnreadable(BadInput):
    """{file} is no certificate of 'crochet best': {problem}"""

    code = "certificate_unreadable"


class NotEnoughMemory(CrochetError):
    """this takes more memory than a search may have: {what}. Lower the limits"""

    code = "not_enough_memory"
    public = True


class StartTooLong(CrochetError):
    """one start of the search for a {shape} takes longer than a task may ({seconds:g} s): lower the limits, or search
    in one process, by `crochet best` without --url
    """

    code = "start_too_long"
    public = True


class StoreCorrupt(CrochetError):
    """the store breaks its own rules: {problem}"""

    code = "store_corrupt"
