"""Problem documents: faults one by one, in our words, bounded, and nothing of the inside."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from crochet_tasks.errors import CrochetError, DatabaseUnavailable, StoreCorrupt, requests
from tests.support.api import Api

pytestmark = pytest.mark.integration


def test_faults_are_named_one_by_one(api: Api) -> None:
    """A program can tell what is wrong where."""
    answer = api.read.post("/v1/tokens", json={"scopes": ["read", "x"], "more": 1})
    faults = api.problem(answer, "invalid_request", 422)["errors"]
    assert [(fault["where"], fault["code"]) for fault in faults] == [
        ("/scopes/1", "literal_error"),
        ("/more", "extra_forbidden"),
    ]


def test_answers_to_faults_are_bounded(api: Api) -> None:
    """Whatever is wrong with a body, the answer lists 20 faults at the most, and none of its values."""
    api.write.post("/v1/corpora", json={"name": "genesis"})
    nested: Any = [0] * 2000
    for _ in range(27):
        nested = [nested]
    bodies: list[tuple[FlaskClient, str, Any]] = [
        (api.anonymous, "/v1/tokens/refresh", {f"x{number}": 0 for number in range(300)}),
        (api.read, "/v1/tokens", {f"x{number}" * 20: 0 for number in range(500)}),
        (api.read, "/v1/corpora/genesis/orthos/check", {"grids": [nested]}),
        (api.read, "/v1/corpora/genesis/orthos/check", {"grids": [[[0, 0], [0, 0]]] * 1000}),
        (api.read, "/v1/corpora/genesis/orthos/check", {"ids": [0] * 50_000}),
    ]
    for client, path, body in bodies:
        answer = client.post(path, json=body)
        faults = api.problem(answer, "invalid_request", 422)["errors"]
        assert 1 <= len(faults) <= 20
        assert len(answer.data) < 10_000
    deeper = b'{"grids": [' + b"[" * 150 + b"0," * 2000 + b"0" + b"]" * 150 + b"]}"
    answer = api.read.post("/v1/corpora/genesis/orthos/check", data=deeper, content_type="application/json")
    api.problem(answer, "malformed_request", 400)
    long = api.problem(api.read.get(f"/v1/corpora/{'x' * 5000}"), "corpus_unknown", 404)
    assert len(long["detail"]) <= 1000


PYDANTIC = re.compile("(?i)extra inputs|input should|field required|validation|instance of|value error")


def test_faults_are_said_in_our_words(api: Api) -> None:
    """None of the validator's, whatever is wrong; each says where."""
    corpus = {"name": "genesis"}
    given: list[tuple[str, Any]] = [
        ("/v1/corpora", {}),
        ("/v1/corpora", {"name": 5}),
        ("/v1/corpora", {"name": "two words"}),
        ("/v1/corpora", {"name": ""}),
        ("/v1/corpora", {**corpus, "limits": 5}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": "3"}}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": 99, "max_side": 0}}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": 2.5}}),
        ("/v1/corpora", {**corpus, "limits": {"max_axes": 1e300}}),
        ("/v1/corpora", {**corpus, "limits": {"max/axes~": 2}}),
        ("/v1/corpora", {**corpus, "description": "x" * 2001}),
        ("/v1/corpora", {**corpus, "budget": 2**60}),
        ("/v1/corpora", {**corpus, "budget": True}),
        ("/v1/tokens", {"scopes": []}),
        ("/v1/tokens", {"scopes": ["root"]}),
        ("/v1/tokens", {"scopes": {"read": 1}}),
        ("/v1/corpora/x/orthos/check", {"grids": [[["a", 5]]], "exact": "no"}),
        ("/v1/corpora/x/orthos/check", {"grids": [["a", {}]], "ids": ["\ud800"]}),
        ("/v1/corpora/x/texts", {"title": "a\nb"}),
    ]
    answers = [api.admin.post(path, json=body) for path, body in given]
    answers += [api.admin.get(f"/v1/corpora/x/orthos?{query}") for query in ("limit=0", "fields=nix", "cursor=", "a=b")]
    answers += [api.admin.post("/v1/corpora/x/texts", json={"body": "b"}, headers={"Idempotency-Key": "a b"})]
    for answer in answers:
        problem = api.problem(answer, "invalid_request", 422)
        assert problem["errors"]
        for fault in problem["errors"]:
            assert fault["where"].startswith(("/", "query/", "header/"))
            assert not PYDANTIC.search(fault["message"]), fault
            assert fault["message"] != "is not valid", fault
        assert problem["detail"].endswith(tuple(f"{each['where']} {each['message']}" for each in problem["errors"]))
    found = [fault for answer in answers for fault in answer.get_json()["errors"]]
    places = {fault["where"] for fault in found}
    assert {"/name", "/limits/max~1axes~0", "/scopes/0", "/grids/0/0/1", "query/limit"} <= places
    name = next(fault for fault in found if fault["code"] == "string_pattern_mismatch")
    assert name["message"].startswith("must be 1 to 100 ASCII letters")


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (RuntimeError("hunter2"), "internal", 500),
        (StoreCorrupt(problem="hunter2"), "store_corrupt", 500),
        (DatabaseUnavailable(reason="hunter2"), "database_unavailable", 503),
    ],
)
def test_nothing_of_the_inside_goes_out(
    api: Api,
    error: Exception,
    code: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Clients get a code and the request's id; the log has the rest."""

    def fails() -> str:
        raise error

    api.app.add_url_rule("/fails", "fails", fails)
    answer = api.anonymous.get("/fails")
    api.problem(answer, code, status)
    assert b"hunter2" not in answer.data
    assert b"Traceback" not in answer.data
    assert any("hunter2" in f"{vars(line)}" for line in caplog.records)
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_every_problem_is_explained(api: Api) -> None:
    """The type of a problem is an address where it is."""
    for code, kind in requests.kinds().items():
        page = api.anonymous.get(f"/problems/{code}").get_json()
        assert (page["status"], page["retry"]) == (kind.status, kind.retry)
        assert page["says"]
        assert not set(page["says"]) & set("{}"), page["says"]
    says = {
        code: api.anonymous.get(f"/problems/{code}").get_json()["says"] for code in ("invalid_request", "store_corrupt")
    }
    assert says["invalid_request"] == "the request is not what this route takes: query/limit must be at most 1000"
    assert "rules" not in says["store_corrupt"]  # no more than an answer would say
    document = api.anonymous.get("/openapi.json").get_data(as_text=True)
    assert not re.search(r'"detail":"[^"]*\{', document)
    api.problem(api.anonymous.get("/problems/nix"), "not_found", 404)


def test_codes_are_one_kind_each() -> None:
    """A program that knows a code knows its status."""
    kinds = [CrochetError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    codes = [kind.code for kind in kinds if "code" in vars(kind)]
    assert len(codes) == len(set(codes))
