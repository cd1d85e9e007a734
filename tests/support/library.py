"""The corpora of the page's tests, which only read them: several scripts, what breaks layouts, and hostile words."""

from __future__ import annotations

from crochet_tasks.db import corpora
from crochet_tasks.db.corpora import CorpusFields
from crochet_tasks.db.process import Process
from crochet_tasks.intake import admission
from tests.support import best, steps
from tests.support.catalog import id_of
from tests.support.paths import ROOT

HARBOUR = "harbour"
TEXTS = ("harbour", "harbour-evening")
"""of HARBOUR, as they are called in examples/"""
SCRIPTS = "scripts"
HOSTILE = "hostile"
EMPTY = "empty"
LONG = "donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunte"
"""a word of 60 letters and one"""
ARABIC = "البحر هادئ، الريح باردة، البحر الريح، هادئ باردة"
HINDI = "समुद्र शांत। हवा ठंडी। समुद्र हवा। शांत ठंडी"
CHINESE = "海 静。 风 冷。 海 风。 静 冷"
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TITLES = (f"{SCRIPT}", "javascript:alert(3)", "{{ 7 * 7 }}", '"><svg onload=alert(4)>')


WORDS = ("the", "wind", "and", "sea", "came", "to", "lay", "in", "the")
"""an ortho of HARBOUR, 3x3, that of the README"""
ORTHO = id_of(((3, 3), WORDS))


def fill(process: Process) -> None:
    harbour = steps.new_corpus(process, name=HARBOUR)
    for name in TEXTS:
        admission.accept(harbour, name, (ROOT / "examples" / f"{name}.txt").read_text(encoding="utf-8"))
        steps.run(harbour)
    best.ask(process, harbour)
    scripts = steps.new_corpus(process, name=SCRIPTS)
    for title, body in (("بحر", ARABIC), ("समुद्र", HINDI), ("海", CHINESE), ("long", f"{LONG} b, c d, {LONG} c, b d")):
        admission.accept(scripts, title, body)
    hostile = steps.new_corpus(process, name=HOSTILE)
    for number, title in enumerate(TITLES):
        admission.accept(hostile, title, f"{SCRIPT} a{'wxyz'[number]} b, c d, a{'wxyz'[number]} c, b d")
    for corpus in (harbour, scripts, hostile):
        steps.run(corpus)
    steps.new_corpus(process, name=EMPTY)
    with process.database.transaction() as connection:
        found = corpora.named(connection, HARBOUR)
        about = "Two mornings at a harbour, written for this project"
        corpora.change(connection, found, CorpusFields(found.name, about, found.budget))
