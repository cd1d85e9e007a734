"""How many orthos a run may store: by its option, its corpus, or default; the default never more than fit the disk."""

from __future__ import annotations

from typing import Literal, NamedTuple

from crochet_tasks.embedded import store
from crochet_tasks.embedded.folder import LOW_BYTES, free_bytes
from crochet_tasks.settings import Settings

PLANNED_BYTES = 4
"""for an ortho, when disk space is planned: what is stored (docs/adr/0037) and as much log"""


class Budget(NamedTuple):
    """Orthos that are to be stored at the most, None for all; and who set that."""

    orthos: int | None
    set_by: Literal["option", "corpus", "default", "disk"]


def of_run(option: Budget | None, of_corpus: int | None, default: int | None, room: int | None) -> Budget:
    """The budget of a run. `room`: orthos that the disk has room for, with those that are stored; None: unknown.

    The budget of a corpus holds whatever the option says, because other processes may search the corpus, too.
    """
    if of_corpus is not None and (option is None or option.orthos is None or of_corpus < option.orthos):
        return Budget(of_corpus, "corpus")
    if option is not None:
        return option
    if room is not None and (default is None or room < default):
        return Budget(max(1, room), "disk")
    return Budget(default, "default")


def of_new_corpus(settings: Settings) -> int | None:
    """The default budget of a corpus; None on the private server, where only runs search, with budgets of their own."""
    return None if settings.database_url is None else settings.budget


def room(settings: Settings, stored: int) -> int | None:
    """How many orthos the private server's disk has room for, with those that are stored; None for other servers."""
    if settings.database_url is not None:
        return None
    free = free_bytes(store.data_folder(settings))
    return stored + max(0, free - LOW_BYTES) // PLANNED_BYTES
