"""The way to the database: one pool per process, made after fork, and transactions that speak our errors."""

from __future__ import annotations

import contextlib
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

from crochet_tasks import net
from crochet_tasks import settings as environment
from crochet_tasks.db import measured
from crochet_tasks.errors import (
    CrochetError,
    DatabaseConflict,
    DatabaseLoginFailed,
    DatabaseRefused,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    DiskFull,
)
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics

log = logging.getLogger(__name__)

CONFLICTS = {"40001", "40P01", "55P03", "57014", "25P03"}
"""serialization failure, deadlock, time-outs (lock, statement, idle in it): the same transaction may succeed later"""

REFUSALS = {"42501", "25006"}
"""not permitted, read-only"""
AWAY = {"08", "28", "3D", "53", "55", "57", "58"}
"""classes of states in which the server, or this connection to it, is of no use for the moment"""

TRUSTED_SECONDS = 1.0
"""for which a connection that was just used is taken to work still: to find out costs as much as a small statement"""
IDLE_SECONDS = 15.0
"""that a transaction may rest at least, while its process computes or asks another server"""


class Bounds(NamedTuple):
    """Of a pool: seconds that a statement may take and wait for a lock, connections, seconds to get one."""

    statement: float
    lock: float
    kept: int = 2
    more: int = 3
    patience: int = 10
    """also to find out whether one that was idle still works; psycopg takes 1 for 2"""
    late: float = 10.0
    """after which a server that has not ended a statement by its time-out is away"""


class Bounded(psycopg.Connection[Any]):
    """A connection on which nothing is waited for longer than `seconds`; then it is closed.

    The server's own time-outs are of no use where it does not move, or its machine is gone: libpq would wait for ever.
    """

    seconds: float | None = None
    rests_since: float | None = None
    """since when it is idle"""
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
            self.close()  # what it was doing, and how far it is, nobody knows
            raise psycopg.OperationalError(f"no answer in {self.seconds:g} s") from error


class Database:
    """A small pool of connections to one Postgres."""

    def __init__(self, url: str, settings: Settings, bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds(settings.statement_timeout, settings.lock_timeout)
        address = net.postgres_parameters(url)
        if net.is_private_server(address):
            environment.forget_libpq()
        self.engine: Engine = create_engine(
            _sqlalchemy_url(address), pool_size=bounds.kept, max_overflow=bounds.more, pool_timeout=bounds.patience
        )
        _bind(self.engine, bounds, address)
        self._watched = measured.watch(self.engine, bounds.kept + bounds.more)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One read-committed transaction: committed at the end, rolled back by any exception."""
        after: list[Callable[[], None]] = []
        with _our_errors(), self._connected() as connection, measured.transaction(), connection.begin():
            connection.info[_AFTER] = after
            yield connection
        for step in after:
            try:
                step()
            except Exception:
                log.exception("not_done_after_commit")  # what is committed has not failed

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One read-only transaction in which every statement sees the same state."""
        with _our_errors(), self._connected() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with measured.transaction(), connection.begin():
                yield connection

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        began = time.perf_counter()
        with self.engine.connect() as connection:
            metrics.POOL_WAIT.observe(time.perf_counter() - began)
            yield connection

    def identity(self) -> str:
        """A name that no other database has, for keys in a Redis that several databases share."""
        with self.transaction() as connection:
            return str(connection.execute(text(_IDENTITY)).scalar_one())

    def close(self) -> None:
        self.engine.dispose()
        self._watched.close()


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


def _bind(engine: Engine, bounds: Bounds, address: dict[str, str]) -> None:
    """Have every wait for the server bounded: longer for a statement than for the answer that it is there."""
    longest = bounds.statement + bounds.late
    cursors = measured.cursors()
    parameters = _server_parameters(bounds)
    ours = {"connect_timeout": bounds.patience, **_probes(bounds), "application_name": "crochet"}
    connection_parameters: dict[str, Any] = {**ours, **address, "client_encoding": "UTF8"}

    @event.listens_for(engine, "do_connect")
    def connect(*_: object) -> Bounded:
        opened = Bounded.connect(**connection_parameters, autocommit=True)
        opened.seconds = bounds.patience
        try:
            _check_encoding(opened)
            _set_for_session(opened, parameters)
            opened.autocommit = False
        except BaseException:
            opened.close()
            raise
        opened.cursor_factory = cursors
        opened.seconds = longest
        return opened

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        if isinstance(driver, Bounded) and driver.pooled:
            _set(driver, parameters, local=True)

    @event.listens_for(engine, "checkin")
    def idle(connection: Bounded | None, _record: object) -> None:
        if connection is not None:
            connection.seconds = bounds.patience
            connection.rests_since = time.monotonic()

    @event.listens_for(engine, "checkout")
    def busy(connection: Bounded, *_: object) -> None:
        rested = 0.0 if connection.rests_since is None else time.monotonic() - connection.rests_since
        if rested > TRUSTED_SECONDS:
            try:
                engine.dialect.do_ping(connection)  # type: ignore[arg-type]
            except psycopg.Error as error:
                raise InvalidatePoolError from error  # the others most likely do not work either; a new one is opened
        connection.seconds = longest


def _server_parameters(bounds: Bounds) -> dict[str, str]:
    """What every transaction relies on. Not sent when connecting: PgBouncer refuses what it cannot set for a client."""
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
    """By which the kernel finds out that the server's machine is gone."""
    return {
        "keepalives": 1,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": round(1000 * (bounds.statement + bounds.late)),
    }


def may_idle(connection: Connection, limit: str = "0") -> None:
    """Let this transaction be idle for so long ('90s'; '0': as long as it takes), while what it read is sent on."""
    connection.execute(text("SELECT set_config('idle_in_transaction_session_timeout', :limit, true)"), {"limit": limit})


_AFTER = "crochet.after"


def once_committed(connection: Connection, step: Callable[[], None]) -> None:
    """Have something done after the commit of this `transaction`, and only then: what is counted has happened."""
    after = connection.info.get(_AFTER)
    if after is not None:
        after.append(step)


@contextlib.contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise _counted(DatabaseUnavailable(reason="no connection became free")) from error
    except DBAPIError as error:  # from SQLAlchemy, which hands on what the driver raised
        raise _counted(_ours(error.orig) or error) from error
    except psycopg.Error as error:  # from the driver itself: bulk statements go straight to it
        raise _counted(_ours(error) or error) from error


def _counted(error: Exception) -> Exception:
    metrics.DB_ERRORS.add(code=error.code if isinstance(error, CrochetError) else "internal")
    return error


def _milliseconds(seconds: float) -> str:
    return f"{round(1000 * seconds)}ms"


def _ours(error: BaseException | None) -> CrochetError | None:
    """What a driver's error means to a task; None where it is no trouble of the moment."""
    if isinstance(error, psycopg.Error) and error.sqlstate in CONFLICTS:
        return DatabaseConflict(reason=first_line(error))
    if isinstance(error, psycopg.Error) and error.sqlstate in REFUSALS:
        return DatabaseRefused(reason=first_line(error))
    if isinstance(error, psycopg.errors.DiskFull):
        return DiskFull(reason=first_line(error))
    if isinstance(error, psycopg.Error) and (refused := _login_failed(error)) is not None:
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
"""what to do, by what the server or libpq says of a connection that it refuses: libpq tells no SQLSTATE then"""


def _login_failed(error: psycopg.Error) -> DatabaseLoginFailed | None:
    """The error for a connection that is refused however often it is tried; None for any other."""
    if error.sqlstate is not None and error.sqlstate[:2] not in ("28", "3D", "3F"):
        return None
    for line in str(error).splitlines():
        for pattern, advice in _LOGIN_ADVICE.items():
            if re.search(pattern, line):
                return DatabaseLoginFailed(reason=line.strip(), advice=advice)
    return None


def first_line(error: BaseException) -> str:
    """What the server or driver said, in one line."""
    return (str(error).strip().splitlines() or ["no reason given"])[0]
