"""Who runs the place: admins of the tenant that CROCHET_OPERATOR_TENANT names."""

from __future__ import annotations

from crochet_tasks.db import Connection, tenants
from crochet_tasks.settings import NO_TENANT, Settings


def is_operator(connection: Connection, settings: Settings, tenant: int) -> bool:
    """Whether admins of this tenant are operators."""
    named = settings.operator_tenant
    return named != NO_TENANT and tenants.name(connection, tenant) == named
