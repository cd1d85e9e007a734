"""The context: version, words and phrases of a corpus, and the batches that wait on a phrase."""

from __future__ import annotations

from api import process, resources, responses, security
from api.openapi import NOT_MODIFIED, errors
from api.parameters import CorpusPath, PhrasesQuery, WaitingQuery, WordsQuery
from api.responses import Answered
from api.routes import Routes
from crochet_tasks.db import corpora
from crochet_tasks.errors import InvalidCursor, PhraseUnknown
from crochet_tasks.schemas.answers import PhrasePage, VersionNow, Vocabulary, WaitingOn

api = Routes("context", "/v1/corpora/<corpus>")


@api.get("/version", responses={200: VersionNow, **NOT_MODIFIED, **errors()}, operation_id="getVersion")
@security.requires("read")
def version(path: CorpusPath) -> Answered:
    """The version of a corpus: how many texts it has taken in. Cheap: poll it as often as you like."""
    with process.current().database.transaction() as connection:
        corpus = corpora.named(connection, path.corpus, security.caller().tenant)
    now = VersionNow(corpus=path.corpus, version=corpus.version)
    return responses.tagged(now, corpus.version, _tag(corpus.id, corpus.version))


@api.get(
    "/vocabulary",
    responses={200: Vocabulary, **NOT_MODIFIED, **errors(InvalidCursor)},
    operation_id="listWords",
)
@security.requires("read")
def vocabulary(path: CorpusPath, query: WordsQuery) -> Answered:
    """The words, in the order of their code points; `born` is the version that brought them."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        tag = _tag(corpus.id, corpus.version)
        if known := responses.unchanged(tag, corpus.version):
            return known
        found = resources.catalog().vocabulary(connection, corpus, query.prefix, query.limit, query.cursor)
    return responses.tagged(found, corpus.version, tag)


@api.get(
    "/phrases",
    responses={200: PhrasePage, **NOT_MODIFIED, **errors(InvalidCursor, PhraseUnknown)},
    operation_id="listPhrases",
)
@security.requires("read")
def phrases(path: CorpusPath, query: PhrasesQuery) -> Answered:
    """The phrases that are one word longer than `prefix`; without it, those of one word."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        tag = _tag(corpus.id, corpus.version)
        if known := responses.unchanged(tag, corpus.version):
            return known
        found = resources.catalog().phrases(connection, corpus, query.prefix.split(), query.limit, query.cursor)
    return responses.tagged(found, corpus.version, tag)


@api.get(
    "/remediations",
    responses={200: WaitingOn, **NOT_MODIFIED, **errors(PhraseUnknown)},
    operation_id="listWaiting",
)
@security.requires("read")
def remediations(path: CorpusPath, query: WaitingQuery) -> Answered:
    """What waits on a phrase: the batches of orthos of which it is a line."""
    with resources.open_corpus(path.corpus) as (connection, corpus):
        found = resources.catalog().waiting_on(connection, corpus, query.phrase.split(), query.limit)
    return responses.tagged(found, corpus.version)


def _tag(corpus: int, version: int) -> str:
    """The ETag of what depends on nothing but the version of a corpus."""
    return f"{corpus}-{version}"
