"""The way to the database: one pool per process, made after fork, and transactions that speak our errors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from crochet_tasks import metrics
from crochet_tasks.db import measured
from crochet_tasks.errors import CrochetError, DatabaseConflict, DatabaseRefused, DatabaseUnavailable
from crochet_tasks.settings import Settings

CONFLICTS = {"40001", "40P01", "55P03", "57014"}
"""serialization failure, deadlock, lock time-out, statement time-out: the same transaction may succeed later"""

REFUSALS = {"42501", "25006"}
"""not permitted, read-only"""
AWAY = {"08", "28", "3D", "53", "55", "57", "58"}
"""classes of states in which the server, or this connection to it, is of no use for the moment"""


class Bounds(NamedTuple):
    """Of a pool: seconds that a statement may take and wait for a lock, connections, seconds to get one."""

    statement: float
    lock: float
    kept: int = 2
    more: int = 3
    patience: int = 10
    """psycopg takes 1 for 2"""


class Database:
    """A small pool of connections to one Postgres."""

    def __init__(self, url: str, settings: Settings, bounds: Bounds | None = None) -> None:
        bounds = bounds or Bounds(settings.statement_timeout, settings.lock_timeout)
        options = {
            "statement_timeout": _milliseconds(bounds.statement),
            "lock_timeout": _milliseconds(bounds.lock),
            "idle_in_transaction_session_timeout": _milliseconds(bounds.statement),
            "timezone": "UTC",
            "jit": "off",  # compiling takes longer than our statements
        }
        self.engine: Engine = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=bounds.kept,
            max_overflow=bounds.more,
            pool_timeout=bounds.patience,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": bounds.patience,
                "application_name": "crochet",
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
            },
        )
        measured.watch(self.engine, bounds.kept + bounds.more)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One read-committed transaction: committed at the end, rolled back by any exception."""
        after: list[Callable[[], None]] = []
        with _our_errors(), self._connected() as connection, measured.transaction(), connection.begin():
            connection.info[_AFTER] = after
            yield connection
        for each in after:
            each()

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

    def close(self) -> None:
        self.engine.dispose()


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
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        # The driver counts limits of the program (54) among these, too: such a statement fails again.
        state = error.sqlstate
        return DatabaseUnavailable(reason=first_line(error)) if state is None or state[:2] in AWAY else None
    return None


def first_line(error: BaseException) -> str:
    """What the server or driver said, in one line."""
    return (str(error).strip().splitlines() or ["no reason given"])[0]
