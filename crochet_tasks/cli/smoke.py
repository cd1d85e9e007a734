"""`crochet --url ... smoke`: whether a deployment does its whole job, from the API through every stage and back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from crochet_tasks.client import Client
from crochet_tasks.errors import CrochetError, SmokeFailed
from crochet_tasks.schemas.reports import OrthoLine

TEXTS = (
    "The seas rise. Seas and sky. The land ends, and land and wind meet.",
    "Rise at dawn. Sky at dusk, and winds rise at sea. And dusk falls; land rise; ends at the land. Wind at sea.",
)
ORTHOS = {
    "the seas / land and",
    "the seas / land rise",
    "land rise / ends at",
    "and winds / land rise",
    "and wind / sky at",
}
"""all that the texts hold, the first after the first one; a test compares them with the definition"""
POLL_SECONDS = 0.2


def smoke(client: Client, seconds: float, report: Callable[[str], None]) -> None:
    """Post two texts into a new corpus, wait for their orthos, compare them, and delete the corpus again.

    Raises SmokeFailed where something is missing, wrong or not done in so many seconds, and what the API answers.
    """
    name, until = f"smoke-{uuid.uuid4().hex[:12]}", time.monotonic() + seconds
    report(f"the API at {client.url} is {client.ready().status}")
    made = False
    try:  # also around this call: what is not answered may have been done
        client.create_corpus(name, description="crochet smoke: it is deleted when the test ends", budget=1000)
        made = True
        for number, body in enumerate(TEXTS, 1):
            began = time.monotonic()
            client.post_text(name, f"text {number}", body)
            _until_complete(client, name, number, until)
            report(f"text {number} was a version and searched in {time.monotonic() - began:.1f} s")
        _compare([_words(line) for line in client.export(name)])
        report(f"all {len(ORTHOS)} orthos are right")
    except BaseException:
        try:
            client.delete_corpus(name, confirm=name)
        except CrochetError as error:
            if made:
                report(f"corpus '{name}' is left, because it could not be deleted ({error}): delete it")
        raise
    client.delete_corpus(name, confirm=name)
    report("its corpus is deleted")


def _until_complete(client: Client, corpus: str, version: int, until: float) -> None:
    while True:
        status = client.status(corpus)
        if status.work.get("failed") or status.texts.get("failed"):
            raise SmokeFailed(problem=f"work of corpus '{corpus}' failed: see 'crochet work list --corpus {corpus}'")
        if status.closed and status.version == version:
            return
        if time.monotonic() > until:
            left = f"version {status.version} of {version}, {status.work.get('open', 0)} pieces of work open"
            raise SmokeFailed(problem=f"not done in time ({left}): do relay and workers run? 'crochet status' shows it")
        time.sleep(POLL_SECONDS)


def _compare(found: list[str]) -> None:
    if sorted(found) != sorted(ORTHOS):
        wrong = ", ".join(sorted(ORTHOS.symmetric_difference(found))) or "some are there twice"
        raise SmokeFailed(problem=f"the orthos are not those of the texts: {wrong}")


def _words(ortho: OrthoLine) -> str:
    width = ortho.shape[-1]
    return " / ".join(" ".join(ortho.words[at : at + width]) for at in range(0, len(ortho.words), width))
