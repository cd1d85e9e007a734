"""`crochet seed`: sample texts, for a deployment or tenant on which things are tried; and their removal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from crochet_tasks.client import Client
from crochet_tasks.client.client import ACCEPTED
from crochet_tasks.errors import CorpusExists, CrochetError, kinds
from crochet_tasks.intake.files import Input

PREFIX = "sample-"
DESCRIPTION = "sample text (crochet seed)"
"""by which `remove` knows them, beside their names"""
BUDGET = 100_000
"""orthos of each: some texts hold millions"""


def seed(client: Client, texts: Sequence[Input]) -> Iterator[str]:
    """Give each text a corpus of its own, called by its file, unless it is there; a line about each."""
    for source, body in texts:
        name = Path(source).stem
        corpus = f"{PREFIX}{name}"
        with contextlib.suppress(CorpusExists):
            client.create_corpus(corpus, description=DESCRIPTION, budget=BUDGET)
        (taken,) = client.post_texts(corpus, [(name, body)])
        if taken.error is not None:
            raise kinds().get(taken.error.code, CrochetError).from_message(taken.error.message)
        yield f"{corpus}: {'accepted' if taken.status == ACCEPTED else 'is there already'}"


def remove(client: Client) -> Iterator[str]:
    """Delete the corpora that `seed` has made; a line about each. Those that only have such a name stay."""
    for line in list(client.corpora()):
        if line.name.startswith(PREFIX) and line.description == DESCRIPTION:
            client.delete_corpus(line.name, confirm=line.name)
            yield f"{line.name}: deleted"
