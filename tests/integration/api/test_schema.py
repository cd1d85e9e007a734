"""The API does what its OpenAPI document says: Schemathesis asks `crochet api` itself whatever it can think of.

`make fuzz` asks for as long as one likes, each time something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import CHECKS as REGISTERED
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData

from crochet_tasks.db.process import Process
from tests.support import steps
from tests.support.api import SETTINGS, Api, corpus_of, made
from tests.support.cluster import cluster, until
from tests.support.server import take_port

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXAMPLES = 2
"""of each operation, in CI"""
CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    "object_level_authorization",
}
"""all that there are, and none is left out"""
NOT_OF_THE_FORM = {
    "invalid_cursor",  # only what this server has sealed is a cursor
    "precondition_failed",  # the ETag is not that of what is there
    "idempotency_key_reused",  # for another request
    "invalid_shape",  # its sides are not in order
    "limit_out_of_range",  # longer than the phrases of the corpus are
    "text_has_nul",
    "text_without_words",  # what a word is cannot be expressed by a pattern
}
"""Codes of requests that have the form they should have and are refused for what JSON Schema cannot say. Each has
tests of its own: test_orthos.py, test_corpora.py, test_texts.py.
"""
CERTIFICATE = "GET /v1/corpora/{corpus}/best/{job}/certificate"
POST_TEXT = "POST /v1/corpora/{corpus}/texts"


@pytest.fixture
def api(process: Process) -> Api:
    """With a corpus that has versions, orthos, work that is done and a text that waits."""
    api = made(process)
    corpus = corpus_of(api)
    steps.ingest_all(corpus, steps.TEXTS)
    assert api.write.post("/v1/corpora/genesis/best", json={}).status_code == 202
    steps.run(corpus)
    assert api.write.post("/v1/corpora/genesis/best", json={"top": 7}).status_code == 202  # it waits
    steps.accept(corpus, "one that waits")
    return api


@pytest.fixture
def url(api: Api, database: str, tmp_path: Path) -> Iterator[str]:
    """Of a server with its processes, on the same database."""
    rates = {f"CROCHET_{name.upper()}": str(SETTINGS[name]) for name in SETTINGS if name.startswith("api_rate")}
    more = {
        "CROCHET_DATABASE_URL": database,
        "CROCHET_JWT_SECRET": SETTINGS["jwt_secret"].get_secret_value(),
        "CROCHET_API_PORT": str(take_port()),
        "CROCHET_API_EVENTS_SECONDS": "0.05",
        "CROCHET_API_LISTENERS": "100",
        "CROCHET_MAX_TEXT_BYTES": "100000",
    }
    with cluster(tmp_path, True, **rates, **more) as deployment:
        server = deployment.start("api")
        until(lambda: deployment.ready(server), deployment)
        yield f"http://{deployment.settings.api_host}:{deployment.settings.api_port}"


def config(api: Api, examples: int, seed: int | None) -> SchemathesisConfig:
    best = api.read.get("/v1/corpora/genesis/orthos/best").get_json()["orthos"][0]["id"]
    done = api.read.get("/v1/corpora/genesis/work?state=done").get_json()["work"][0]["id"]
    names = {
        "corpus": ["genesis"],
        "text": ["text-1", "text-4"],
        "job": ["best-1", "best-2"],
        "ortho": [best],
        "work": [done, "text-4"],
    }
    return SchemathesisConfig.from_dict(
        {
            "seed": 1 if seed is None else seed,
            "headers": {"Authorization": f"Bearer {api.keys['admin']}"},
            "continue-on-failure": True,
            # 428 is what RFC 6585 has for a missing If-Match; Schemathesis does not know it there.
            "checks": {"missing_required_header": {"expected-statuses": [400, 401, 403, 406, 415, 422, 428]}},
            "generation": {
                "max-examples": examples,
                "deterministic": seed is None,
                "database": "none",
                "no-shrink": seed is None,
            },
            # Most names that one thinks of are those of nothing.
            "dictionaries": {name: {"values": values} for name, values in names.items()},
            "parameters": {f"path.{name}": {"dictionary": name, "probability": 0.7} for name in names},
        }
    )


def is_a_fault(failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether it was wrong to refuse: not where the request has the right form, and something else is wrong with it."""
    if response.status_code == HTTPStatus.REQUEST_URI_TOO_LONG:
        return False  # a refusal, whatever else is wrong with it; Schemathesis does not know it as one
    if isinstance(failure, AcceptedNegativeData) and case.media_type == "multipart/form-data":
        return False  # a number, say: in a form all is bytes
    if isinstance(failure, EnsureResourceAvailability) and case.operation.label == CERTIFICATE:
        return False  # a search for the best that was only just asked for has none yet
    if not isinstance(failure, RejectedPositiveData) or response.status_code >= 500:
        return True
    code = response.json()["code"]
    if case.operation.label == POST_TEXT and code == "invalid_request":
        # A title is a parameter of plain text, and part of the body in JSON. OpenAPI cannot say that.
        return case.media_type == "text/plain" or "title" not in (case.query or {})
    return code not in NOT_OF_THE_FORM


@pytest.mark.timeout(900)  # a minute on two quiet cores
def test_the_document_is_true(api: Api, url: str, request: pytest.FixtureRequest) -> None:
    """Whatever is asked: no error of the server, no answer that is not documented, nothing wrong accepted, nothing
    right refused, nothing shown to who may not see it.
    """
    load_all_checks()
    assert set(REGISTERED.get_all_names()) == CHECKS
    examples, seed = request.config.getoption("--fuzz-examples"), request.config.getoption("--fuzz-seed")
    wanted = config(api, examples or EXAMPLES, seed)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=wanted)

    @schema.hook
    def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
        return is_a_fault(failure, case, response)

    asked: dict[str, int] = {}
    found: dict[str, str] = {}
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found[str(event)] = f"{event}"
        elif isinstance(event, events.ScenarioFinished):
            for checks in event.recorder.checks.values():
                asked[event.phase.value] = asked.get(event.phase.value, 0) + 1
                for check in checks:
                    if check.status is Status.FAILURE and check.failure_info is not None:
                        info = check.failure_info
                        found[f"{event.label} {info.failure.title}"] = f"{info.failure}\n{info.code_sample}"
    assert not found, "\n\n".join([f"seed {wanted.seed}", *(f"{name}\n{text}" for name, text in found.items())])
    assert set(asked) >= {"examples", "coverage", "fuzzing", "stateful"}
    assert asked["coverage"] > 500
