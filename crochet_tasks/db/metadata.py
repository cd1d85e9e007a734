"""What tables share: the collection they are in, how their constraints are named, and what many columns are."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB

from crochet_tasks.schemas.names import NAME

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

MOMENT = DateTime(timezone=True)
JSON = JSONB(none_as_null=True)
NAMED = f"name ~ '^{NAME}$'"


def numbered(kind: type[Integer] = BigInteger) -> Column[int]:
    return Column("id", kind, Identity(always=True), primary_key=True)


def now(name: str) -> Column[object]:
    return Column(name, MOMENT, nullable=False, server_default=func.clock_timestamp())
