"""A typed client of the REST API.

    with Client("https://crochet.example", key) as client:
        client.create_corpus("genesis")
        client.post_text("genesis", "chapter 1", body)
        for ortho in client.orthos("genesis", contains="sea"): ...

What the API refuses is raised as the error of `crochet_tasks.errors` with the problem's code; `context` has the
`request_id`, the `status`, and the faults as `errors`. ApiUnavailable: the API does not answer. RemoteProblem: it sent
an answer that this client does not know. Idempotent calls are retried where that may help, see Patience; those
are all but `create_corpus`, `change_corpus`, `retry_work` and those about tokens.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Unpack
from urllib.parse import quote

from crochet_tasks.client import exports
from crochet_tasks.client.access import MERGE_PATCH, AccessCalls
from crochet_tasks.client.calls import Call, in_json, parameters_of, posted
from crochet_tasks.client.events import Stream
from crochet_tasks.client.typed import corpus_path, event_call, every, work_path
from crochet_tasks.errors import ApiUnavailable, CorpusUnknown
from crochet_tasks.intake.files import encoded
from crochet_tasks.schemas.answers import (
    AuditPage,
    BestOrthos,
    CheckedAll,
    CorpusEstimate,
    CorpusLine,
    CorpusPage,
    Gone,
    Live,
    OrthoPage,
    OrthoSeen,
    OrthoWhole,
    PhrasePage,
    PhraseSeen,
    Progress,
    Ready,
    Shapes,
    Started,
    StatusNow,
    TextPage,
    TextsTaken,
    TextTaken,
    VersionNow,
    Vocabulary,
    WaitingOn,
    WordSeen,
    WorkPage,
)
from crochet_tasks.schemas.best import BestJob
from crochet_tasks.schemas.reports import (
    AllCancelled,
    AuditLine,
    OrthoLine,
    TextLine,
    WorkChanged,
    WorkRetried,
)
from crochet_tasks.schemas.statistics import StatisticsNow

NDJSON = "application/x-ndjson"
PLAIN = "text/plain; charset=utf-8"
MOST = 1000
"""on one page"""
ACCEPTED = 202


class Tagged(NamedTuple):
    """A corpus and its ETag, which `change_corpus` needs."""

    corpus: CorpusLine
    tag: str


class Posted(NamedTuple):
    """A text; `new`: it will be ingested, else the corpus had it already."""

    text: TextLine
    new: bool


class Which(TypedDict, total=False):
    """Which orthos: all that fit each of these."""

    shape: str | None
    starts_with: str | None
    contains: str | None
    min_volume: int | None
    shares_line_with: str | None


class Client(AccessCalls):
    """Of one API, with one key or access token, or none. A context manager; threads may share it."""

    # ── corpora ─────────────────────────────────────────────────────────────────────────────────

    def create_corpus(
        self,
        name: str,
        *,
        max_axes: int | None = None,
        max_side: int | None = None,
        max_cells: int | None = None,
        limits: Mapping[str, int] | None = None,
        description: str = "",
        budget: int | Literal["all"] | None = None,
        priority: int = 0,
    ) -> CorpusLine:
        """Limits may be given by name or as `limits`; what is not given has its default. Raises CorpusExists."""
        all_limits = {**(limits or {}), **parameters_of(max_axes=max_axes, max_side=max_side, max_cells=max_cells)}
        body: dict[str, Any] = {"name": name, "limits": all_limits, "description": description}
        if budget is not None:
            body["budget"] = None if budget == "all" else budget
        body |= {"priority": priority} if priority else {}
        return self._read(CorpusLine, posted("/v1/corpora", body, again=False))

    def corpora_page(self, *, limit: int = MOST, cursor: str | None = None) -> CorpusPage:
        return self._get(CorpusPage, "/v1/corpora", limit=limit, cursor=cursor)

    def corpora(self, *, at_once: int = MOST) -> Iterator[CorpusLine]:
        """In the order of their names, so many on a page."""
        return every(lambda cursor: self.corpora_page(limit=at_once, cursor=cursor), lambda page: page.corpora)

    def corpus(self, name: str) -> Tagged:
        answer = self._caller.send(Call("GET", corpus_path(name), again=True))
        return Tagged(self._parsed(CorpusLine, answer), answer.headers.get("ETag", ""))

    def change_corpus(self, corpus: str, tag: str, /, **changes: Any) -> Tagged:
        """Change `name`, `description`, `budget` (None: none), `priority` or `paused`. Raises PreconditionFailed."""
        headers = {"Content-Type": MERGE_PATCH, "If-Match": tag}
        call = Call("PATCH", corpus_path(corpus), again=False, headers=headers, content=in_json(changes))
        answer = self._caller.send(call)
        return Tagged(self._parsed(CorpusLine, answer), answer.headers.get("ETag", ""))

    def delete_corpus(self, name: str, *, confirm: str) -> None:
        """Delete everything of a corpus, for good; `confirm` is its name once more. Raises NotConfirmed."""
        try:
            self._caller.send(Call("DELETE", corpus_path(name), again=True, parameters={"confirm": confirm}))
        except CorpusUnknown as error:
            if error.context.get("tries") == 1:
                raise
            # An earlier try has deleted it, and its answer was lost.

    # ── texts ───────────────────────────────────────────────────────────────────────────────────

    def post_text(
        self, corpus: str, title: str, body: str | bytes, *, idempotency_key: str | None = None, priority: int = 0
    ) -> Posted:
        """Post a text (bytes are UTF-8): it is accepted once, however often it has to be sent.

        Raises TooBusy, QuotaReached, IdempotencyKeyReused, and what is wrong with the text.
        """
        key = idempotency_key or uuid.uuid4().hex
        call = Call(
            "POST",
            f"{corpus_path(corpus)}/texts",
            again=True,
            parameters={"title": title, **({"priority": priority} if priority else {})},
            headers={"Content-Type": PLAIN, "Idempotency-Key": key},
            content=encoded(f"'{title}'", body) if isinstance(body, str) else body,
        )
        answer = self._caller.send(call)
        return Posted(self._parsed(TextLine, answer), new=answer.status_code == ACCEPTED)

    def post_texts(
        self, corpus: str, texts: Sequence[tuple[str, str]], *, idempotency_key: str | None = None
    ) -> list[TextTaken]:
        """Post up to 100 texts, (title, body) each: accepted once each, in this order, what is wrong with one beside.

        With the same key and the same texts it may be called again. Raises RequestTooLarge: send fewer.
        """
        items = [{"title": title, "body": body} for title, body in texts]
        call = posted(f"{corpus_path(corpus)}/texts/batch", {"texts": items}, again=True)
        headers = {**call.headers, "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._read(TextsTaken, call._replace(headers=headers)).texts

    def texts_page(
        self, corpus: str, *, state: str | None = None, limit: int = MOST, cursor: str | None = None
    ) -> TextPage:
        return self._get(TextPage, f"{corpus_path(corpus)}/texts", state=state, limit=limit, cursor=cursor)

    def texts(self, corpus: str, *, state: str | None = None, at_once: int = MOST) -> Iterator[TextLine]:
        """In the order of acceptance."""
        query: dict[str, Any] = {"state": state, "limit": at_once}
        return every(lambda cursor: self.texts_page(corpus, **query, cursor=cursor), lambda page: page.texts)

    def text(self, corpus: str, text: str) -> TextLine:
        return self._get(TextLine, f"{corpus_path(corpus)}/texts/{quote(text, safe='')}")

    def cancel_text(self, corpus: str, text: str) -> TextLine:
        """Raises TextIsVersion, TextStarted, WorkNotCancellable."""
        return self._read(
            TextLine, Call("POST", f"{corpus_path(corpus)}/texts/{quote(text, safe='')}/cancel", again=True)
        )

    # ── the context ─────────────────────────────────────────────────────────────────────────────

    def version(self, corpus: str) -> int:
        return self._get(VersionNow, f"{corpus_path(corpus)}/version").version

    def words_page(self, corpus: str, prefix: str = "", *, limit: int = MOST, cursor: str | None = None) -> Vocabulary:
        return self._get(Vocabulary, f"{corpus_path(corpus)}/vocabulary", prefix=prefix, limit=limit, cursor=cursor)

    def words(self, corpus: str, prefix: str = "", *, at_once: int = MOST) -> Iterator[WordSeen]:
        return every(
            lambda cursor: self.words_page(corpus, prefix, limit=at_once, cursor=cursor), lambda page: page.words
        )

    def phrases_page(
        self, corpus: str, prefix: str = "", *, limit: int = MOST, cursor: str | None = None
    ) -> PhrasePage:
        return self._get(PhrasePage, f"{corpus_path(corpus)}/phrases", prefix=prefix, limit=limit, cursor=cursor)

    def phrases(self, corpus: str, prefix: str = "", *, at_once: int = MOST) -> Iterator[PhraseSeen]:
        """Those one word longer than the prefix. Raises PhraseUnknown."""
        return every(
            lambda cursor: self.phrases_page(corpus, prefix, limit=at_once, cursor=cursor), lambda page: page.phrases
        )

    def waiting_on(self, corpus: str, phrase: str, *, limit: int = MOST) -> WaitingOn:
        """The batches that are searched again when this phrase gets a continuation. Raises PhraseUnknown."""
        return self._get(WaitingOn, f"{corpus_path(corpus)}/remediations", phrase=phrase, limit=limit)

    # ── orthos ──────────────────────────────────────────────────────────────────────────────────

    def orthos_page(
        self,
        corpus: str,
        *,
        fields: Sequence[str] | None = None,
        limit: int = MOST,
        cursor: str | None = None,
        **which: Unpack[Which],
    ) -> OrthoPage:
        """A page may be short and have a `next_cursor` all the same."""
        chosen = None if fields is None else ",".join(fields)
        return self._get(OrthoPage, f"{corpus_path(corpus)}/orthos", **which, fields=chosen, limit=limit, cursor=cursor)

    def orthos(
        self, corpus: str, *, fields: Sequence[str] | None = None, at_once: int = MOST, **which: Unpack[Which]
    ) -> Iterator[OrthoSeen]:
        """Best first, page by page, so not of one moment: see `export`."""
        return every(
            lambda cursor: self.orthos_page(corpus, fields=fields, limit=at_once, cursor=cursor, **which),
            lambda page: page.orthos,
        )

    def export(self, corpus: str, **which: Unpack[Which]) -> Iterator[OrthoLine]:
        """All of them, best first, from one snapshot, and across restarts of the API as long as nothing more is found.

        Raises ApiUnavailable where it breaks off otherwise.
        """
        return (OrthoLine.model_validate_json(line) for line in self.export_lines(corpus, **which))

    def export_lines(self, corpus: str, **which: Unpack[Which]) -> Iterator[bytes]:
        """As `export`: an object of JSON each, without the line feed."""
        query = parameters_of(**which)
        call = Call("GET", f"{corpus_path(corpus)}/orthos", again=True, parameters=query, headers={"Accept": NDJSON})
        return exports.lines(self._caller, call)

    def best(self, corpus: str, limit: int = 10) -> BestOrthos:
        return self._get(BestOrthos, f"{corpus_path(corpus)}/orthos/best", limit=limit)

    def find_best(
        self, corpus: str, *, top: int | None = None, limits: Mapping[str, int | None] | None = None
    ) -> BestJob:
        """Have workers find the best orthos, with proof; what is proven already is answered at once.

        `limits` that differ from those of the corpus; None: any number. Raises LimitOutOfRange, TooBusy.
        """
        body: dict[str, Any] = {name: "any" if most is None else most for name, most in (limits or {}).items()}
        return self._read(BestJob, posted(f"{corpus_path(corpus)}/best", {**body, "top": top}, again=True))

    def best_job(self, corpus: str, job: str | None = None) -> BestJob:
        """How far that search is, by default the newest."""
        return self._get(BestJob, f"{corpus_path(corpus)}/best" + ("" if job is None else f"/{quote(job, safe='')}"))

    def best_certificate(self, corpus: str, job: str) -> bytes:
        """The proof, as JSON. Raises NotFound where there is none yet."""
        path = f"{corpus_path(corpus)}/best/{quote(job, safe='')}/certificate"
        return self._caller.send(Call("GET", path, again=True)).content

    def cancel_best(self, corpus: str, job: str) -> BestJob:
        """Stop a search; `find_best` has it go on."""
        return self._read(BestJob, Call("POST", f"{corpus_path(corpus)}/best/{quote(job, safe='')}/cancel", again=True))

    def ortho(self, corpus: str, ortho: str) -> OrthoWhole:
        """With its grid, and the sentences that its lines were read from."""
        return self._get(OrthoWhole, f"{corpus_path(corpus)}/orthos/{quote(ortho, safe='')}")

    def shapes(self, corpus: str) -> Shapes:
        return self._get(Shapes, f"{corpus_path(corpus)}/shapes")

    def check(
        self,
        corpus: str,
        *,
        ids: Sequence[str] | None = None,
        grids: Sequence[Sequence[Any]] | None = None,
        exact: bool = True,
    ) -> CheckedAll:
        """Whether these are stored, by id or as nested lists of words: either, and 1000 at the most."""
        items = {name: list(values) for name, values in (("ids", ids), ("grids", grids)) if values is not None}
        return self._read(
            CheckedAll, posted(f"{corpus_path(corpus)}/orthos/check", {**items, "exact": exact}, again=True)
        )

    # ── work ────────────────────────────────────────────────────────────────────────────────────

    def work(self, corpus: str, *, state: str | None = None, kind: str | None = None, limit: int = MOST) -> WorkPage:
        """Without a state: what is open or has failed."""
        return self._get(WorkPage, f"{corpus_path(corpus)}/work", state=state, kind=kind, limit=limit)

    def retry_work(self, corpus: str, work: str) -> WorkChanged:
        """Raises WorkNotFailed."""
        return self._read(WorkChanged, Call("POST", f"{work_path(corpus, work)}/retry", again=False))

    def cancel_work(self, corpus: str, work: str) -> WorkChanged:
        """Raises TextIsVersion, TextStarted, WorkNotCancellable."""
        return self._read(WorkChanged, Call("POST", f"{work_path(corpus, work)}/cancel", again=True))

    def cancel_all_work(self, corpus: str) -> AllCancelled:
        """Cancel all open work of a corpus. Raises TextStarted."""
        return self._read(AllCancelled, Call("POST", f"{corpus_path(corpus)}/work/cancel", again=True))

    def retry_all_work(self, corpus: str) -> WorkRetried:
        """Open all failed, dropped and cancelled work of a corpus again."""
        return self._read(WorkRetried, Call("POST", f"{corpus_path(corpus)}/work/retry", again=True))

    def audit_page(self, *, limit: int = MOST, cursor: str | None = None, **query: Any) -> AuditPage:
        """`query`: corpus, by, subject, what, since, until."""
        return self._get(AuditPage, "/v1/audit", **query, limit=limit, cursor=cursor)

    def audit(self, **query: Any) -> Iterator[AuditLine]:
        """Who changed what, newest first; `query` as of `audit_page`."""
        return every(lambda cursor: self.audit_page(**query, cursor=cursor), lambda page: page.lines)

    # ── how far it is ───────────────────────────────────────────────────────────────────────────

    def status(self, corpus: str) -> StatusNow:
        return self._get(StatusNow, f"{corpus_path(corpus)}/status")

    def estimate(self, corpus: str) -> CorpusEstimate:
        """How many orthos it holds, stored or not."""
        return self._get(CorpusEstimate, f"{corpus_path(corpus)}/estimate")

    def statistics(self) -> StatisticsNow:
        """The statistics of all corpora."""
        return self._get(StatisticsNow, "/v1/status")

    def events(self, corpus: str | None = None) -> Iterator[Progress | Gone]:
        """The state of one corpus or of all, then every change; it ends when that corpus is deleted.

        Streams that end or break off are opened again; what was yielded already is left out. Raises ApiUnavailable
        where the API does not answer for long.
        """
        call, stream = event_call(corpus, again=True), Stream()
        while True:
            try:
                with self._caller.lines(call) as lines:
                    for event in stream.events(lines):
                        yield event
                        if isinstance(event, Gone) and event.corpus == corpus:
                            return
            except ApiUnavailable as error:
                if "tries" in error.context:  # it did not even begin
                    raise
            time.sleep(stream.pause)

    def changes(self, corpus: str) -> Iterator[None]:
        """Yield whenever a corpus may have changed, and every few seconds, for as long as one stream lasts.

        Not retried. Raises TooBusy where there are too many listeners, ApiUnavailable where the stream breaks off.
        """
        with self._caller.lines(event_call(corpus, again=False)) as lines:
            for line in lines:
                if line.startswith((b"event:", b":")):
                    yield

    # ── health ──────────────────────────────────────────────────────────────────────────────────

    def live(self) -> Live:
        return self._get(Live, "/health/live")

    def ready(self) -> Ready:
        """Also where it is not: see `status`."""
        return self._read(Ready, Call("GET", "/health/ready", again=True, accepted=(503,)))

    def started(self) -> Started:
        return self._read(Started, Call("GET", "/health/startup", again=True, accepted=(503,)))
