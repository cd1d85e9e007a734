-- Made from access_tables.py and tables.py; a test holds them together.

CREATE TABLE tenants (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    name TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT tenants_pkey PRIMARY KEY (id),
    CONSTRAINT tenants_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    CONSTRAINT tenants_name_key UNIQUE (name)
);

COMMENT ON TABLE tenants IS 'To whom corpora and keys belong. Tenant 1, default, is that of the command line.';

CREATE TABLE keys (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    tenant INTEGER NOT NULL,
    prefix TEXT NOT NULL,
    hash BYTEA NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    tier TEXT DEFAULT 'standard' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    last_used_at TIMESTAMP WITH TIME ZONE,
    rotated_at TIMESTAMP WITH TIME ZONE,
    successor BIGINT,
    CONSTRAINT keys_pkey PRIMARY KEY (id),
    CONSTRAINT keys_prefix_check CHECK (prefix ~ '^[a-z2-7]{10}$'),
    CONSTRAINT keys_hash_check CHECK (octet_length(hash) = 32),
    CONSTRAINT keys_name_check CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT keys_scopes_check CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'admin']),
    CONSTRAINT keys_tier_check CHECK (tier IN ('standard', 'high')),
    CONSTRAINT keys_rotated_check CHECK ((rotated_at IS NULL) = (successor IS NULL)),
    CONSTRAINT keys_tenant_fkey FOREIGN KEY(tenant) REFERENCES tenants (id),
    CONSTRAINT keys_prefix_key UNIQUE (prefix),
    CONSTRAINT keys_successor_key UNIQUE (successor),
    CONSTRAINT keys_successor_fkey FOREIGN KEY(successor) REFERENCES keys (id)
);

CREATE INDEX keys_tenant_idx ON keys (tenant);

COMMENT ON TABLE keys IS 'API keys. A key is good while it is neither revoked nor expired.';

COMMENT ON COLUMN keys.prefix IS 'its public part: what it is called in logs';

COMMENT ON COLUMN keys.hash IS 'SHA-256 of its secret part';

COMMENT ON COLUMN keys.name IS 'for people: whose it is, what it is for';

COMMENT ON COLUMN keys.tier IS 'which limit of requests applies';

COMMENT ON COLUMN keys.last_used_at IS 'to the minute';

COMMENT ON COLUMN keys.successor IS 'the key it was rotated to';

CREATE TABLE sessions (
    id UUID NOT NULL,
    key BIGINT NOT NULL,
    scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    revoked_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_scopes_check CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'admin']),
    CONSTRAINT sessions_key_fkey FOREIGN KEY(key) REFERENCES keys (id) ON DELETE CASCADE
);

CREATE INDEX sessions_key_idx ON sessions (key);

COMMENT ON TABLE sessions IS 'What a key was exchanged for: access tokens name it and are good while it and its key are.';

COMMENT ON COLUMN sessions.scopes IS 'those of its key or fewer';

CREATE TABLE refresh_tokens (
    hash BYTEA NOT NULL,
    session UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (hash),
    CONSTRAINT refresh_tokens_hash_check CHECK (octet_length(hash) = 32),
    CONSTRAINT refresh_tokens_session_fkey FOREIGN KEY(session) REFERENCES sessions (id) ON DELETE CASCADE
);

CREATE INDEX refresh_tokens_session_idx ON refresh_tokens (session);

COMMENT ON TABLE refresh_tokens IS 'Each is good once.';

COMMENT ON COLUMN refresh_tokens.hash IS 'SHA-256';

COMMENT ON COLUMN refresh_tokens.used_at IS 'used a second time, it ends the session';

CREATE TABLE signatures (
    signature BYTEA NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT signatures_pkey PRIMARY KEY (signature),
    CONSTRAINT signatures_signature_check CHECK (octet_length(signature) = 32)
);

CREATE INDEX signatures_seen_at_idx ON signatures (seen_at);

COMMENT ON TABLE signatures IS 'Of signed requests, kept as long as one of them could come a second time.';

CREATE TABLE idempotency (
    tenant INTEGER NOT NULL,
    key TEXT NOT NULL,
    request BYTEA NOT NULL,
    status SMALLINT NOT NULL,
    answer JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT idempotency_pkey PRIMARY KEY (tenant, key),
    CONSTRAINT idempotency_key_check CHECK (char_length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_request_check CHECK (octet_length(request) = 32),
    CONSTRAINT idempotency_status_check CHECK (status BETWEEN 200 AND 599),
    CONSTRAINT idempotency_tenant_fkey FOREIGN KEY(tenant) REFERENCES tenants (id)
);

CREATE INDEX idempotency_created_at_idx ON idempotency (created_at);

COMMENT ON TABLE idempotency IS 'Answers to requests that may come again, written with what they did.';

COMMENT ON COLUMN idempotency.key IS 'as the client gave it';

COMMENT ON COLUMN idempotency.request IS 'SHA-256 of route and body';

COMMENT ON COLUMN idempotency.answer IS 'body and headers';

CREATE TABLE security_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    who TEXT DEFAULT CURRENT_USER NOT NULL,
    what TEXT NOT NULL,
    tenant INTEGER,
    key TEXT,
    address TEXT,
    request TEXT,
    details JSONB,
    CONSTRAINT security_log_pkey PRIMARY KEY (id)
);

CREATE INDEX security_log_at_idx ON security_log (at);

COMMENT ON TABLE security_log IS 'Keys made, used for the first time, refused; what administrators did. Append only, without secrets.';

COMMENT ON COLUMN security_log.who IS 'user of the database';

COMMENT ON COLUMN security_log.key IS 'prefix of the key';

COMMENT ON COLUMN security_log.address IS 'of the client';

COMMENT ON COLUMN security_log.request IS 'its id';

CREATE TRIGGER security_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON security_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Corpora that there are belong to the tenant of the command line, which is number 1: it is the first.
INSERT INTO tenants (name) VALUES ('default');

ALTER TABLE corpora
    ADD COLUMN tenant INTEGER DEFAULT 1 NOT NULL,
    ADD COLUMN description TEXT DEFAULT '' NOT NULL,
    ADD COLUMN budget BIGINT,
    ADD COLUMN revision INTEGER DEFAULT 1 NOT NULL,
    DROP CONSTRAINT corpora_name_key,
    ADD COLUMN removed_at TIMESTAMP WITH TIME ZONE,
    ADD CONSTRAINT corpora_tenant_fkey FOREIGN KEY(tenant) REFERENCES tenants (id),
    ADD CONSTRAINT corpora_description_check CHECK (char_length(description) <= 2000),
    ADD CONSTRAINT corpora_budget_check CHECK (budget > 0),
    ADD CONSTRAINT corpora_revision_check CHECK (revision >= 1);

CREATE UNIQUE INDEX corpora_tenant_name_key ON corpora (tenant, name) WHERE removed_at IS NULL;

COMMENT ON COLUMN corpora.removed_at IS 'since then nobody sees it, and the relay deletes it';

COMMENT ON COLUMN corpora.budget IS 'orthos after which no more are searched for; none without';

COMMENT ON COLUMN corpora.revision IS 'of name, description and budget';

CREATE OR REPLACE VIEW orthos AS
SELECT corpora.name AS corpus, array_to_string(batches.sides, 'x') AS shape, box.words,
       batches.sides, batches.born AS seen, batches.id AS batch, place, tenants.name AS tenant
  FROM batches
  JOIN corpora ON corpora.id = batches.corpus
  JOIN tenants ON tenants.id = corpora.tenant
 CROSS JOIN LATERAL (SELECT batches.cells || ''::bytea AS cells OFFSET 0) AS unpacked  -- fetched once per batch
 CROSS JOIN LATERAL generate_series(0, batches.count - 1) AS place
 CROSS JOIN LATERAL (
       SELECT array_agg(words.word ORDER BY cell) AS words
         FROM generate_series(0, box_cells(batches.sides) - 1) AS cell
         JOIN words ON words.corpus = batches.corpus
          AND words.id = word_at(unpacked.cells, batches.width, cell * batches.count + place)
       ) AS box;
