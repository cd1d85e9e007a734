"""Errors of requests to the API, in the server and the client, and what tenants may read of any error.

What all errors share is in errors/base.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from crochet_tasks.errors.base import CrochetError, Retry, Unavailable, UsageError

# ── the API ─────────────────────────────────────────────────────────────────────────────────────


class MalformedRequest(UsageError):
    """the request cannot be read: {reason}"""

    code = "malformed_request"
    status = 400


class InvalidRequest(UsageError):
    """the request is not what this route takes: {problem}"""

    code = "invalid_request"
    status = 422


class RouteUnknown(UsageError):
    """there is nothing at {path}; /docs lists all routes"""

    code = "route_unknown"
    status = 404


class NotFound(UsageError):
    """there is no {what} '{name}'"""

    code = "not_found"
    status = 404


class MethodNotAllowed(UsageError):
    """{path} does not take {method}; the header Allow lists what it takes"""

    code = "method_not_allowed"
    status = 405


class NotAcceptable(UsageError):
    """no type in Accept is available; there is {offered}"""

    code = "not_acceptable"
    status = 406


class RequestTimedOut(UsageError):
    """the request's body did not arrive in {seconds:.0f} s"""

    code = "request_timed_out"
    status = 408


class PreconditionFailed(UsageError):
    """the ETag is {current}, not {given}: it has changed; read it again before you change it"""

    code = "precondition_failed"
    status = 412


class RequestTooLarge(UsageError):
    """the request's body is larger than {limit} bytes"""

    code = "request_too_large"
    status = 413


class WrongContentType(UsageError):
    """this route takes {wanted}, not {given}"""

    code = "wrong_content_type"
    status = 415


class PreconditionRequired(UsageError):
    """send If-Match with the ETag of what you read: it may have changed since"""

    code = "precondition_required"
    status = 428


class RateLimited(UsageError):
    """more than {limit}: try again in {seconds} s"""

    code = "rate_limited"
    status = 429
    retry = Retry.LATER


class KeyMadeAlready(UsageError):
    """the form was sent twice, and made the key '{key}' the first time"""

    code = "key_made_already"
    status = 409


class CorpusExists(UsageError):
    """there is a corpus '{corpus}' already"""

    code = "corpus_exists"
    status = 409


class TooManyCorpora(UsageError):
    """there are {most} corpora, and no more may be made; delete one that is of no use any more"""

    code = "too_many_corpora"
    status = 409


class QuotaReached(UsageError):
    """the tenant may have {quota:,} {what}, and this would make it {wanted:,}; delete a corpus that is of no use any
    more, or ask the operator of this server to raise the quota
    """

    code = "quota_reached"
    status = 409


class PriorityTooHigh(UsageError):
    """priority {priority} is for administrators, or for operators up to {operators}; with this key, give {highest} or
    less
    """

    code = "priority_too_high"
    status = 403


class NotConfirmed(UsageError):
    """this deletes everything in corpus '{corpus}' for good; confirm it: --confirm {corpus}, or ?confirm={corpus}"""

    code = "not_confirmed"
    status = 409


class IdempotencyKeyReused(UsageError):
    """the Idempotency-Key '{key}' was used for another request; use a new one for each request"""

    code = "idempotency_key_reused"
    status = 422


class InvalidCursor(UsageError):
    """the cursor belongs to another request, or is none; start again without one"""

    code = "invalid_cursor"
    status = 422


class InvalidOrthoId(UsageError):
    """'{id}' is not the id of an ortho: 32 hexadecimal digits, in lower case"""

    code = "invalid_ortho_id"
    status = 422


class PhraseUnknown(UsageError):
    """'{phrase}' is no phrase of this corpus"""

    code = "phrase_unknown"
    status = 404


# ── clients of the API ──────────────────────────────────────────────────────────────────────────


class NotEncrypted(UsageError):
    """{url} is neither https nor on this machine: the key could be read on the way;
    CROCHET_PLAIN_HTTP=on sends it all the same
    """

    code = "not_encrypted"


class NotRemote(UsageError):
    """'crochet {command}' works on this machine, not on an API: leave out --url and --key, and unset CROCHET_URL"""

    code = "not_remote"


class SmokeFailed(Unavailable):
    """the deployment does not do its job: {problem}"""

    code = "smoke_failed"


class RemoteProblem(CrochetError):
    """the API at {url} answered {status}: {detail}"""

    code = "remote_problem"


# ── errors as tenants read them ──────────────────────────────────────────────────────────────────────


def kinds() -> dict[str, type[CrochetError]]:
    """Every error class by its code."""

    def below(kind: type[CrochetError]) -> Iterator[type[CrochetError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    return {kind.code: kind for kind in below(CrochetError) if "code" in vars(kind)}


def public_message(code: str, message: str) -> str:
    """What a tenant may read of an error with this code: the message, or only the family it belongs to.

    The one rule for answers and for failed texts and work: messages about faults of the service are internal.
    """
    kind = kinds().get(code, CrochetError)
    if kind.status < _OURS or kind.public:
        return message
    return inspect.getdoc(Unavailable if issubclass(kind, Unavailable) else CrochetError) or ""


_OURS = 500
"""statuses from here on mean that the service is at fault"""


def example(kind: type[CrochetError]) -> str:
    """An example of the message that a tenant reads."""
    values = _Values({**_EXAMPLES, **_EXAMPLES_OF.get(kind.code, {})})
    return public_message(kind.code, " ".join((inspect.getdoc(kind) or "").split()).format_map(values))


class _Values(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return "..."


_EXAMPLES: dict[str, object] = {
    "corpus": "genesis",
    "current": "12-4",
    "existing": "max_axes 3, max_side 8, max_cells 64",
    "given": "text/csv",
    "high": 8,
    "id": "0123",
    "key": "abcdefghij",
    "kind": "search",
    "known": "exodus, main",
    "limit": 65536,
    "low": 2,
    "method": "PUT",
    "most": 1000,
    "name": "text-7",
    "needed": "write",
    "offered": "application/json",
    "offset": 17,
    "path": "/v1/corpora",
    "phrase": "in the beginning",
    "problem": "query/limit must be at most 1000",
    "seconds": 10.0,
    "shape": "3x2",
    "source": "the body",
    "state": "done",
    "tenant": "library",
    "times": 3,
    "title": "chapter 1",
    "url": "https://crochet.example",
    "value": 9,
    "wanted": "application/json",
    "what": "text",
    "work": "text-7",
}
_EXAMPLES_OF: dict[str, dict[str, object]] = {
    "code_refused": {"reason": "it is wrong, or was used"},
    "log_in_refused": {"reason": "the provider gives you no role here"},
    "form_refused": {"reason": "the CSRF token is missing"},
    "not_logged_in": {"reason": "the session has ended"},
    "foreign_page": {"reason": "its origin is 'https://other.example'"},
    "invalid_name": {"name": "my corpus"},
    "invalid_setting": {"variable": "CROCHET_API_PORT", "problem": "it must be a whole number"},
    "key_ended": {"state": "revoked"},
    "limit_out_of_range": {"limit": "max_axes"},
    "limits_fixed": {"wanted": "max_axes 2"},
    "malformed_request": {"reason": "its body is not JSON: line 1, column 12"},
    "precondition_failed": {"given": "12-3"},
    "priority_too_high": {"priority": 3, "operators": 2, "highest": 1},
    "quota_reached": {"quota": 1000, "what": "texts", "wanted": 1001},
    "rate_limited": {"limit": "600 requests in 60 s", "seconds": 10},
    "remote_problem": {"status": 502, "detail": "no problem document"},
    "setting_missing": {"variable": "CROCHET_DATABASE_URL", "needed_for": "the API reads and accepts there"},
    "signature_refused": {"reason": "it is not that of this request"},
    "text_failed": {"reason": "the worker died over it 3 times in a row"},
    "too_busy": {"what": "1000 texts of this corpus wait already", "seconds": 10},
    "unauthorized": {"reason": "the request has no key"},
    "work_not_failed": {"wanted": "retried", "work": "4711"},
    "work_unknown": {"work": "4711"},
}
