"""Sends the requests of the client: time-outs, retries, circuit breaker, signatures; raises problems as errors."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import itertools
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import httpx
from pydantic import ValidationError

from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER, signature, split
from crochet_tasks.errors import ApiUnavailable, CrochetError, NotEncrypted, RemoteProblem, TooBusy, WrongCall, kinds
from crochet_tasks.net import is_loopback
from crochet_tasks.retry import Breaker, Policy
from crochet_tasks.schemas.answers import PROBLEM, Problem
from crochet_tasks.settings import version

REQUEST_ID = "X-Request-ID"
JSON = "application/json"
RATE_LIMITED = 429
AWAY = (502, 503, 504)
_KEY = re.compile(r"[\x21-\x7e]+")
_PORTS = {"http": 80, "https": 443}


class Patience(NamedTuple):
    """Time-outs and retries of a client."""

    connect: float = 3.0
    """seconds to connect"""
    answer: float = 30.0
    """seconds without any data"""
    tries: int = 6
    """of one call, at the most"""
    pause: float = 0.2
    """seconds before the second try, cut by up to half at random; doubled for each further one"""
    longest: float = 5.0
    """seconds between two tries, at the most, unless the API asks for more (Retry-After)"""
    seconds: float = 30.0
    """after the first try, in which the last one begins"""
    failures: int = 6
    """consecutive failures after which calls fail at once"""
    away: float = 5.0
    """seconds for which calls fail at once; then one call is sent"""

    @property
    def retries(self) -> Policy:
        return Policy(first=self.pause, longest=self.longest, seconds=self.seconds, attempts=self.tries)


class Call(NamedTuple):
    """A request. `again`: it is idempotent, so it may be retried."""

    method: str
    path: str
    again: bool
    parameters: Mapping[str, str | int] = {}
    headers: Mapping[str, str] = {}
    content: bytes = b""
    accepted: tuple[int, ...] = ()
    """statuses that are no errors, beside success"""


def posted(path: str, body: Mapping[str, object], *, again: bool) -> Call:
    return Call("POST", path, again=again, headers={"Content-Type": JSON}, content=in_json(body))


def in_json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body).encode()


def parameters_of(**parameters: str | int | None) -> dict[str, str | int]:
    """Parameters without those that are None."""
    return {name: value for name, value in parameters.items() if value is not None}


class Caller:
    """Sends calls to one API with one key. Threads may share it. No error, log line or `repr` contains the key."""

    def __init__(
        self,
        url: str,
        key: str | None,
        patience: Patience,
        transport: httpx.BaseTransport | None,
        *,
        plain_http: bool,
        sign: bool,
    ) -> None:
        self.url = _checked(url)
        if key is not None:
            _check_key(key, self.url, plain_http=plain_http)
        self.patience = patience
        parts = split(key) if key is not None and sign else None
        self._secret = None if parts is None else parts[1]
        what = f"the API at {self.url}"
        self.breaker = Breaker(what, self._unavailable, patience.away, patience.failures, logging.INFO)
        headers = {"User-Agent": f"crochet-tasks/{version()}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx.Client(
            base_url=self.url,
            headers={
                "User-Agent": f"crochet-tasks/{version()}",
                **({} if key is None else {"Authorization": f"Bearer {key}"}),
            },
            timeout=httpx.Timeout(patience.answer, connect=patience.connect),
            transport=transport,
            # A proxy from the environment could read unencrypted requests.
            trust_env=self.url.startswith("https:"),
        )

    def close(self) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"<Caller of {self.url}>"

    def send(self, call: Call, *, streamed: bool = False) -> httpx.Response:
        """The answer, after retries where they may help. Raises the API's error, ApiUnavailable or RemoteProblem."""
        name, tries = uuid.uuid4().hex, itertools.count(1)

        def attempt() -> httpx.Response:
            number = next(tries)
            try:
                return self._attempt(call, name, streamed=streamed)
            except CrochetError as error:
                error.context.update(tries=number, request_id=error.context.get("request_id", name))
                raise

        retry_if = _is_retryable if call.again else lambda _: False
        return self.patience.retries.call(attempt, retry_if=retry_if, at_least=_retry_pause)

    @contextlib.contextmanager
    def lines(self, call: Call) -> Iterator[Iterator[bytes]]:
        """The lines of an answer, as they come. Raises ApiUnavailable where it breaks off."""
        with self.tagged_lines(call) as (_, lines):
            yield lines

    @contextlib.contextmanager
    def tagged_lines(self, call: Call) -> Iterator[tuple[str, Iterator[bytes]]]:
        """As `lines`, with the answer's ETag, or ""."""
        answer = self.send(call, streamed=True)
        with contextlib.closing(answer), self._broken_stream():
            yield answer.headers.get("ETag", ""), _lines(answer.iter_bytes())

    def _attempt(self, call: Call, name: str, *, streamed: bool) -> httpx.Response:
        try:
            self.breaker.check()
        except ApiUnavailable as refused:
            refused.context["refused"] = True
            raise
        try:
            answer = self._http.send(self._request(call, name), stream=streamed)
            if answer.is_success or answer.status_code in call.accepted:
                self.breaker.succeeded()
                return answer
            answer.read()
        except httpx.RequestError as error:
            self.breaker.failed(_reason(error))
            raise self._unavailable(_reason(error)) from None
        problem = self._problem(answer)
        if answer.status_code in AWAY and not isinstance(problem, TooBusy):
            self.breaker.failed(_status(answer))
        else:
            self.breaker.succeeded()
        raise problem

    def _request(self, call: Call, name: str) -> httpx.Request:
        request = self._http.build_request(
            call.method,
            call.path,
            params=dict(call.parameters) or None,
            headers={REQUEST_ID: name, **call.headers},
            content=call.content or None,
        )
        if self._secret is not None:  # for each try: the API accepts a signature once
            date, target = f"{time.time():.6f}", request.url.raw_path.decode("ascii")
            request.headers[DATE_HEADER] = date
            request.headers[SIGNATURE_HEADER] = signature(self._secret, call.method, target, date, call.content)
        return request

    @contextlib.contextmanager
    def _broken_stream(self) -> Iterator[None]:
        try:
            yield
        except (httpx.RequestError, httpx.StreamError) as error:
            raise self._unavailable(f"it broke off: {_reason(error)}") from None

    # ── what is no success ──────────────────────────────────────────────────────────────────────

    def _unavailable(self, reason: str) -> ApiUnavailable:
        return ApiUnavailable(url=self.url, reason=reason)

    def _problem(self, answer: httpx.Response) -> CrochetError:
        """The error that the API raised, by its code; RemoteProblem for answers of proxies and of newer APIs."""
        problem = _problem_of(answer)
        about: dict[str, object] = {"status": answer.status_code}
        if (seconds := _retry_after(answer)) is not None:
            about["seconds"] = seconds
        if problem is None and answer.status_code in AWAY:
            error: CrochetError = self._unavailable(_status(answer))
        elif problem is None:
            error = self._unknown(answer, "no problem document")
        else:
            about |= {"request_id": problem.request_id, "errors": problem.errors, "problem": problem.code}
            own = kinds().get(problem.code)
            suffix = f" (request {problem.request_id})" if answer.status_code >= 500 and problem.request_id else ""
            if own is None:
                error = self._unknown(answer, f"{problem.detail} [{problem.code}]{suffix}")
            else:
                error = own.from_message(f"{problem.detail}{suffix}")
        error.context.update(about)
        return error

    def _unknown(self, answer: httpx.Response, detail: str) -> RemoteProblem:
        return RemoteProblem(url=self.url, status=answer.status_code, detail=detail)

    def unknown_answer(self, answer: httpx.Response) -> RemoteProblem:
        return self._unknown(answer, "that is not what this client knows; is it a crochet API?")


def _is_retryable(error: BaseException) -> bool:
    """Whether a retry may succeed: not if the breaker is open, or the API refused the call for good."""
    context = error.context if isinstance(error, CrochetError) else {"refused": True}
    status = context.get("status", AWAY[0])  # there was no answer
    return "refused" not in context and status in (RATE_LIMITED, *AWAY)


def _retry_pause(error: BaseException) -> float:
    seconds = error.context.get("seconds") if isinstance(error, CrochetError) else None
    return seconds if isinstance(seconds, float) else 0.0


# ── parts ───────────────────────────────────────────────────────────────────────────────────────


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL()
    if parsed.scheme not in _PORTS or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        raise WrongCall(problem="the address of an API is one such as https://host:8080, with no login in it")
    return url.rstrip("/")


def _check_key(key: str, url: str, *, plain_http: bool) -> None:
    if not _KEY.fullmatch(key):
        raise WrongCall(problem="that is no key: it has characters that no key has, or is empty")
    if url.startswith("http:") and not plain_http and not is_loopback(httpx.URL(url).host):
        raise NotEncrypted(url=url)


def _reason(error: httpx.RequestError | httpx.StreamError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it took too long to connect" if isinstance(error, httpx.ConnectTimeout) else "it took too long"
    return str(error) or type(error).__name__


def _status(answer: httpx.Response) -> str:
    return f"{answer.status_code} {answer.reason_phrase}"


def _problem_of(answer: httpx.Response) -> Problem | None:
    if not answer.headers.get("Content-Type", "").startswith(PROBLEM):
        return None
    try:
        return Problem.model_validate_json(answer.content)
    except ValidationError:
        return None


def _retry_after(answer: httpx.Response) -> float | None:
    header = answer.headers.get("Retry-After", "").strip()
    if header.isascii() and header.isdigit() and len(header) < 10:
        return float(header)
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": of no zone, so UTC
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, (moment - dt.datetime.now(dt.UTC)).total_seconds())


def _lines(parts: Iterator[bytes]) -> Iterator[bytes]:
    """At line feeds only: JSON may hold what else counts as the end of a line."""
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from whole
    if rest:
        yield rest
