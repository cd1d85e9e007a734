"""Check an archive without a database: all that it says must follow from its texts, but for what may be missing."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from crochet_tasks.archive.contents import Contents
from crochet_tasks.archive.read import Archive
from crochet_tasks.archive.write import BEST, MANIFEST, TEXTS, WORDS
from crochet_tasks.db.archives import Proof
from crochet_tasks.db.batches import Batch
from crochet_tasks.db.verification import WordRow
from crochet_tasks.engine.best import certificate
from crochet_tasks.engine.best.certificate import Certificate
from crochet_tasks.engine.geometry import Sides, shape_name
from crochet_tasks.engine.text import READING
from crochet_tasks.verify.context import Context, context_of, version_limits
from crochet_tasks.verify.orthos import Orthos

_CERTIFICATES = TypeAdapter(Certificate)

Report = Callable[[str], None]


class Checked(NamedTuple):
    """An archive without a fault, and the phrases of its corpus."""

    archive: Archive
    context: Context


def check(archive: Archive, *, full: bool = False, progress: Report = lambda _: None) -> Checked:
    """Read all of an archive; raises ArchiveDamaged with the first thing that is wrong, and what reading it raises.

    Every text, phrase and ortho is checked against its definition. Whether an ortho is missing only `full` tells:
    it searches the texts again, which takes as long as the first search did.
    """

    def problem(words: str) -> None:
        raise archive.damaged(words.partition("; see 'crochet verify'")[0])  # it is in no store

    context = _context(archive, problem)
    progress(f"checked the phrases of version {context.version}: {context.index.nodes - 1}")
    orthos = Orthos(context, problem)
    counted: Counter[str] = Counter()
    for sides, every in itertools.groupby(archive.batches(), lambda batch: batch.stored.sides):
        orthos.shape(sides, _counted(every, counted), waiting=False)
    if dict(counted) != archive.manifest.orthos:
        shape = min(shape for shape in {*counted, *archive.manifest.orthos} if _differs(archive, counted, shape))
        said = archive.manifest.orthos.get(shape, 0)
        problem(f"{MANIFEST} says that there are {said} orthos of shape {shape}, and there are {counted[shape]}")
    progress(f"checked {counted.total()} orthos")
    if (proof := archive.proof()) is not None:
        _check_proof(proof, context, problem)
        progress("checked the proof of the best")
    if full:
        total = orthos.closure(lambda shapes: _of_shapes(archive, shapes))
        progress(f"searched everything again: {total} orthos")
    return Checked(archive, context)


def _differs(archive: Archive, counted: Counter[str], shape: str) -> bool:
    return archive.manifest.orthos.get(shape, 0) != counted[shape]


def _counted(every: Iterable[Batch], counted: Counter[str]) -> Iterator[Batch]:
    for batch in every:
        counted[shape_name(batch.stored.sides)] += batch.stored.count
        yield batch


def _of_shapes(contents: Contents, shapes: Iterable[Sides]) -> Iterator[Batch]:
    wanted = set(shapes)
    return (batch for batch in contents.batches() if batch.stored.sides in wanted)


def _context(archive: Archive, problem: Report) -> Context:
    """The phrases, if they are those of the texts."""
    about = archive.about
    made: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    for text in archive.texts():
        made.append((text.version, text.phrases))
        digest = hashlib.sha256(text.body.encode()).digest()
        if digest in seen:
            problem(f"{TEXTS}: text {text.version} is there twice")
        seen.add(digest)
    limits = version_limits(about.version, made, problem)
    words = [WordRow(number, *word) for number, word in enumerate(archive.words())]
    if len({word.word for word in words}) < len(words):
        problem(f"{WORDS} has a word twice")
    context = None if limits is None else context_of(about.limits, limits, words, list(archive.chunks()), problem)
    assert context is not None  # else there was a problem, which was raised
    if int(context.born[-1]) > about.version or (words and words[-1].born > about.version):
        problem(f"it has words or phrases that are younger than version {about.version}")
    # Texts that other rules have read have other words by today's; then the phrases stand for themselves.
    if about.reading == READING:
        for text, (version, before, index) in zip(archive.texts(), context.versions(), strict=True):
            context.compare_text(problem, f"text {version} ({text.title})", text.body, version, before, index)
    return context


def _check_proof(proof: Proof, context: Context, problem: Report) -> None:
    try:
        found = _CERTIFICATES.validate_json(proof.certificate)
        certificate.check(found, context.tree)
        shown = [(tuple(one["shape"]), tuple(one["words"])) for one in json.loads(proof.report)["best"]]
        json.loads(proof.search)
    except (ValidationError, ValueError, TypeError, KeyError, IndexError, OverflowError, certificate.Refused) as error:
        what = str(error) if isinstance(error, certificate.Refused) else "it is no certificate"
        problem(f"{BEST}: {what}")
        return
    listed = {(each.sides, ortho) for each in found.listed for ortho in each.orthos}
    if (proof.max_axes, proof.max_side, proof.max_cells, proof.top) != (*found.scope, found.top):
        problem(f"{BEST} is the answer to another question than its certificate")
    if not listed.issuperset(shown):
        problem(f"{BEST}: the report has orthos that the certificate has not")
