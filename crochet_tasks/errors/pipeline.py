"""The base of all errors that are raised on purpose, and the pipeline's; those of API requests are in requests.py.

An error's docstring is its message; the fields in braces are the keyword arguments it is raised
with, kept in `context` for logs and API answers. `code` is stable: programs match it, never
the message. `retry` says what a task does about it, `status` is the HTTP status and
`exit_code` the exit status of the command line.
"""

from __future__ import annotations

import enum
import inspect
from typing import ClassVar, Self


class Retry(enum.StrEnum):
    """Whether the same work may succeed when it is tried again."""

    NEVER = "never"
    LATER = "later"


class CrochetError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retry: ClassVar[Retry] = Retry.NEVER
    public: ClassVar[bool] = False
    """whether tenants may read the message although the status is 500 or more (`public_message`)"""

    def __init__(self, *words: str, **context: object) -> None:
        """Takes the fields of the message; or the message itself, as Celery passes it when it loads a task's result."""
        self.context = context
        message = words[0] if words else (inspect.getdoc(type(self)) or "").format(**context).replace("\n", " ")
        super().__init__(message)

    @classmethod
    def from_message(cls, message: str, **context: object) -> Self:
        """An error with this very message, such as the client of the API got it from the server."""
        error = cls.__new__(cls)
        error.context = context
        Exception.__init__(error, message)
        return error

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), str(self), self.context)


def _rebuild(cls: type[CrochetError], message: str, context: dict[str, object]) -> CrochetError:
    return cls.from_message(message, **context)


def retry_class(error: BaseException) -> Retry:
    """The retry class of any error; one that is no CrochetError is a bug and is not retried."""
    return error.retry if isinstance(error, CrochetError) else Retry.NEVER


# ── the three families ──────────────────────────────────────────────────────────────────────────


class UsageError(CrochetError):
    """The call itself is wrong."""

    code = "usage"
    status = 400
    exit_code = 2


class BadInput(CrochetError):
    """What was given cannot be worked on."""

    code = "bad_input"
    status = 422
    exit_code = 3


class Unavailable(CrochetError):
    """A service that is needed does not answer."""

    code = "unavailable"
    status = 503
    exit_code = 4
    retry = Retry.LATER


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
    """{work} is a {kind}: without it orthos would be missing; only a text that has not been started can be cancelled"""

    code = "work_not_cancellable"
    status = 409


class WorkNotFailed(UsageError):
    """{work} is {state}: only what has failed can be {wanted}"""

    code = "work_not_failed"
    status = 409


class TextStarted(UsageError):
    """'{title}' is {state}: a text can be cancelled only before its ingestion begins"""

    code = "text_started"
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


class StoreCorrupt(CrochetError):
    """the store breaks its own rules: {problem}"""

    code = "store_corrupt"


# ── services ────────────────────────────────────────────────────────────────────────────────────


class DatabaseUnavailable(Unavailable):
    """the database does not answer ({reason}); check CROCHET_DATABASE_URL and that the server runs"""

    code = "database_unavailable"


class DatabaseLoginFailed(DatabaseUnavailable):
    """the database refuses the connection ({reason}); {advice}"""

    code = "database_login_failed"


class DiskFull(DatabaseUnavailable):
    """the disk of the database is full ({reason});
    make room there (old files, corpora that are not needed) and try again: nothing is lost
    """

    code = "disk_full"


class DiskNearlyFull(DiskFull):
    """the disk is nearly full: {free} are free at {folder}, and {reserve} are kept in reserve, so that the database can
    stop and start again; make room there (old files, corpora that are not needed) and run it again: it goes on where it
    stopped, nothing is lost
    """

    code = "disk_nearly_full"
    retry = Retry.NEVER


class DatabaseUnsuitable(Unavailable):
    """the database cannot be used: {reason}"""

    code = "database_unsuitable"
    retry = Retry.NEVER


class DatabaseConflict(Unavailable):
    """the database could not do it now ({reason}); the same step may succeed later"""

    code = "database_conflict"


class DatabaseRefused(Unavailable):
    """the database does not let this user do that ({reason}); give the user of CROCHET_DATABASE_URL the rights"""

    code = "database_refused"
    retry = Retry.NEVER


class SchemaUnknown(Unavailable):
    """the database has schema '{found}', this program needs '{needed}'; {advice}"""

    code = "schema_unknown"
    retry = Retry.NEVER


class BrokerUnavailable(Unavailable):
    """the broker does not answer ({reason}); check CROCHET_BROKER_URL and that RabbitMQ runs"""

    code = "broker_unavailable"


class BrokerRefused(Unavailable):
    """the broker does not let this user in or do that ({reason}); correct CROCHET_BROKER_URL or the user's rights"""

    code = "broker_refused"
    retry = Retry.NEVER


class QueueMismatch(Unavailable):
    """queue '{queue}' exists with other arguments ({reason});
    stop the workers and delete it: the work is in the database and is published again
    """

    code = "queue_mismatch"
    retry = Retry.NEVER


class QueueMissing(Unavailable):
    """queue '{queue}' does not exist; start a worker or the relay, they declare it"""

    code = "queue_missing"


class RedisUnavailable(Unavailable):
    """Redis does not answer ({reason}); check CROCHET_REDIS_URL and that the server runs"""

    code = "redis_unavailable"


class ApiUnavailable(Unavailable):
    """the API at {url} does not answer ({reason})"""

    code = "api_unavailable"


class TooBusy(Unavailable):
    """{what}; try again in {seconds} s"""

    code = "too_busy"
    public = True


class WorkerLost(Unavailable):
    """the worker died over it {times} times in a row"""

    code = "worker_lost"
    public = True


class MessageDied(Unavailable):
    """the broker gave its message up ({reason})"""

    code = "message_died"


class TaskTimedOut(Unavailable):
    """it took longer than {seconds} s"""

    code = "task_timed_out"
    public = True


class ProcessExhausted(Unavailable):
    """a thread of this process died or could not be started, most likely for want of memory or threads;
    raise the limit (ulimit -v, ulimit -u, the container's memory) and run it again: nothing is lost
    """

    code = "process_exhausted"
    retry = Retry.NEVER


class OpenFilesLimited(Unavailable):
    """too few files may be open: raise the limit (ulimit -n 1024, or nofile of the container) and run it again"""

    code = "open_files_limited"
    retry = Retry.NEVER


class UserUnknown(Unavailable):
    """user id {uid} has no entry in /etc/passwd, which the private Postgres needs:
    add one, run as another user, or set CROCHET_DATABASE_URL
    """

    code = "user_unknown"
    retry = Retry.NEVER


class StateInUse(Unavailable):
    """the state folder {folder} is in use by another crochet (process {pid});
    wait for it, or choose another with --state; beside 'crochet up' set CROCHET_DATABASE_URL as it prints it
    """

    code = "state_in_use"


class StateUnusable(Unavailable):
    """the state folder {folder} cannot be used: {reason}"""

    code = "state_unusable"
    retry = Retry.NEVER


class ServerFailed(Unavailable):
    """the private Postgres server did not start ({reason}); its log is {log}"""

    code = "server_failed"
