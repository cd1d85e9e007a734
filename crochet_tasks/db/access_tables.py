"""The tables of the API: who may ask for what, what was asked already, and the log of it.

No secret is stored: of keys and refresh tokens, which are random and long, there is the SHA-256.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from crochet_tasks.db.metadata import JSON, MOMENT, NAMED, metadata, now, numbered

SCOPED = "cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'operate', 'admin']"

tenants = Table(
    "tenants",
    metadata,
    numbered(Integer),
    Column("name", Text, nullable=False),
    now("created_at"),
    Column("max_corpora", Integer, comment="none: CROCHET_MAX_CORPORA"),
    Column("rate", Integer, comment="requests of a key in a minute; none: that of the key's tier"),
    Column("suspended_at", MOMENT, comment="since then its keys and tokens are refused, and its corpora are paused"),
    Column("removed_at", MOMENT, comment="since then nobody sees it"),
    Column(
        "weight",
        Integer,
        nullable=False,
        server_default="1",
        comment="its share of the workers, where others have work, too",
    ),
    Column(
        "max_searches",
        Integer,
        comment="that are published at the same time; none: CROCHET_PUBLISHED_LIMIT alone",
    ),
    Column("max_orthos", BigInteger, comment="after which no more are searched for; none: no quota"),
    Column("max_texts", Integer, comment="that are kept, in any state; none: no quota"),
    Column("max_bytes", BigInteger, comment="of the texts that are kept; none: no quota"),
    Column(
        "full_at",
        MOMENT,
        comment="since then it has as many orthos as max_orthos says: no search of it is published",
    ),
    Index("tenants_name_key", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
    CheckConstraint(NAMED, name="name"),
    CheckConstraint("max_corpora >= 0", name="max_corpora"),
    CheckConstraint("rate > 0", name="rate"),
    CheckConstraint("weight BETWEEN 1 AND 100", name="weight"),
    CheckConstraint("max_searches > 0", name="max_searches"),
    CheckConstraint("max_orthos > 0", name="max_orthos"),
    CheckConstraint("max_texts >= 0", name="max_texts"),
    CheckConstraint("max_bytes >= 0", name="max_bytes"),
    comment="To whom corpora and keys belong. Tenant 1, default, is that of the command line.",
)

keys = Table(
    "keys",
    metadata,
    numbered(),
    Column("tenant", Integer, ForeignKey("tenants.id"), nullable=False, index=True),
    Column("prefix", Text, nullable=False, unique=True, comment="its public part: what it is called in logs"),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of its secret part"),
    Column("name", Text, nullable=False, comment="for people: whose it is, what it is for"),
    Column("scopes", ARRAY(Text, dimensions=1), nullable=False),
    Column("corpora", ARRAY(Integer, dimensions=1), comment="ids of those that it is limited to; none: all"),
    Column("tier", Text, nullable=False, server_default="standard", comment="which limit of requests applies"),
    now("created_at"),
    Column("expires_at", MOMENT),
    Column("revoked_at", MOMENT),
    Column("last_used_at", MOMENT, comment="to the minute"),
    Column("rotated_at", MOMENT),
    Column("successor", BigInteger, ForeignKey("keys.id"), unique=True, comment="the key it was rotated to"),
    Column("person", Text, unique=True, comment="issuer and subject, where nobody holds the key: a person logs in"),
    Column(
        "addresses",
        ARRAY(Text, dimensions=1),
        nullable=False,
        server_default="{}",
        comment="networks that it was used from, the newest first",
    ),
    CheckConstraint("prefix ~ '^[a-z2-7]{10}$'", name="prefix"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    CheckConstraint("char_length(name) BETWEEN 1 AND 100", name="name"),
    CheckConstraint(SCOPED, name="scopes"),
    CheckConstraint("cardinality(corpora) > 0", name="corpora"),
    CheckConstraint("tier IN ('standard', 'high')", name="tier"),
    CheckConstraint("(rotated_at IS NULL) = (successor IS NULL)", name="rotated"),
    comment="API keys. A key is good while it is neither revoked nor expired.",
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("key", BigInteger, ForeignKey("keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("scopes", ARRAY(Text, dimensions=1), nullable=False, comment="those of its key or fewer"),
    now("created_at"),
    Column("expires_at", MOMENT, nullable=False),
    Column("revoked_at", MOMENT),
    CheckConstraint(SCOPED, name="scopes"),
    Index("sessions_expires_at_idx", "expires_at"),
    comment="What a key was exchanged for: access tokens name it and are good while it and its key are.",
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("hash", LargeBinary, primary_key=True, comment="SHA-256"),
    Column("session", Uuid, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    now("created_at"),
    Column("used_at", MOMENT, comment="used a second time, it ends the session"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
    comment="Each is good once.",
)

second_factors = Table(
    "second_factors",
    metadata,
    Column("key", BigInteger, ForeignKey("keys.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("secret", LargeBinary, nullable=False, comment="encrypted, with a key made of CROCHET_JWT_SECRET"),
    now("created_at"),
    Column("confirmed_at", MOMENT, comment="since then it is on"),
    Column(
        "step", BigInteger, nullable=False, server_default=text("0"), comment="the newest time step whose code was used"
    ),
    Column("failures", Integer, nullable=False, server_default="0", comment="wrong codes since the last right one"),
    Column("locked_until", MOMENT),
    Column(
        "recovery", ARRAY(LargeBinary, dimensions=1), nullable=False, server_default="{}", comment="SHA-256 of each"
    ),
    comment="Of keys whose holder types a code as well, to log in on the page.",
)

request_counts = Table(
    "request_counts",
    metadata,
    Column("client", Text, primary_key=True, comment="a key or an address, and its limit"),
    Column("slot", BigInteger, primary_key=True, comment="which window of time: Unix time divided by its length"),
    Column("requests", BigInteger, nullable=False, comment="counted or reserved by a process of the API"),
    prefixes=["UNLOGGED"],
    comment="Requests of clients, for their rate limits, where there is no Redis. Not logged: it may be lost.",
)

signatures = Table(
    "signatures",
    metadata,
    Column("signature", LargeBinary, primary_key=True),
    now("seen_at"),
    CheckConstraint("octet_length(signature) = 32", name="signature"),
    Index("signatures_seen_at_idx", "seen_at"),
    comment="Of signed requests, and hashes of what counts once, kept as long as it could come a second time.",
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("corpus", Integer, ForeignKey("corpora.id"), primary_key=True),
    Column("key", Text, primary_key=True, comment="as the client gave it"),
    Column("request", LargeBinary, nullable=False, comment="SHA-256 of all that was asked"),
    Column("status", SmallInteger, nullable=False),
    Column("answer", JSON, nullable=False, comment="body and headers"),
    now("created_at"),
    CheckConstraint("char_length(key) BETWEEN 1 AND 255", name="key"),
    CheckConstraint("octet_length(request) = 32", name="request"),
    CheckConstraint("status BETWEEN 200 AND 599", name="status"),
    Index("idempotency_created_at_idx", "created_at"),
    comment="Answers to requests that may come again, written with what they did. A corpus' own, as texts are.",
)

security_log = Table(
    "security_log",
    metadata,
    numbered(),
    now("at"),
    Column("who", Text, nullable=False, server_default=func.current_user(), comment="user of the database"),
    Column("what", Text, nullable=False),
    Column("tenant", Integer),
    Column("key", Text, comment="prefix of the key"),
    Column("address", Text, comment="of the client"),
    Column("request", Text, comment="its id"),
    Column("details", JSON),
    Index("security_log_at_idx", "at"),
    comment="Keys made, used for the first time, refused; what administrators did. Append only, without secrets.",
)
