"""How the client asks: time-outs, tries, a circuit breaker, signatures, and what the API's refusals become."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import itertools
import json
import logging
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import httpx
from pydantic import ValidationError

from crochet_tasks.access.signing import DATE_HEADER, SIGNATURE_HEADER, signature, split
from crochet_tasks.breaker import Breaker
from crochet_tasks.errors import ApiUnavailable, CrochetError, NotEncrypted, RemoteProblem, TooBusy, WrongCall, kinds
from crochet_tasks.net import is_loopback
from crochet_tasks.schemas.answers import PROBLEM, Problem
from crochet_tasks.settings import version

REQUEST_ID = "X-Request-ID"
JSON = "application/json"
RATE_LIMITED = 429
AWAY = (502, 503, 504)
_KEY = re.compile(r"[\x21-\x7e]+")
_PORTS = {"http": 80, "https": 443}


class Patience(NamedTuple):
    """How long a client waits, and how often it asks."""

    connect: float = 3.0
    """seconds to connect"""
    answer: float = 30.0
    """seconds in which nothing comes"""
    tries: int = 6
    """of one call, at the most"""
    pause: float = 0.2
    """seconds before the second try, more or less; each further pause is twice as long"""
    longest: float = 5.0
    """seconds between two tries, at the most; where the API says that it takes longer, that counts"""
    seconds: float = 30.0
    """from the first try on, after which no other is begun"""
    failures: int = 6
    """in a row, after which the API counts as away"""
    away: float = 5.0
    """seconds in which it is not asked then"""


class Call(NamedTuple):
    """A request. `again`: done twice, it is as if it had been done once, so it may be tried again."""

    method: str
    path: str
    again: bool
    parameters: Mapping[str, str | int] = {}
    headers: Mapping[str, str] = {}
    content: bytes = b""
    accepted: tuple[int, ...] = ()
    """statuses that are answers, too, beside success"""


def posted(path: str, body: Mapping[str, object], *, again: bool) -> Call:
    return Call("POST", path, again=again, headers={"Content-Type": JSON}, content=in_json(body))


def in_json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body).encode()


def given(**parameters: str | int | None) -> dict[str, str | int]:
    """Parameters without those that are None."""
    return {name: value for name, value in parameters.items() if value is not None}


class Caller:
    """Sends calls to one API with one key. Threads may share it. What it raises never tells the key."""

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
            # A proxy of the environment would get to read what goes through it unencrypted.
            trust_env=self.url.startswith("https:"),
        )

    def close(self) -> None:
        self._http.close()

    def __repr__(self) -> str:
        return f"<Caller of {self.url}>"

    def send(self, call: Call, *, streamed: bool = False) -> httpx.Response:
        """The answer, perhaps after some tries. Raises what the API refused it with, ApiUnavailable, RemoteProblem."""
        name, began = uuid.uuid4().hex, time.monotonic()
        for number in itertools.count(1):
            answer = self._tried(call, name, streamed=streamed)
            if isinstance(answer, httpx.Response):
                return answer
            answer.context.update(tries=number, request_id=answer.context.get("request_id", name))
            pause = self._pause(call, number, answer)
            if pause is None or time.monotonic() + pause - began > self.patience.seconds:
                raise answer
            time.sleep(pause)
        raise AssertionError  # it counts for ever

    @contextlib.contextmanager
    def lines(self, call: Call) -> Iterator[Iterator[bytes]]:
        """The lines of an answer, as they come. Raises ApiUnavailable where it breaks off."""
        answer = self.send(call, streamed=True)
        with contextlib.closing(answer), self._broken_off():
            yield _lines(answer.iter_bytes())

    def _tried(self, call: Call, name: str, *, streamed: bool) -> httpx.Response | CrochetError:
        try:
            self.breaker.admit()
        except ApiUnavailable as refused:
            refused.context["refused"] = True
            return refused
        try:
            answer = self._http.send(self._request(call, name), stream=streamed)
            if answer.is_success or answer.status_code in call.accepted:
                self.breaker.succeeded()
                return answer
            answer.read()
        except httpx.RequestError as error:
            reason = _reason(error)
            self.breaker.failed(reason)
            return self._unavailable(reason)
        problem = self._problem(answer)
        if answer.status_code in AWAY and not isinstance(problem, TooBusy):
            self.breaker.failed(_status(answer))
        else:
            self.breaker.succeeded()
        return problem

    def _request(self, call: Call, name: str) -> httpx.Request:
        request = self._http.build_request(
            call.method,
            call.path,
            params=dict(call.parameters) or None,
            headers={REQUEST_ID: name, **call.headers},
            content=call.content or None,
        )
        if self._secret is not None:  # anew with each try: no signature is taken twice
            date, target = f"{time.time():.6f}", request.url.raw_path.decode("ascii")
            request.headers[DATE_HEADER] = date
            request.headers[SIGNATURE_HEADER] = signature(self._secret, call.method, target, date, call.content)
        return request

    def _pause(self, call: Call, number: int, problem: CrochetError) -> float | None:
        """How long to wait before the next try; None where there is to be none."""
        status = problem.context.get("status", AWAY[0])  # that of no answer at all
        hopeless = "refused" in problem.context or status not in (RATE_LIMITED, *AWAY)
        if hopeless or not call.again or number >= self.patience.tries:
            return None
        pause = min(self.patience.pause * 2.0 ** (number - 1), self.patience.longest)
        asked = problem.context.get("seconds")
        jittered = pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return max(jittered, asked) if isinstance(asked, float) else jittered

    @contextlib.contextmanager
    def _broken_off(self) -> Iterator[None]:
        try:
            yield
        except (httpx.RequestError, httpx.StreamError) as error:
            raise self._unavailable(f"it broke off: {_reason(error)}") from None

    # ── what is no success ──────────────────────────────────────────────────────────────────────

    def _unavailable(self, reason: str) -> ApiUnavailable:
        return ApiUnavailable(url=self.url, reason=reason)

    def _problem(self, answer: httpx.Response) -> CrochetError:
        """The error that the API raised, by its code; of a proxy, or of a newer API, what can be said of it."""
        problem = _told(answer)
        about: dict[str, object] = {"status": answer.status_code}
        if (seconds := _retry_after(answer)) is not None:
            about["seconds"] = seconds
        if problem is None and answer.status_code in AWAY:
            error: CrochetError = self._unavailable(_status(answer))
        elif problem is None:
            error = self._strange(answer, "no problem document")
        else:
            about |= {"request_id": problem.request_id, "errors": problem.errors, "problem": problem.code}
            own = kinds().get(problem.code)
            asked = f" (request {problem.request_id})" if answer.status_code >= 500 and problem.request_id else ""
            if own is None:
                error = self._strange(answer, f"{problem.detail} [{problem.code}]{asked}")
            else:
                error = own.told(f"{problem.detail}{asked}")
        error.context.update(about)
        return error

    def _strange(self, answer: httpx.Response, detail: str) -> RemoteProblem:
        return RemoteProblem(url=self.url, status=answer.status_code, detail=detail)

    def not_understood(self, answer: httpx.Response) -> RemoteProblem:
        return self._strange(answer, "that is not what this client knows; is it a crochet API?")


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


def _told(answer: httpx.Response) -> Problem | None:
    if not answer.headers.get("Content-Type", "").startswith(PROBLEM):
        return None
    try:
        return Problem.model_validate_json(answer.content)
    except ValidationError:
        return None


def _retry_after(answer: httpx.Response) -> float | None:
    given = answer.headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit() and len(given) < 10:
        return float(given)
    try:
        moment = email.utils.parsedate_to_datetime(given)
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
