"""Stage 1, ordered: accept texts, and bring their words and phrases into the next version of the context."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from crochet_tasks.app import Step, app, described, here
from crochet_tasks.db import corpora, outbox, texts
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.texts import TextRow
from crochet_tasks.errors import Retry, TextHasNul, TextNotUtf8, TextTooLarge, TextWithoutWords, retry_class
from crochet_tasks.schemas import Knock


def decoded(source: str, content: bytes, max_bytes: int) -> str:
    """The text of a file or request; raises the error that says what is wrong with it."""
    if len(content) > max_bytes:
        raise TextTooLarge(source=source, limit=max_bytes)
    try:
        body = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bom = len(content) - len(error.object)  # the decoder leaves a byte order mark out of its count
        raise TextNotUtf8(source=source, offset=bom + error.start) from None
    if "\0" in body:
        raise TextHasNul(source=source, offset=content.index(b"\0"))
    if not any(map(str.isalpha, body)):
        raise TextWithoutWords(source=source)
    return body


def accept(corpus: Corpus, title: str, body: str) -> tuple[TextRow, bool]:
    """Accept a text: its row and its work in one transaction; (text, whether it is to be ingested).

    The same text again is the first one; one that failed is tried again.
    """
    with here().database.transaction() as connection:
        corpora.hold(connection, corpus.id, Lock.ACCEPTANCE)
        text, new = texts.accept(connection, corpus.id, title, body)
        if new:
            _ask(connection, outbox.ingest(corpus.id, text.id))
    return text, new


@app.task(base=Step, name="ingest.text")
def ingest(payload: dict[str, Any]) -> None:
    """Ingest the next part of the text whose turn it is."""
    corpus = Knock.model_validate(payload).corpus
    text: TextRow | None = None
    try:
        with here().database.transaction() as connection:
            corpora.hold(connection, corpus, Lock.ORDER)
            text = texts.next_in_line(connection, corpus)
            if text is not None and text.state == "accepted":
                _ingest(connection, text)
    except Exception as error:
        if text is not None and retry_class(error) is Retry.NEVER:
            give_up(text, described(error))
        raise


def _ingest(connection: Connection, text: TextRow) -> None:
    corpus = corpora.numbered(connection, text.corpus)
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
        _ask(connection, outbox.context(corpus.id, text.id))
        outbox.done(connection, [item.id])
    else:
        outbox.hand_back(connection, [item.id])
        here().pending = {(text.id, until): index.extended(added)}


def _ask(connection: Connection, item: Item) -> None:
    """Write a stage's work; where it failed before, open it again."""
    outbox.add(connection, [item])
    outbox.reopen(connection, [item.id])


def give_up(text: TextRow, error: dict[str, str]) -> None:
    """Mark a text as failed: what it had brought goes, and the next one gets its turn.

    Two workers may fail on the same text, one after the other; the second one finds it given up.
    """
    with here().database.transaction() as connection:
        corpora.hold(connection, text.corpus, Lock.ORDER)
        if texts.fail(connection, text, error):
            items = [outbox.ingest(text.corpus, text.id).id, outbox.context(text.corpus, text.id).id]
            outbox.fail(connection, items, error)
            outbox.knock(connection, text.corpus)


def _part(parsed: list[list[str]], first: int, words: int) -> int:
    """Where the part that begins with sentence `first` ends: it has about so many words."""
    until, size = first, 0
    while until < len(parsed) and size < words:
        size += len(parsed[until])
        until += 1
    return until
