"""Requests whose answers are models: what the routes of the client are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from crochet_tasks.client.calls import Call, Caller, Patience, parameters_of
from crochet_tasks.schemas.answers import (
    AuditPage,
    CorpusPage,
    KeyPage,
    OrthoPage,
    PhrasePage,
    TenantPage,
    TextPage,
    Vocabulary,
)

M = TypeVar("M", bound=BaseModel)
P = TypeVar("P", AuditPage, CorpusPage, KeyPage, TenantPage, TextPage, OrthoPage, Vocabulary, PhrasePage)
T = TypeVar("T")

PATIENT = Patience()
EVENTS = "text/event-stream"


class Requests:
    """To one API, with one key or access token, or none. A context manager; threads may share it."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        patience: Patience = PATIENT,
        plain_http: bool = False,
        sign: bool = True,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`plain_http` lets the key be sent unencrypted to other machines; `sign`: requests are signed by the key.

        Raises WrongCall for an address or key that is none, and NotEncrypted.
        """
        self._caller = Caller(url, key, patience, transport, plain_http=plain_http, sign=sign)
        self.url = self._caller.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._caller.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.url}>"

    # ── for the routes ──────────────────────────────────────────────────────────────────────────

    def _get(self, model: type[M], path: str, **parameters: str | int | None) -> M:
        return self._read(model, Call("GET", path, again=True, parameters=parameters_of(**parameters)))

    def _read(self, model: type[M], call: Call) -> M:
        return self._parsed(model, self._caller.send(call))

    def _parsed(self, model: type[M], answer: httpx.Response) -> M:
        try:
            return model.model_validate_json(answer.content)
        except ValidationError:
            raise self._caller.unknown_answer(answer) from None


def every(page: Callable[[str | None], P], items: Callable[[P], list[T]]) -> Iterator[T]:
    """The items of all pages; `page` gets the cursor of one."""
    cursor: str | None = None
    while True:
        found = page(cursor)
        yield from items(found)
        cursor = found.next_cursor
        if cursor is None:
            return


def event_call(corpus: str | None, *, again: bool) -> Call:
    return Call("GET", "/v1/events", again=again, parameters=parameters_of(corpus=corpus), headers={"Accept": EVENTS})


def corpus_path(name: str) -> str:
    return f"/v1/corpora/{quote(name, safe='')}"


def work_path(corpus: str, work: str) -> str:
    return f"{corpus_path(corpus)}/work/{quote(work, safe='')}"
