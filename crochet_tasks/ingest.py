"""Stage 1, ordered: accept texts, and bring their words and phrases into the next version of the context."""

from __future__ import annotations

from collections.abc import Callable

from crochet_tasks.app import Step, app
from crochet_tasks.broker.messages import Knock
from crochet_tasks.db import Connection, attempts, corpora, outbox, publishing, sessions, texts
from crochet_tasks.db.corpora import Corpus, Lock
from crochet_tasks.db.outbox import Item
from crochet_tasks.db.process import here
from crochet_tasks.db.texts import TextRow
from crochet_tasks.engine.phrases import PhraseIndex
from crochet_tasks.errors import TextWithoutWords
from crochet_tasks.telemetry import metrics


def accept(corpus: Corpus, title: str, body: str) -> tuple[TextRow, bool]:
    """Accept a text: its row and its work in one transaction; (text, whether it is to be ingested).

    The same text again is the first one; one that failed is tried again.
    """
    with here().database.transaction() as connection:
        if corpora.accepting(connection, corpus.id) is None:
            raise corpora.unknown(connection, corpus.name, corpus.tenant)
        return accepted(connection, corpus.id, title, body)


def accepted(
    connection: Connection, corpus: int, title: str, body: str, check_room: Callable[[], None] | None = None
) -> tuple[TextRow, bool]:
    """As `accept`, in the transaction of a caller to whom the corpus is `accepting`.

    `check_room` raises where there is no room for another text; one that is there already needs none.
    """
    known = texts.known(connection, corpus, body)
    if known is not None and known.state not in texts.GIVEN_UP:
        sessions.once_committed(connection, lambda: metrics.DUPLICATES.add(what="text"))
        return known, False
    if check_room is not None:
        check_room()
    text = texts.accept(connection, corpus, title, body) if known is None else texts.accept_again(connection, known)
    item = outbox.ingest(corpus, text.id)
    outbox.add(connection, [item])
    if known is not None:
        attempts.anew(connection, item.id)
    sessions.once_committed(connection, metrics.TEXTS.add)
    return text, True


@app.task(base=Step, name="ingest.text", message=Knock)
def ingest(call: Knock) -> None:
    """Ingest the next part of a text, if it is its turn; if not, it waits until the one before it is done with."""
    pending = here().pending
    with here().database.transaction() as connection:
        corpora.hold(connection, call.corpus, Lock.ORDER)
        text = texts.next_in_line(connection, call.corpus)
        items = outbox.claim(connection, call.items, rested=True)  # after the text, as `cancel` does
        if not items or text is None:
            metrics.DUPLICATES.add(what="knock")
            return
        if items[0].subject != text.id:
            publishing.park(connection, call.work)
        elif text.state == "accepted":
            pending = _ingest(connection, text)
    here().pending = pending  # now that it is committed


def _ingest(connection: Connection, text: TextRow) -> dict[tuple[int, int, int], PhraseIndex]:
    """Ingest a part; what `Process.pending` is after the commit."""
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
        return {}
    publishing.hand_back(connection, [item.id])
    return {(text.id, text.seq, until): index.extended(added)}


def _ask(connection: Connection, item: Item) -> None:
    """Write a stage's work; for a text that failed and is given again, open what there was."""
    outbox.add(connection, [item])
    attempts.anew(connection, item.id)


def _part(parsed: list[list[str]], first: int, words: int) -> int:
    """Where the part that begins with sentence `first` ends: it has about so many words."""
    until, size = first, 0
    while until < len(parsed) and size < words:
        size += len(parsed[until])
        until += 1
    return until
