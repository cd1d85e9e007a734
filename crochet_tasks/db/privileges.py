"""Roles: what each kind of service may do in the database. The owner of the tables makes the schema and grants.

A role is called after its database and its kind, such as crochet_relay: roles are of the whole server, and two
deployments there do not meet. Where a role is missing nothing is granted; the owner of the tables may do
everything.
docs/deployment.md says how roles are made, and how their passwords change.
"""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import sql
from sqlalchemy import Connection, text

from crochet_tasks.db import schema as schemas

_SEEN = (
    *("corpora", "texts", "words", "phrases", "windows", "batches", "remediations", "counts", "work", "attempts"),
    *("best", "best_faces", "dead_letters", "audit", "tenants", "alembic_version"),
)
"""what every service that works on texts may read"""
_WRITTEN = "SELECT, INSERT, UPDATE, DELETE"
# FOR UPDATE asks for the right to update some column: of tables that a role must not change it is the key, which
# nothing else refers to.
BY_KIND: dict[str, dict[str, str]] = {
    "api": {
        **dict.fromkeys(_SEEN, "SELECT"),
        "corpora": "SELECT, INSERT, UPDATE",
        "texts": "SELECT, INSERT, UPDATE",
        "work": "SELECT, INSERT, UPDATE",
        "attempts": "SELECT, INSERT",
        "best": _WRITTEN,
        "dead_letters": "SELECT, UPDATE, DELETE",
        "audit": "SELECT, INSERT",
        "tenants": "SELECT, INSERT, UPDATE",
        "keys": "SELECT, INSERT, UPDATE",
        **dict.fromkeys(("sessions", "refresh_tokens", "second_factors"), _WRITTEN),
        **dict.fromkeys(("signatures", "request_counts", "idempotency"), _WRITTEN),
        "security_log": "SELECT, INSERT",
    },
    "worker": {
        **dict.fromkeys(_SEEN, "SELECT"),
        "corpora": "SELECT, UPDATE",
        "texts": "SELECT, UPDATE (state, sentences, reached, version, phrases, error, finished_at)",
        **dict.fromkeys(("words", "phrases", "batches"), "SELECT, INSERT, DELETE"),
        **dict.fromkeys(("windows", "counts", "remediations", "work"), "SELECT, INSERT, UPDATE"),
        "attempts": "SELECT, INSERT",
        "best": "SELECT, UPDATE",
        "best_faces": _WRITTEN,
        "audit": "SELECT, INSERT",
    },
    "relay": {
        **dict.fromkeys(_SEEN, "SELECT, DELETE"),
        "tenants": "SELECT, UPDATE (full_at)",
        "alembic_version": "SELECT",
        "corpora": "SELECT, UPDATE, DELETE",
        "texts": "DELETE, UPDATE (state, error, finished_at), SELECT (id, corpus, seq, title, sha256, state, sentences,"
        " reached, version, phrases, error, accepted_at, finished_at, origin, priority)",
        "work": _WRITTEN,
        "attempts": "SELECT, INSERT, DELETE",
        "best": "SELECT, UPDATE, DELETE",
        "dead_letters": _WRITTEN,
        "audit": "SELECT, INSERT, DELETE",
        "sessions": "DELETE, SELECT (id, expires_at), UPDATE (id)",
        "signatures": "DELETE, SELECT (signature, seen_at), UPDATE (signature)",
        "request_counts": "DELETE, SELECT (client, slot), UPDATE (client)",
        "idempotency": "DELETE, SELECT (corpus, key, created_at)",
        "security_log": "DELETE, SELECT (id, at), UPDATE (id)",
        "security_log_digests": "SELECT",
        "seals": "SELECT, INSERT, UPDATE (digests)",
    },
    "metrics": {
        **dict.fromkeys(("corpora", "tenants", "counts", "alembic_version"), "SELECT"),
        "texts": "SELECT (id, corpus, seq, state, version, accepted_at, finished_at)",
        "work": "SELECT (id, corpus, kind, subject, state, attempts, not_before, published_at, finished_at)",
        "dead_letters": "SELECT (id, noted_at)",
    },
}
KINDS = (*BY_KIND, "backup")
"""`backup` reads all there is"""
_SEES_ALL = ("relay", "metrics")
"""kinds that report old transactions, of all roles"""


def names(connection: Connection) -> dict[str, str]:
    """The role of each kind, on this database, by kind."""
    database = connection.execute(text("SELECT current_database()")).scalar_one()
    return {kind: f"{database}_{kind}" for kind in KINDS}


def grant(connection: Connection) -> list[str]:
    """Give each role that there is what its kind needs, and take from it what is more; the kinds.

    A schema that a newer program made is left as it is: that one granted what its services need. The connection's
    user owns the tables.
    """
    if schemas.find(connection).newer:
        return []
    roles = names(connection)
    there = set(
        connection.execute(
            text("SELECT rolname FROM pg_roles WHERE rolname = ANY(:names)"), {"names": [*roles.values()]}
        ).scalars()
    )
    found = [kind for kind in KINDS if roles[kind] in there]
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    here = sql.Identifier(str(schema))
    if found:  # servers before 15, and databases that come from one, let everybody make tables here
        _run(connection, "REVOKE CREATE ON SCHEMA {} FROM PUBLIC", here)
    for kind in found:
        role = sql.Identifier(roles[kind])
        _run(connection, "REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}", here, role)
        _run(connection, "REVOKE ALL ON ALL SEQUENCES IN SCHEMA {} FROM {}", here, role)
        _run(connection, "GRANT USAGE ON SCHEMA {} TO {}", here, role)
        if kind == "backup":
            _run(connection, "GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {}", here, role)
            _run(connection, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA {} TO {}", here, role)
            continue
        for table, rights in BY_KIND[kind].items():
            _run(connection, f"GRANT {rights} ON {{}} TO {{}}", sql.Identifier(table), role)
    return found


def make(connection: Connection, passwords: Mapping[str, str]) -> list[str]:
    """Make the roles of these kinds where they are missing, and give them these passwords; the kinds.

    The connection's user may create roles. The server gets verifiers, never the passwords.
    """
    roles = names(connection)
    driver = connection.connection.driver_connection
    assert driver is not None
    for kind, password in passwords.items():
        name = roles[kind]
        role = sql.Identifier(name)
        if connection.execute(text("SELECT FROM pg_roles WHERE rolname = :name"), {"name": name}).first() is None:
            _run(connection, "CREATE ROLE {} LOGIN", role)
        verifier = driver.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        _run(connection, "ALTER ROLE {} LOGIN PASSWORD {}", role, sql.Literal(verifier))
        may = connection.execute(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")).scalar_one()
        if kind in _SEES_ALL and may:
            _run(connection, "GRANT pg_read_all_stats TO {}", role)
    return [*passwords]


def _run(connection: Connection, statement: str, *parts: sql.Composable) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute(sql.SQL(statement).format(*parts))
