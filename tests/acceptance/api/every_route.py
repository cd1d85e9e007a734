"""A request for every route of the API, and what they all answer."""

from __future__ import annotations

import logging

from tests.support.bodies import pieces
from tests.support.deployed import Answer, Deployed

log = logging.getLogger(__name__)

TEXTS = pieces("garden.txt", 6)
"""the first of them is in the corpus `shown`, of which the best orthos are proven"""


def routes(deployed: Deployed) -> dict[str, tuple[str, str, object]]:
    """A request for each route under /v1, that changes nothing however often it is made."""
    of = "/v1/corpora/shown"
    best = deployed.get(f"{of}/orthos/best").json["orthos"][0]["id"]
    job = deployed.get(f"{of}/best").json["id"]
    away = "00000000-0000-0000-0000-000000000000"
    asked: dict[str, tuple[str, str, object]] = {
        "listCorpora": ("GET", "/v1/corpora", None),
        "createCorpus": ("POST", "/v1/corpora", {"name": "shown"}),
        "getCorpus": ("GET", of, None),
        "changeCorpus": ("PATCH", of, {}),
        "deleteCorpus": ("DELETE", of, None),
        "getStatus": ("GET", f"{of}/status", None),
        "getStatistics": ("GET", "/v1/status", None),
        "getEstimate": ("GET", f"{of}/estimate", None),
        "postText": ("POST", f"{of}/texts", {"title": "again", "body": TEXTS[0]}),
        "postTexts": ("POST", f"{of}/texts/batch", {"texts": [{"title": "again", "body": TEXTS[0]}]}),
        "listTexts": ("GET", f"{of}/texts", None),
        "getText": ("GET", f"{of}/texts/text-1", None),
        "cancelText": ("POST", f"{of}/texts/text-1/cancel", None),
        "getVersion": ("GET", f"{of}/version", None),
        "listWords": ("GET", f"{of}/vocabulary", None),
        "listPhrases": ("GET", f"{of}/phrases", None),
        "listWaiting": ("GET", f"{of}/remediations?phrase=the", None),
        "listOrthos": ("GET", f"{of}/orthos", None),
        "bestOrthos": ("GET", f"{of}/orthos/best", None),
        "getOrtho": ("GET", f"{of}/orthos/{best}", None),
        "findBest": ("POST", f"{of}/best", {}),
        "getNewestBest": ("GET", f"{of}/best", None),
        "getBest": ("GET", f"{of}/best/{job}", None),
        "getBestCertificate": ("GET", f"{of}/best/{job}/certificate", None),
        "cancelBest": ("POST", f"{of}/best/{job}/cancel", None),
        "listShapes": ("GET", f"{of}/shapes", None),
        "checkOrthos": ("POST", f"{of}/orthos/check", {"ids": [best, "0" * 32]}),
        "listWork": ("GET", f"{of}/work", None),
        "cancelWork": ("POST", f"{of}/work/{away}/cancel", None),
        "retryWork": ("POST", f"{of}/work/{away}/retry", None),
        "cancelAllWork": ("POST", f"{of}/work/cancel", None),
        "retryAllWork": ("POST", f"{of}/work/retry", None),
        "listAudit": ("GET", "/v1/audit", None),
        "listKeys": ("GET", "/v1/keys", None),
        "createKey": ("POST", "/v1/keys", {"name": "none", "corpora": ["not-there"]}),
        "rotateKey": ("POST", "/v1/keys/aaaaaaaaaa/rotate", {}),
        "revokeKey": ("POST", "/v1/keys/aaaaaaaaaa/revoke", None),
        "resetSecondFactor": ("DELETE", "/v1/keys/aaaaaaaaaa/second-factor", None),
        "listTenants": ("GET", "/v1/tenants", None),
        "getTenant": ("GET", "/v1/tenants/default", None),
        "createTenant": ("POST", "/v1/tenants", {"name": "default"}),
        "changeTenant": ("PATCH", "/v1/tenants/default", {}),
        "deleteTenant": ("DELETE", "/v1/tenants/default", None),
        "followEvents": ("GET", "/v1/events?corpus=shown", None),
        "createTokens": ("POST", "/v1/tokens", {}),
        "refreshTokens": ("POST", "/v1/tokens/refresh", {"refresh_token": f"crr_{'A' * 43}"}),
        "deleteTokens": ("DELETE", "/v1/tokens", None),
    }
    paths = deployed.get("/openapi.json").json["paths"]
    ours = [methods for path, methods in paths.items() if path.startswith("/v1")]
    of_the_provider = {"exchangeIdToken"}  # off here: tests/integration/api/test_oidc.py
    assert set(asked) | of_the_provider == {each["operationId"] for methods in ours for each in methods.values()}
    return asked


def answers(deployed: Deployed, asked: dict[str, tuple[str, str, object]]) -> dict[str, Answer]:
    return recorded({name: deployed.ask(*request) for name, request in asked.items()})


def recorded(given: dict[str, Answer]) -> dict[str, Answer]:
    """The same, and in the log which took longest."""
    slowest = sorted(((each.seconds, name) for name, each in given.items()), reverse=True)[:3]
    log.info("slowest: %s", ", ".join(f"{name} {seconds:.3f} s" for seconds, name in slowest))
    return given


def outcomes(given: dict[str, Answer]) -> dict[str, tuple[int, str | None]]:
    """Of each route the status and, of problems, the code."""
    return {name: (each.status, each.json["code"] if each.status >= 400 else None) for name, each in given.items()}


def all_away(given: dict[str, Answer], seconds: float) -> None:
    """Each is the problem that the database is away, says when to come again, and came in time."""
    assert outcomes(given) == dict.fromkeys(given, (503, "database_unavailable"))
    for name, each in given.items():
        assert each.headers["Retry-After"] == "1", name
        assert each.seconds < seconds, (name, each.seconds)
