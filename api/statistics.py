"""How all of a tenant's corpora go together."""

from __future__ import annotations

from flask_openapi import APIBlueprint, Tag

from api import process, security
from api import responses as answers
from api.openapi import problems
from api.responses import Answered
from crochet_tasks.reporting import statistics
from crochet_tasks.schemas.statistics import StatisticsNow

api = APIBlueprint(
    "statistics", __name__, url_prefix="/v1/status", abp_tags=[Tag(name="work")], abp_security=security.NEEDS_KEY
)


@api.get("", responses={200: StatisticsNow, **problems(of_corpus=False)}, operation_id="getStatistics")
@security.requires("read")
def status() -> Answered:
    """All corpora together: what there is to do, how fast it goes, what goes wrong, and how much time is left.

    As the store knows it: every server says the same. What nobody can know is null.
    """
    seen = statistics.everything(process.process(), statistics.for_tenants, security.caller().tenant)
    return answers.json(seen, headers={"Cache-Control": "no-store"})
