"""Stage 1, ordered: split accepted texts and bring their words and phrases into the next version.

engine/text.py splits; db/process.py calls it and caches the sentences of the last text.
"""

from __future__ import annotations

import re
from typing import Any

from crochet_tasks.app import IN_PLACE, Checked, Step, app
from crochet_tasks.broker.messages import Trigger
from crochet_tasks.db import Connection, attempts, corpora, outbox, publishing, texts
from crochet_tasks.db.corpora import Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.engine.text import READING
from crochet_tasks.errors import ReadingRulesDiffer, TextWithoutWords, WrongCall
from crochet_tasks.intake import files
from crochet_tasks.intake.admission import Admission, SubmittedText
from crochet_tasks.schemas.names import TITLE, TITLE_LENGTH, UNTITLED
from crochet_tasks.settings import Settings
from crochet_tasks.telemetry import metrics


def _checked(corpus: object, body: object, title: object = UNTITLED) -> dict[str, str]:
    """Raise in the caller what would fail the task; return the arguments' representation for logs and Flower."""
    for name, value in (("corpus", corpus), ("title", title), ("body", body)):
        if not isinstance(value, str):
            raise WrongCall(problem=f"ingest.accept takes texts: {name} is of type {type(value).__name__}")
    assert isinstance(corpus, str)
    assert isinstance(title, str)
    assert isinstance(body, str)
    corpora.check_name(corpus)
    if not re.fullmatch(TITLE, title) or not 0 < len(title) <= TITLE_LENGTH:
        raise WrongCall(problem=f"a title has 1 to {TITLE_LENGTH} characters, none of them a control character")
    files.decoded("the body", files.encoded("the body", body), Settings.load().max_text_bytes)
    return {"corpus": repr(corpus), "title": repr(title)[:100], "body": f"<{len(body)} characters>"}


@app.task(
    base=Checked, name="ingest.accept", checked_by=staticmethod(_checked), ignore_result=False, acks_on_failure=True
)
def accept(*, corpus: str, body: str, title: str = UNTITLED) -> dict[str, Any]:
    """Accept a text, as `POST /v1/corpora/{corpus}/texts` does, and return its response: `id`, `state`, ...

    The one task for people to call: `accept.delay(corpus="harbour", body="...", title="...")`. A corpus that does not
    exist is created with the default limits. A text that the corpus has is not accepted twice. The relay
    publishes its ingestion.
    """
    _checked(corpus, body, title)  # a message may come from a producer that is not `delay`
    process = here()

    def once() -> dict[str, Any]:
        with process.database.transaction() as connection:
            corpora.get_or_create(connection, corpus, {}, budget=process.settings.budget)
        answer, _ = Admission(process).post(corpora.DEFAULT_TENANT, corpus, SubmittedText(title, body), None)
        return answer.answer

    return IN_PLACE.call(once)


@app.task(base=Step, name="ingest.text", message=Trigger)
def ingest(call: Trigger) -> None:
    """Ingest the next part of a text if it is its turn; if not, park it until the text before it has ended."""
    pending = here().pending
    with here().database.transaction() as connection:
        corpora.take_lock(connection, call.corpus, Lock.ORDER)
        text = texts.lock_first_waiting(connection, call.corpus)
        items = outbox.claim(connection, call.items, runnable=True)  # after the text, as `cancel` does
        if not items or text is None:
            metrics.DUPLICATES.add(what="trigger")
            return
        if items[0].subject != text.id:
            publishing.park(connection, call.work)
        elif text.state == "accepted":
            pending = _ingest(connection, text)
    here().pending = pending  # now that it is committed


def _ingest(connection: Connection, text: TextRow) -> dict[tuple[int, int, int], PhraseIndex]:
    """Ingest a part; return the value of `Process.pending` after the commit."""
    corpus = corpora.numbered(connection, text.corpus)
    if corpus.reading != READING:  # accepted before an upgrade
        raise ReadingRulesDiffer(corpus=corpus.name, found=corpus.reading, needed=READING)
    index = here().pending_index(connection, text, corpus.version)
    parsed = here().sentences(connection, text.id)
    if not parsed:
        raise TextWithoutWords(source=text.title)
    until = _part(parsed, text.sentences, here().settings.part_words)
    added = index.additions(parsed[text.sentences : until], corpus.limits.max_side)
    texts.add(connection, corpus.id, index, added, corpus.version + 1)
    whole = until == len(parsed)
    texts.ingested(connection, text.id, until, whole=whole)
    item = outbox.ingest(corpus.id, text.id)
    if whole:
        here().parsed = {}
        _add_or_restart(connection, outbox.context(corpus.id, text.id))
        outbox.done(connection, [item.id])
        return {}
    publishing.republish(connection, [item.id])
    return {(text.id, text.seq, until): index.extended(added)}


def _add_or_restart(connection: Connection, item: Item) -> None:
    """Add a work item; where it exists, because its text failed and was accepted again, restart it."""
    outbox.add(connection, [item])
    attempts.restart(connection, item.id)


def _part(parsed: list[list[str]], first: int, words: int) -> int:
    """Return the end of the part that begins with sentence `first` and has about `words` words."""
    until, size = first, 0
    while until < len(parsed) and size < words:
        size += len(parsed[until])
        until += 1
    return until
