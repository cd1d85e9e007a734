"""Connections and transactions: one pool per process, made after fork; database errors are raised as ours."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.abc import RV, PQGen
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from crochet_tasks import net
from crochet_tasks import settings as environment
from crochet_tasks.db import measured
from crochet_tasks.errors import (
    CrochetError,
    DatabaseConflict,
    DatabaseLoginFailed,
    DatabaseRefused,
    DatabaseReplaced,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    DiskFull,
)
from crochet_tasks.schemas.acting import acting
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

CONFLICTS = {"40001", "40P01", "55P03", "57014", "25P03"}
"""serialization failure, deadlock, time-outs (lock, statement, idle in it): the same transaction may succeed later"""

REFUSALS = {"42501", "25006"}
"""not permitted, read-only"""
AWAY = {"08", "28", "3D", "53", "55", "57", "58"}
"""SQLSTATE classes of a server or connection that is unusable for now"""

PING_AFTER_SECONDS = 1.0
"""idle time after which a connection is pinged before use: a ping costs as much as a small statement"""
IDLE_SECONDS = 15.0
"""at least this idle_in_transaction_session_timeout, for transactions that compute or call another server"""


class Bounds(NamedTuple):
    """Limits of a pool: seconds of a statement and of a wait for a lock, connections, seconds to get one."""

    statement: float
    lock: float
    pool_size: int = 2
    overflow: int = 3
    connect: int = 10
    """also for a ping; psycopg takes 1 for 2"""
    grace: float = 10.0
    """seconds beyond its time-out after which a statement's server counts as away"""


class Bounded(psycopg.Connection[Any]):
    """A connection that waits for the server for at most `seconds`; then it is closed.

    The server's own time-outs do not help where it hangs or its machine is gone: libpq would wait for ever.
    """

    seconds: float | None = None
    idle_since: float | None = None
    """when it went back to the pool"""
    pooled = False
    """whether a pooler (PgBouncer) may give each transaction another connection of its own"""

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        if timeout is not None or self.seconds is None:
            return super().wait(gen, interval, timeout)
        until = time.monotonic() + self.seconds
        try:
            return super().wait(gen, interval, self.seconds)
        except psycopg.OperationalError as error:
            if time.monotonic() < until or self.closed:
                raise
            self.close()  # the state of its statement is unknown
            raise psycopg.OperationalError(f"no answer in {self.seconds:g} s") from error


class PoolUse(NamedTuple):
    """Connections of a pool: in use, open, and how many there may be."""

    used: int
    open: int
    limit: int


class Database:
    """A small pool of connections to one Postgres."""

    def __init__(self, url: str, settings: Settings, bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds(settings.statement_timeout, settings.lock_timeout)
        address = net.postgres_parameters(url)
        if net.is_private_server(address):
            environment.forget_libpq()
        self.engine: Engine = create_engine(
            _sqlalchemy_url(address),
            pool_size=bounds.pool_size,
            max_overflow=bounds.overflow,
            pool_timeout=bounds.connect,
        )
        self.address = address
        """libpq's connection parameters, with the password"""
        self._parameters = _server_parameters(bounds)
        _bind(self.engine, bounds, address, self._parameters)
        self._most = bounds.pool_size + bounds.overflow
        self._metrics = measured.count_connections(self.engine, self._most)

    def pool(self) -> PoolUse:
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        used = pool.checkedout()
        return PoolUse(used, used + pool.checkedin(), self._most)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One read-committed transaction: committed at the end, rolled back by any exception."""
        after: list[Callable[[], None]] = []
        with _our_errors(), self._connected() as connection, measured.transaction(), self._begun(connection):
            connection.info[_AFTER] = after
            if (who := acting.get()) is not None:
                connection.execute(_ACTING, {"who": json.dumps(who)})
            yield connection
        for step in after:
            try:
                step()
            except Exception:
                log.exception("after_commit_failed")  # what is committed has not failed

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read-only transaction in which every statement sees the same state."""
        with _our_errors(), self._connected() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with measured.transaction(), self._begun(connection):
                yield connection

    @contextlib.contextmanager
    def statements(self) -> Iterator[Connection]:
        """A connection without a transaction: a statement is one round trip, and sees what is committed by then."""
        with _our_errors(), self._connected() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        began = time.perf_counter()
        with self.engine.connect() as connection:
            metrics.POOL_WAIT.observe(time.perf_counter() - began)
            yield connection

    @contextlib.contextmanager
    def _begun(self, connection: Connection) -> Iterator[None]:
        # Not by SQLAlchemy's event "begin": an engine that has one looks for listeners at each statement.
        with connection.begin():
            driver = connection.connection.driver_connection
            if isinstance(driver, Bounded) and driver.pooled:
                _set(driver, self._parameters, local=True)
            yield

    def identity(self) -> str:
        """A name that no other database has, for keys in a Redis that several databases share."""
        with self.transaction() as connection:
            return str(connection.execute(text(_IDENTITY)).scalar_one())

    def close(self) -> None:
        self.engine.dispose()
        self._metrics.close()


_ACTING = text("SELECT set_config('crochet.by', :who, true)")
# Without the server's timeline, which changes at a failover while processes go on.
_IDENTITY = """
SELECT concat_ws('-', system_identifier, pg_database.oid) FROM pg_control_system(), pg_database
 WHERE datname = current_database()
"""


def _sqlalchemy_url(address: dict[str, str]) -> URL:
    """The address for SQLAlchemy, which shows it and does not connect with it: its dialect drops parameters."""
    query = {name: value for name, value in address.items() if name not in ("user", "password", "dbname")}
    user, password, database = (address.get(name) for name in ("user", "password", "dbname"))
    return URL.create("postgresql+psycopg", user, password, database=database, query=query)


def _bind(engine: Engine, bounds: Bounds, address: dict[str, str], parameters: dict[str, str]) -> None:
    """Bound every wait for the server: `statement` + `grace` for statements, `connect` for connecting and pings."""
    longest = bounds.statement + bounds.grace
    cursors = measured.cursors()
    ours = {"connect_timeout": bounds.connect, **_probes(bounds), "application_name": "crochet"}
    connection_parameters: dict[str, Any] = {**ours, **address, "client_encoding": "UTF8"}

    first: list[str] = []

    @event.listens_for(engine, "do_connect")
    def connect(*_: object) -> Bounded:
        opened = Bounded.connect(**connection_parameters, autocommit=True)
        opened.seconds = bounds.connect
        try:
            _check_encoding(opened)
            _set_for_session(opened, parameters)
            _check_same(opened, first)
            opened.autocommit = False
        except BaseException:
            opened.close()
            raise
        opened.cursor_factory = cursors
        opened.seconds = longest
        return opened

    @event.listens_for(engine, "checkin")
    def idle(connection: Bounded | None, _record: object) -> None:
        if connection is not None:
            connection.seconds = bounds.connect
            connection.idle_since = time.monotonic()

    @event.listens_for(engine, "checkout")
    def busy(connection: Bounded, *_: object) -> None:
        idle_seconds = 0.0 if connection.idle_since is None else time.monotonic() - connection.idle_since
        if idle_seconds > PING_AFTER_SECONDS:
            try:
                engine.dialect.do_ping(connection)  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise InvalidatePoolError from error  # the others are most likely broken, too; a new one is opened
        connection.seconds = longest


def _server_parameters(bounds: Bounds) -> dict[str, str]:
    """Return the parameters of every transaction. Not sent when connecting: PgBouncer refuses unknown ones."""
    return {
        "statement_timeout": _milliseconds(bounds.statement),
        "lock_timeout": _milliseconds(bounds.lock),
        "idle_in_transaction_session_timeout": _milliseconds(max(bounds.statement, IDLE_SECONDS)),
        "timezone": "UTC",
        "jit": "off",  # compiling takes longer than our statements
    }


def _check_encoding(driver: Bounded) -> None:
    """Raise DatabaseUnsuitable unless the database holds every character."""
    found = driver.info.parameter_status("server_encoding")
    if found != "UTF8":
        advice = "make one with 'createdb --template=template0 --encoding=UTF8 NAME' and set CROCHET_DATABASE_URL to it"
        raise DatabaseUnsuitable(reason=f"its encoding is {found} and texts need UTF8; {advice}")


def _check_same(driver: Bounded, first: list[str]) -> None:
    """Raise DatabaseReplaced where it is another database than that of the pool's first connection: a restored one.

    What this process has in memory of versions, batches and keys is not true of that one.
    """
    with psycopg.Cursor(driver) as cursor:
        try:
            found = str((cursor.execute(_IDENTITY).fetchone() or ("",))[0])
        except psycopg.errors.InsufficientPrivilege:  # a provider's server may keep pg_control_system to itself
            return
    first[:] = first or [found]
    if first != [found]:
        raise DatabaseReplaced


def _set_for_session(driver: Bounded, parameters: dict[str, str]) -> None:
    """Set the parameters once where the session is ours; behind a pooler each transaction sets them (ADR 0024).

    A pooler makes up the process id that it answers a new client with, so the server's own is another one.
    """
    direct = _set(driver, parameters, local=False, process=driver.info.backend_pid)
    if not direct:
        driver.pooled = True
        driver.prepare_threshold = None  # the next transaction may run where another client prepared that name


def _set(driver: Bounded, parameters: dict[str, str], *, local: bool, process: int | None = None) -> bool:
    """Set parameters of the server, if its process has that id; whether they were set."""
    calls = sql.SQL(", ").join(
        sql.SQL("set_config({}, {}, {})").format(name, value, local) for name, value in parameters.items()
    )
    query = sql.SQL("SELECT {}").format(calls)
    if process is not None:
        query += sql.SQL(" WHERE pg_backend_pid() = {}").format(process)
    with psycopg.Cursor(driver) as cursor:  # neither traced nor measured
        return cursor.execute(query).fetchone() is not None


def _probes(bounds: Bounds) -> dict[str, int]:
    """TCP keepalives: the kernel detects that the server's machine is gone."""
    return {
        "keepalives": 1,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": round(1000 * (bounds.statement + bounds.grace)),
    }


def may_idle(connection: Connection, limit: str = "0") -> None:
    """Let this transaction be idle for so long ('90s'; '0': as long as it takes), while what it read is sent on."""
    connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', :limit, true)"), {"limit": limit})


_AFTER = "crochet.after"


def once_committed(connection: Connection, step: Callable[[], None]) -> None:
    """Call `step` after the commit of this `transaction`; after a rollback never: metrics count commits."""
    after = connection.info.get(_AFTER)
    if after is not None:
        after.append(step)


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise _counted(DatabaseUnavailable(reason="no connection became free")) from error
    except DBAPIError as error:  # from SQLAlchemy, which passes on what the driver raised
        raise _counted(_as_crochet_error(error.orig) or error) from error
    except psycopg.Error as error:  # from the driver itself: bulk statements go straight to it
        raise _counted(_as_crochet_error(error) or error) from error


def _counted(error: Exception) -> Exception:
    metrics.DB_ERRORS.add(code=error.code if isinstance(error, CrochetError) else "internal")
    return error


def _milliseconds(seconds: float) -> str:
    return f"{round(1000 * seconds)}ms"


def _as_crochet_error(error: BaseException | None) -> CrochetError | None:
    """Return our error for a driver's error; None where it is neither temporary nor a matter of configuration."""
    if isinstance(error, psycopg.Error) and error.sqlstate in CONFLICTS:
        return DatabaseConflict(reason=first_line(error))
    if isinstance(error, psycopg.Error) and error.sqlstate in REFUSALS:
        return DatabaseRefused(reason=first_line(error))
    if isinstance(error, psycopg.errors.DiskFull):
        return DiskFull(reason=first_line(error))
    if isinstance(error, psycopg.Error) and (refused := login_failed(error)) is not None:
        return refused
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        # The driver counts limits of the program (54) among these, too: such a statement fails again.
        state = error.sqlstate
        return DatabaseUnavailable(reason=first_line(error)) if state is None or state[:2] in AWAY else None
    return None


_LOGIN_ADVICE = {
    r"authentication failed|no password supplied|role .* does not exist|no such user|not permitted to log in": (
        "correct user and password in CROCHET_DATABASE_URL"
    ),
    r"no pg_hba.conf entry|authentication method requirement": (
        "correct CROCHET_DATABASE_URL, or let the user in by the server's pg_hba.conf"
    ),
    r"database .* does not exist|no such database": "make it (createdb NAME), or correct CROCHET_DATABASE_URL",
    r"no schema has been selected": "make the schema that search_path names, or correct CROCHET_DATABASE_URL",
    r"certificate|server does not support SSL|sslmode|TLS version": (
        "correct sslmode, sslrootcert, sslcert and sslkey in CROCHET_DATABASE_URL, or the server's certificate"
    ),
    r"invalid (integer )?value|invalid connection option|unrecognized configuration parameter"
    r"|definition of service|unsupported startup parameter": (
        "correct that parameter of CROCHET_DATABASE_URL or of libpq's PG* variables"
    ),
}
"""advice, by a pattern of the message with which server or libpq refuse a connection; libpq has no SQLSTATE then"""


def login_failed(error: psycopg.Error) -> DatabaseLoginFailed | None:
    """The error for a connection that is refused however often it is tried; None for any other."""
    if error.sqlstate is not None and error.sqlstate[:2] not in ("28", "3D", "3F"):
        return None
    for line in str(error).splitlines():
        for pattern, advice in _LOGIN_ADVICE.items():
            if re.search(pattern, line):
                return DatabaseLoginFailed(reason=line.strip(), advice=advice)
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of a database error."""
    return (str(error).strip().splitlines() or ["no reason given"])[0]
