"""The audit of a tenant: who changed its texts, work, corpora and keys, when and from where."""

from __future__ import annotations

from api import process, resources, responses, security
from api.openapi import NOT_MODIFIED, errors
from api.parameters import AuditQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.db import audit
from crochet_tasks.db.audit import AuditFilter
from crochet_tasks.errors import InvalidCursor
from crochet_tasks.query.cursor import opened, sealed
from crochet_tasks.schemas.answers import AuditPage

api = Routes("audit", "/v1/audit")


@api.get(
    "",
    responses={200: AuditPage, **NOT_MODIFIED, **errors(InvalidCursor, of_corpus=False)},
    operation_id="listAudit",
)
@security.requires("admin", filters=True)
def every(query: AuditQuery) -> Answered:
    """Changes of texts, work, corpora and keys, newest first: what it was before and after, who made it, from where.

    A page looks through 50,000 lines, so it may be short, or empty, and have another one.
    """
    (tenant, only), secret = security.reach(), resources.cursor_secret()
    asked = query.model_dump(mode="json", exclude={"cursor", "limit"})
    question: list[object] = ["audit", tenant, *asked.values()]
    begin = None if query.cursor is None else int(opened(secret, question, query.cursor))
    which = AuditFilter(tenant, query.corpus, query.by, query.subject, query.what, query.since, query.until, only)
    with process.current().database.snapshot() as connection:
        lines, after = audit.page(connection, which, begin, query.limit)
    following = None if after is None else sealed(secret, question, str(after).encode())
    return responses.tagged(AuditPage(lines=lines, next_cursor=following))
