"""How all of a tenant's corpora go together."""

from __future__ import annotations

from flask_openapi import APIBlueprint, Tag

from api import answers, context, security
from api.answers import Answered
from api.documented import problems
from crochet_tasks import statistics
from crochet_tasks.statistics_answers import StatisticsNow

api = APIBlueprint(
    "statistics", __name__, url_prefix="/v1/status", abp_tags=[Tag(name="work")], abp_security=security.NEEDS_KEY
)


@api.get("", responses={200: StatisticsNow, **problems(of_corpus=False)}, operation_id="getStatistics")
@security.requires("read")
def status() -> Answered:
    """All corpora together: what there is to do, how fast it goes, what goes wrong, and how much time is left.

    As the store knows it: every server says the same. What nobody can know is null.
    """
    seen = statistics.everything(context.process(), statistics.for_tenants, security.caller().tenant)
    return answers.json(seen, headers={"Cache-Control": "no-store"})
