"""Commands on an API instead of a store, with the same output as far as the API has it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from crochet_tasks.client import MOST, Client
from crochet_tasks.client.client import Which
from crochet_tasks.engine.geometry import tiles
from crochet_tasks.errors import CorpusUnknown, NotFound
from crochet_tasks.retry import Outage
from crochet_tasks.schemas.reports import CorpusStatus, OrthoLine, Status, WorkChanged, WorkLine, WorkList
from crochet_tasks.terminal.drawing import cell_width

Broker = Literal["none", "answers", "unknown"]


# ── status ─────────────────────────────────────────────────────────────────────────────────────


def status(client: Client) -> Status:
    """Of all corpora that the key's tenant has."""
    broker = client.ready().components.get("broker")
    known: dict[str, Broker] = {"ok": "answers", "none": "none"}
    state = known.get("none" if broker is None else broker.state, "unknown")
    return Status(
        database=f"API at {client.url}",
        schema_version=None,
        bytes=None,
        dead_letters=None,
        broker=state,
        broker_problem="the broker does not answer the API" if state == "unknown" else None,
        queues={},
        corpora=list(_corpora(client)),
        statistics=client.statistics(),
    )


def _corpora(client: Client) -> Iterator[CorpusStatus]:
    for corpus in client.corpora():
        with contextlib.suppress(CorpusUnknown):  # deleted meanwhile
            found = client.status(corpus.name)
            yield CorpusStatus(**found.model_dump(include=set(CorpusStatus.model_fields)))


def polled(client: Client, every: float, note: Callable[[str], None]) -> Iterator[Status]:
    """Yield the status every so many seconds; report an outage of the API once."""
    outage = Outage(note, "trying again")
    while True:
        began = time.monotonic()
        with outage.tolerated():
            yield status(client)
        time.sleep(max(0.0, began + every - time.monotonic()))


# ── orthos ──────────────────────────────────────────────────────────────────────────────────────


def export(client: Client, corpus: str, form: str, which: Which) -> Iterator[bytes]:
    """As `query.export.export`, a line or an ortho at a time."""
    if form == "jsonl":
        for line in client.export_lines(corpus, **which):
            yield line + b"\n"
        return
    if form == "csv":
        yield b"id,shape,born,words\n"
    for ortho in client.export(corpus, **which):
        yield (_as_csv(ortho) if form == "csv" else _as_text(ortho)).encode()


def _as_csv(ortho: OrthoLine) -> str:
    return f"{ortho.id},{_shape(ortho)},{ortho.born},{' '.join(ortho.words)}\n"


def _as_text(ortho: OrthoLine) -> str:
    lines = [f"{_shape(ortho)}  {ortho.id}  born {ortho.born}"]
    for label, rows in tiles(ortho.shape):
        words = [[ortho.words[cell] for cell in row] for row in rows]
        room = [max(map(cell_width, column)) + 2 for column in zip(*words, strict=True)]
        lines += [label] * bool(label)
        lines += ["".join(map(_padded, row[:-1], room)) + row[-1] for row in words]
    return "\n".join(lines) + "\n\n"


def _padded(word: str, room: int) -> str:
    return word + " " * (room - cell_width(word))


def _shape(ortho: OrthoLine) -> str:
    return "x".join(map(str, ortho.shape))


# ── work ────────────────────────────────────────────────────────────────────────────────────────


def listed(client: Client, corpus: str | None, state: str | None, kind: str | None, most: int) -> WorkList:
    """Work of one corpus or of all, corpus by corpus."""
    lines: list[WorkLine] = []
    more = 0
    for name in _names(client, corpus):
        found = client.work(name, state=state, kind=kind, limit=min(most, MOST))
        lines += found.work
        more += found.more
    return WorkList(work=lines[:most], more=more + len(lines[most:]))


def cancel(client: Client, names: Sequence[str]) -> WorkChanged:
    """One after the other, until one is refused."""
    return _changed(client, names, client.cancel_work)


def retry(client: Client, names: Sequence[str]) -> WorkChanged:
    return _changed(client, names, client.retry_work)


def retry_all(client: Client, corpus: str | None) -> WorkChanged:
    """Each item once, also where it fails again meanwhile."""
    changed: dict[str, WorkLine] = {}
    for name in _names(client, corpus):
        for each in client.work(name, state="failed").work:
            if each.id not in changed:
                made = client.retry_work(name, each.id)
                changed |= {line.id: line for line in made.changed}
    return WorkChanged(changed=list(changed.values()), notes=[])


def _changed(client: Client, names: Sequence[str], change: Callable[[str, str], WorkChanged]) -> WorkChanged:
    corpora = _names(client, None)
    lines = [line for name in names for line in _changed_in_one_of(corpora, name, change)]
    return WorkChanged(changed=lines, notes=[])


def _changed_in_one_of(corpora: Sequence[str], work: str, change: Callable[[str, str], WorkChanged]) -> list[WorkLine]:
    """An id does not name its corpus: each is tried until one has it."""
    for corpus in corpora:
        try:
            made = change(corpus, work)
        except NotFound:
            continue
        return made.changed
    raise NotFound(what="work", name=work)


def _names(client: Client, corpus: str | None) -> list[str]:
    return [each.name for each in client.corpora()] if corpus is None else [corpus]
