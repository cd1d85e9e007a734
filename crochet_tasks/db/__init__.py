"""The only place with SQL: tables, named statements, transactions.

Others get a `Connection` from a `Database` or `Process` and pass it to functions of this package. The exceptions are
those that a caller may have to tell apart. process.py has what one process works with: settings, pool, caches.
"""

from psycopg.errors import LockNotAvailable, UniqueViolation
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

__all__ = ["Connection", "DBAPIError", "IntegrityError", "LockNotAvailable", "SQLAlchemyError", "UniqueViolation"]
