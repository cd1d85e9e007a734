"""The tables. Rules of the domain and the pipeline are constraints where SQL can express them.

A batch is one row: a sorted run of orthos, packed (docs/adr/0034). A chunk of phrases is one row, too
(docs/adr/0004). The migrations make the same schema; a test holds the two together.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT4RANGE

from crochet_tasks.db.access_tables import tenants
from crochet_tasks.db.metadata import JSON, MOMENT, NAMED, metadata, now, numbered

TAKEN_UP = "(not_before IS NULL OR not_before < 'infinity')"
"""SQL, of a row of work: it is neither parked nor held by a spent budget"""
KEY_CHARACTERS = 64
"""of the words of a batch's first ortho that are in the index"""

corpora = Table(
    "corpora",
    metadata,
    numbered(Integer),
    Column("tenant", Integer, ForeignKey(tenants.c.id), nullable=False, server_default="1"),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("max_axes", SmallInteger, nullable=False),
    Column("max_side", SmallInteger, nullable=False),
    Column("max_cells", Integer, nullable=False),
    Column("budget", BigInteger, comment="orthos after which no more are searched for; none without"),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("reading", Text, nullable=False, comment="by which reading rules and Unicode version its texts were read"),
    Column("revision", Integer, nullable=False, server_default="1", comment="of what can be changed"),
    now("created_at"),
    Column("removed_at", MOMENT, comment="since then nobody sees it, and the relay deletes it"),
    Column("paused_at", MOMENT, comment="since then none of its work is published"),
    Column(
        "priority",
        SmallInteger,
        nullable=False,
        server_default="0",
        comment="each step doubles its share of what its tenant has",
    ),
    Index("corpora_tenant_name_key", "tenant", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
    CheckConstraint(NAMED, name="name"),
    CheckConstraint("max_axes BETWEEN 2 AND 8", name="max_axes"),
    CheckConstraint("max_side BETWEEN 2 AND 64", name="max_side"),
    CheckConstraint("max_cells BETWEEN 4 AND 1024", name="max_cells"),
    CheckConstraint("char_length(description) <= 2000", name="description"),
    CheckConstraint("budget > 0", name="budget"),
    CheckConstraint("version >= 0", name="version"),
    CheckConstraint("revision >= 1", name="revision"),
    CheckConstraint("priority BETWEEN -3 AND 3", name="priority"),
    comment="A body of texts with its own vocabulary, phrases, limits and orthos.",
)

texts = Table(
    "texts",
    metadata,
    numbered(),
    Column("corpus", Integer, ForeignKey("corpora.id"), nullable=False),
    Column("seq", Integer, nullable=False, comment="place in the order of acceptance"),
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("state", Text, nullable=False, server_default="accepted"),
    Column("sentences", Integer, nullable=False, server_default="0", comment="how many are ingested"),
    Column("reached", Integer, comment="how many phrases there were after the last part that was ingested"),
    Column("version", Integer, comment="the version of the context that this text made"),
    Column("phrases", Integer, comment="how many phrases that version has, the empty one included: its limit"),
    Column("error", JSON),
    now("accepted_at"),
    Column("finished_at", MOMENT),
    Column("origin", JSON, comment="the request that brought it, and its traceparent"),
    Column(
        "priority",
        SmallInteger,
        nullable=False,
        server_default="0",
        comment="that its corpus has at least while work is due that it waits for",
    ),
    UniqueConstraint("corpus", "seq"),
    UniqueConstraint("corpus", "version"),
    UniqueConstraint("corpus", "sha256"),
    CheckConstraint("octet_length(sha256) = 32", name="sha256"),
    # accepted -> ingested -> current, or failed from either, or cancelled before anything was done
    CheckConstraint("state IN ('accepted', 'ingested', 'current', 'failed', 'cancelled')", name="state"),
    CheckConstraint("(state = 'current') = (version IS NOT NULL)", name="version"),
    CheckConstraint("(version IS NULL) = (phrases IS NULL)", name="phrases"),
    CheckConstraint("(state = 'failed') = (error IS NOT NULL)", name="error"),
    CheckConstraint("priority BETWEEN 0 AND 3", name="priority"),
    # Whose corpus is hurried along: the relay looks with each message.
    Index("texts_urgent_idx", "corpus", "version", postgresql_where=text("priority > 0")),
    # Whose turn it is.
    Index("texts_waiting_idx", "corpus", "seq", postgresql_where=text("state IN ('accepted', 'ingested')")),
    # The census counts these; versions are as many as the corpora say.
    Index("texts_unfinished_idx", "state", "accepted_at", postgresql_where=text("state <> 'current'")),
    comment="The texts as accepted. Each becomes one version of its corpus' context, in the order of seq.",
)

words = Table(
    "words",
    metadata,
    Column("corpus", Integer, ForeignKey("corpora.id"), primary_key=True),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("born", Integer, nullable=False),
    Column("word", Text(collation="C"), nullable=False),
    CheckConstraint("id >= 0 AND born >= 1", name="numbers"),
    # By its hash: the words of a text may be longer than what an index entry may hold.
    Index("words_corpus_word_key", "corpus", text("word_hash(word)"), unique=True),
    comment="The vocabulary. Ids grow with the version that brought the word.",
)

phrases = Table(
    "phrases",
    metadata,
    Column("corpus", Integer, ForeignKey("corpora.id"), primary_key=True),
    Column("first", Integer, primary_key=True, autoincrement=False, comment="id of the first phrase in the chunk"),
    Column("count", Integer, nullable=False),
    Column("next", Integer, Computed("first + count", persisted=True), nullable=False),
    Column("after", Integer, Computed("nullif(first, 1)", persisted=True)),
    Column("born", Integer, nullable=False),
    Column("parent", LargeBinary, nullable=False, comment="packed: per phrase, the id of its prefix"),
    Column("word", LargeBinary, nullable=False, comment="packed: per phrase, its last word"),
    UniqueConstraint("corpus", "next"),
    # A chunk goes on where another ends: ids have no gap and no overlap.
    ForeignKeyConstraint(["corpus", "after"], ["phrases.corpus", "phrases.next"]),
    CheckConstraint("first >= 1 AND count >= 1 AND born >= 1", name="numbers"),
    comment="The phrase tree, in chunks of phrases with consecutive ids. Phrase 0 is the empty one and not stored.",
)

windows = Table(
    "windows",
    metadata,
    Column("corpus", Integer, ForeignKey("corpora.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("since", Integer, nullable=False, comment="the version up to which the windows before it reach"),
    Column("due", LargeBinary, comment="packed ids of the due phrases; none: all boxes are enumerated by origin word"),
    Column("starts", Integer, nullable=False, comment="how many starts its searches share out"),
    Column("orthos", BigInteger, comment="how many its searches stored so far; none: unknown"),
    CheckConstraint("since >= 0 AND version > since AND starts >= 0", name="numbers"),
    comment="What is searched because of a version: the boxes that hold a line born in (since, version].",
)

batches = Table(
    "batches",
    metadata,
    numbered(),
    Column("key", Uuid, nullable=False, unique=True, comment="uuid5 of what made it: the same step makes it once"),
    Column("corpus", Integer, ForeignKey("corpora.id"), nullable=False),
    Column("sides", ARRAY(SmallInteger, dimensions=1), nullable=False, comment="canonical"),
    Column("count", Integer, nullable=False),
    Column("numbering", Integer, nullable=False, comment="the version whose phrase ids it holds"),
    Column("first", Text(collation="C"), nullable=False, comment="the words of its first ortho"),
    Column("last", Text(collation="C"), nullable=False, comment="the words of its last ortho"),
    Column("packed", LargeBinary, nullable=False, comment="its orthos in alphabetical order (engine/runs.py)"),
    Column("found_by", Uuid, nullable=False, comment="the work that found it; of merged batches, the merge"),
    Column("born", Integer, nullable=False, comment="the version at which all its orthos existed"),
    CheckConstraint("count >= 1", name="count"),
    CheckConstraint("box_cells(sides) >= 4", name="sides"),
    CheckConstraint("born >= 1 AND numbering >= born", name="born"),
    CheckConstraint("first <= last", name="range"),
    # By the beginning: words may be longer than what an index entry may hold.
    Index("batches_range_idx", "corpus", "sides", text(f'left("first", {KEY_CHARACTERS})')),
    comment="The orthos: a row is a sorted run of up to 32k of one shape.",
)

remediations = Table(
    "remediations",
    metadata,
    Column("batch", BigInteger, ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("phrases", LargeBinary, nullable=False, comment="packed ids, in the numbering of the batch"),
    comment="What the orthos of each batch wait on: all their lines. A phrase that continues one of them is due.",
)

work = Table(
    "work",
    metadata,
    Column("id", Uuid, primary_key=True, comment="uuid5 of kind, subject, part or boxes: the same work exists once"),
    Column("corpus", Integer, ForeignKey("corpora.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", BigInteger, nullable=False, comment="text, version, or row of best"),
    Column(
        "part",
        INT4RANGE,
        comment="of a search: which starts of its window; of best: which starts of the shape that is searched; none: "
        "to plan",
    ),
    Column("boxes", LargeBinary, comment="of a search: what another one left over; emptied when it is done"),
    Column("since", Integer, nullable=False, comment="of a search: where its window begins"),
    Column("version", Integer, nullable=False, comment="the version that made it due"),
    Column("priority", Integer, nullable=False, comment="larger first"),
    Column("state", Text, nullable=False, server_default="open"),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("error", JSON),
    Column("found", Integer, nullable=False, server_default="0", comment="orthos that were stored when it was done"),
    now("created_at"),
    Column("not_before", MOMENT),
    Column("published_at", MOMENT),
    Column("reopened_at", MOMENT, comment="when an operator opened it again"),
    Column("finished_at", MOMENT),
    Column("origin", JSON, comment="the request that caused it, and the traceparent of who wrote it"),
    CheckConstraint("kind IN ('ingest', 'context', 'remediations', 'search', 'best')", name="kind"),
    CheckConstraint("state IN ('open', 'done', 'failed', 'cancelled')", name="state"),
    CheckConstraint("(state IN ('done', 'cancelled')) <= (finished_at IS NOT NULL)", name="finished"),
    CheckConstraint("(state = 'failed') <= (error IS NOT NULL)", name="error"),
    CheckConstraint(
        "CASE kind WHEN 'search' THEN num_nonnulls(part, boxes) = 1 WHEN 'best' THEN boxes IS NULL "
        "ELSE num_nonnulls(part, boxes) = 0 END",
        name="part",
    ),
    CheckConstraint("kind <> 'search' OR version > since", name="versions"),
    # What the relay publishes next of each corpus, and which searches to hold when its budget is spent.
    Index(
        "work_unpublished_idx",
        "corpus",
        text("priority DESC"),
        "created_at",
        "id",
        postgresql_where=text(f"state = 'open' AND published_at IS NULL AND {TAKEN_UP}"),
    ),
    # Which searches are held; work_published_idx finds overdue work.
    Index("work_set_aside_idx", "corpus", "kind", postgresql_where=text("state = 'open' AND not_before = 'infinity'")),
    Index("work_published_idx", "published_at", postgresql_where=text("state = 'open' AND published_at IS NOT NULL")),
    # The stage that finds what a version makes due goes by the versions.
    Index(
        "work_versions_idx",
        "corpus",
        "subject",
        postgresql_where=text("kind = 'remediations' AND state <> 'done'"),
    ),
    # How far a job is: what is left of it.
    Index("work_best_idx", "corpus", "subject", postgresql_where=text("kind = 'best' AND state IN ('open', 'failed')")),
    # Operators ask for these, and every report counts them.
    Index("work_failed_idx", "corpus", "created_at", postgresql_where=text("state = 'failed'")),
    # Counting or deleting the work of one corpus reads no other's.
    Index("work_corpus_idx", "corpus", "state", "created_at"),
    # Ended work stays: listing the newest of it does not read all of it.
    Index(
        "work_ended_idx",
        "corpus",
        "state",
        text("finished_at DESC"),
        postgresql_where=text("state IN ('done', 'cancelled')"),
    ),
    comment="What is to be done and what was: the outbox. Open rows are published after the commit and by the relay.",
)

best = Table(
    "best",
    metadata,
    numbered(),
    Column("corpus", Integer, ForeignKey("corpora.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("max_axes", SmallInteger, comment="none: any number"),
    Column("max_side", SmallInteger, nullable=False),
    Column("max_cells", Integer, comment="none: any number"),
    Column("top", Integer, comment="how many are wanted; none: all that share the largest volume and cells"),
    Column(
        "revision", Integer, nullable=False, server_default="0", comment="of search: it grows with each change of it"
    ),
    Column("search", Text, comment="how far it is, as JSON (engine/best/state.py); none before the first step"),
    Column("report", JSON, comment="the same in words"),
    Column("expected", JSON, comment="about how many visits are left: low, high, all"),
    Column("certificate", Text, comment="the proof, as JSON"),
    Column("visits", BigInteger, nullable=False, server_default="0", comment="that were made since began_at"),
    now("created_at"),
    Column("began_at", MOMENT, comment="the first step since it was asked for, or asked for again"),
    Column("changed_at", MOMENT),
    Column("finished_at", MOMENT),
    CheckConstraint("version >= 0", name="version"),
    CheckConstraint("max_axes >= 2 AND max_side >= 2 AND max_cells >= 4", name="limits"),
    CheckConstraint("top >= 1", name="top"),
    CheckConstraint("(revision > 0) = (search IS NOT NULL) AND (search IS NULL) = (report IS NULL)", name="search"),
    CheckConstraint("(certificate IS NULL) = (finished_at IS NULL)", name="finished"),
    Index(
        "best_question_key",
        "corpus",
        "version",
        "max_axes",
        "max_side",
        "max_cells",
        "top",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    comment="Searches for the best orthos of a version: the same question exists once. Their parts are rows of work.",
)

best_faces = Table(
    "best_faces",
    metadata,
    Column("job", BigInteger, ForeignKey("best.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("sides", ARRAY(SmallInteger, dimensions=1), primary_key=True),
    Column("first", Integer, primary_key=True, autoincrement=False, comment="the first start of the part"),
    Column("count", Integer, nullable=False),
    Column("boxes", LargeBinary, nullable=False, comment="packed ids of words, in the numbering of the version"),
    CheckConstraint("count >= 1", name="count"),
    CheckConstraint("box_cells(sides) >= 4", name="sides"),
    comment="The orthos of a shape that larger shapes are stacked of, while a job needs them: a row per part that "
    "found some.",
)

attempts = Table(
    "attempts",
    metadata,
    numbered(),
    Column("work", Uuid, ForeignKey("work.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("corpus", Integer, ForeignKey("corpora.id"), nullable=False, comment="of the work"),
    Column("number", SmallInteger, nullable=False, comment="begins anew when an operator opens the work again"),
    now("at"),
    Column("error", JSON, nullable=False, comment="code, message, type, context and where it was"),
    # Statistics read the last ones of a corpus.
    Index("attempts_corpus_idx", "corpus", "at"),
    comment="Every try of work that did not succeed.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    numbered(),
    Column("queue", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="why the broker gave the message up"),
    Column("task", Text, comment="the task it was for, if it says so"),
    Column("message", Text, comment="its id, if it has one"),
    Column("body", LargeBinary, nullable=False, comment="its beginning"),
    Column("died_at", MOMENT, nullable=False),
    now("noted_at"),
    comment="Messages that the broker gave up and that name no work of ours. Work that died is in `work`, as failed.",
)

counts = Table(
    "counts",
    metadata,
    Column("corpus", Integer, ForeignKey("corpora.id"), primary_key=True),
    Column("sides", ARRAY(SmallInteger, dimensions=1), primary_key=True),
    Column("orthos", BigInteger, nullable=False),
    Column("batches", BigInteger, nullable=False),
    CheckConstraint("orthos >= 0 AND batches >= 0", name="numbers"),
    comment="How many there are per shape, kept in the transactions that write them.",
)

audit = Table(
    "audit",
    metadata,
    numbered(),
    now("at"),
    Column("who", Text, nullable=False, server_default=func.current_user()),
    Column("what", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("before", JSON),
    Column("after", JSON),
    Column("corpus", Integer, comment="of texts, work and corpora; it may be deleted"),
    Column("tenant", Integer, comment="of corpora, keys and tenants"),
    Column(
        "by",
        JSON,
        server_default=text("audit_by()"),
        comment="key or user, address, request; none: the pipeline itself",
    ),
    comment="Every change of state of texts and work, every change of corpora, keys and tenants, append only.",
)

seals = Table(
    "seals",
    metadata,
    numbered(),
    now("at"),
    Column("source", Text, nullable=False, comment="the table whose rows it seals"),
    Column("first", BigInteger, nullable=False, comment="id from which it seals rows: each follows on another"),
    Column("last", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("oldest", MOMENT, nullable=False, comment="when its oldest row was written"),
    Column("before", LargeBinary, nullable=False, comment="hash of the seal before it, empty of the first one"),
    Column("root", LargeBinary, nullable=False, comment="SHA-256 of digests"),
    Column("digests", LargeBinary, comment="SHA-256 of each row; none: its rows are deleted, being old"),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of before, root and the rest"),
    UniqueConstraint("source", "first"),
    comment="What shows that rows of the audit were changed: a chain of hashes, append only.",
)
