-- The first schema: texts to context, orthos with their remediations, and the work.

CREATE FUNCTION word_hash(word text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN sha256(convert_to(word, 'UTF8'));

CREATE FUNCTION box_cells(sides smallint[]) RETURNS integer
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    cells integer := 1;
    side smallint;
    before smallint := 2;
BEGIN
    IF coalesce(array_length(sides, 1), 0) < 2 THEN
        RETURN 0;
    END IF;
    FOREACH side IN ARRAY sides LOOP
        IF side < before THEN
            RETURN 0;
        END IF;
        cells := cells * side;
        before := side;
    END LOOP;
    RETURN cells;
END $$;

CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    who TEXT DEFAULT CURRENT_USER NOT NULL,
    what TEXT NOT NULL,
    subject TEXT NOT NULL,
    before JSONB,
    after JSONB,
    CONSTRAINT audit_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE audit IS 'Every change of state of texts, append only.';

CREATE TABLE corpora (
    id INTEGER GENERATED ALWAYS AS IDENTITY,
    name TEXT NOT NULL,
    max_axes SMALLINT NOT NULL,
    max_side SMALLINT NOT NULL,
    max_cells INTEGER NOT NULL,
    version INTEGER DEFAULT '0' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT corpora_pkey PRIMARY KEY (id),
    CONSTRAINT corpora_name_check CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'),
    CONSTRAINT corpora_max_axes_check CHECK (max_axes BETWEEN 2 AND 8),
    CONSTRAINT corpora_max_side_check CHECK (max_side BETWEEN 2 AND 64),
    CONSTRAINT corpora_max_cells_check CHECK (max_cells BETWEEN 4 AND 1024),
    CONSTRAINT corpora_version_check CHECK (version >= 0),
    CONSTRAINT corpora_name_key UNIQUE (name)
);

COMMENT ON TABLE corpora IS 'A body of texts with its own vocabulary, phrases, limits and orthos.';

CREATE TABLE batches (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    key UUID NOT NULL,
    corpus INTEGER NOT NULL,
    sides SMALLINT[] NOT NULL,
    count INTEGER NOT NULL,
    width SMALLINT NOT NULL,
    cells BYTEA NOT NULL,
    found_by UUID NOT NULL,
    born INTEGER NOT NULL,
    CONSTRAINT batches_pkey PRIMARY KEY (id),
    CONSTRAINT batches_count_check CHECK (count >= 1),
    CONSTRAINT batches_width_check CHECK (width IN (2, 4)),
    CONSTRAINT batches_sides_check CHECK (box_cells(sides) >= 4),
    CONSTRAINT batches_cells_check CHECK (octet_length(cells) = count * box_cells(sides) * width),
    CONSTRAINT batches_born_check CHECK (born >= 1),
    CONSTRAINT batches_key_key UNIQUE (key),
    CONSTRAINT batches_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

CREATE INDEX batches_corpus_idx ON batches (corpus);

COMMENT ON TABLE batches IS 'The orthos: a row is up to 32k of one shape.';

COMMENT ON COLUMN batches.key IS 'uuid5 of what made it: the same step makes it once';

COMMENT ON COLUMN batches.sides IS 'canonical';

COMMENT ON COLUMN batches.width IS 'bytes of a word id';

COMMENT ON COLUMN batches.cells IS 'word ids, little-endian, column-major: all first cells, ...';

COMMENT ON COLUMN batches.found_by IS 'the work that found or last rewrote it';

COMMENT ON COLUMN batches.born IS 'the version at which all its orthos existed';

CREATE TABLE counts (
    corpus INTEGER NOT NULL,
    sides SMALLINT[] NOT NULL,
    orthos BIGINT NOT NULL,
    batches BIGINT NOT NULL,
    CONSTRAINT counts_pkey PRIMARY KEY (corpus, sides),
    CONSTRAINT counts_numbers_check CHECK (orthos >= 0 AND batches >= 0),
    CONSTRAINT counts_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

COMMENT ON TABLE counts IS 'How many there are per shape, kept in the transactions that write them.';

CREATE TABLE phrases (
    corpus INTEGER NOT NULL,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    next INTEGER GENERATED ALWAYS AS (first + count) STORED NOT NULL,
    after INTEGER GENERATED ALWAYS AS (nullif(first, 1)) STORED,
    born INTEGER NOT NULL,
    parent BYTEA NOT NULL,
    word BYTEA NOT NULL,
    CONSTRAINT phrases_pkey PRIMARY KEY (corpus, first),
    CONSTRAINT phrases_corpus_next_key UNIQUE (corpus, next),
    CONSTRAINT phrases_corpus_after_fkey FOREIGN KEY(corpus, after) REFERENCES phrases (corpus, next),
    CONSTRAINT phrases_numbers_check CHECK (first >= 1 AND count >= 1 AND born >= 1),
    CONSTRAINT phrases_parent_check CHECK (octet_length(parent) = 4 * count),
    CONSTRAINT phrases_word_check CHECK (octet_length(word) = 4 * count),
    CONSTRAINT phrases_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

COMMENT ON TABLE phrases IS 'The phrase tree, in chunks of phrases with consecutive ids. Phrase 0 is the empty one and not stored.';

COMMENT ON COLUMN phrases.first IS 'id of the first phrase in the chunk';

COMMENT ON COLUMN phrases.parent IS 'int4, little-endian: per phrase, the id of its prefix';

COMMENT ON COLUMN phrases.word IS 'int4, little-endian: per phrase, its last word';

CREATE TABLE texts (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    corpus INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    sha256 BYTEA NOT NULL,
    state TEXT DEFAULT 'accepted' NOT NULL,
    sentences INTEGER DEFAULT '0' NOT NULL,
    version INTEGER,
    phrases INTEGER,
    error JSONB,
    accepted_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT texts_pkey PRIMARY KEY (id),
    CONSTRAINT texts_corpus_seq_key UNIQUE (corpus, seq),
    CONSTRAINT texts_corpus_version_key UNIQUE (corpus, version),
    CONSTRAINT texts_corpus_sha256_key UNIQUE (corpus, sha256),
    CONSTRAINT texts_sha256_check CHECK (octet_length(sha256) = 32),
    CONSTRAINT texts_state_check CHECK (state IN ('accepted', 'ingested', 'current', 'failed', 'cancelled')),
    CONSTRAINT texts_version_check CHECK ((state = 'current') = (version IS NOT NULL)),
    CONSTRAINT texts_phrases_check CHECK ((version IS NULL) = (phrases IS NULL)),
    CONSTRAINT texts_error_check CHECK ((state = 'failed') = (error IS NOT NULL)),
    CONSTRAINT texts_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

COMMENT ON TABLE texts IS 'The texts as accepted. Each becomes one version of its corpus'' context, in the order of seq.';

COMMENT ON COLUMN texts.seq IS 'place in the order of acceptance';

COMMENT ON COLUMN texts.sentences IS 'how many are ingested';

COMMENT ON COLUMN texts.version IS 'the version of the context that this text made';

COMMENT ON COLUMN texts.phrases IS 'how many phrases that version has, the empty one included: its limit';

CREATE TABLE words (
    corpus INTEGER NOT NULL,
    id INTEGER NOT NULL,
    born INTEGER NOT NULL,
    word TEXT COLLATE "C" NOT NULL,
    CONSTRAINT words_pkey PRIMARY KEY (corpus, id),
    CONSTRAINT words_numbers_check CHECK (id >= 0 AND born >= 1),
    CONSTRAINT words_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

CREATE UNIQUE INDEX words_corpus_word_key ON words (corpus, word_hash(word));

COMMENT ON TABLE words IS 'The vocabulary. Ids grow with the version that brought the word.';

CREATE TABLE work (
    id UUID NOT NULL,
    corpus INTEGER NOT NULL,
    kind TEXT NOT NULL,
    subject BIGINT NOT NULL,
    part INT4RANGE,
    since INTEGER NOT NULL,
    version INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    size INTEGER DEFAULT '1' NOT NULL,
    sides SMALLINT[],
    state TEXT DEFAULT 'open' NOT NULL,
    attempts SMALLINT DEFAULT '0' NOT NULL,
    error JSONB,
    upto INTEGER,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    not_before TIMESTAMP WITH TIME ZONE,
    published_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT work_pkey PRIMARY KEY (id),
    CONSTRAINT work_kind_check CHECK (kind IN ('ingest', 'context', 'remediations', 'seed', 'grow')),
    CONSTRAINT work_state_check CHECK (state IN ('open', 'done', 'failed', 'cancelled')),
    CONSTRAINT work_finished_check CHECK ((state IN ('done', 'cancelled')) <= (finished_at IS NOT NULL)),
    CONSTRAINT work_error_check CHECK ((state = 'failed') <= (error IS NOT NULL)),
    CONSTRAINT work_part_check CHECK ((kind = 'seed') = (part IS NOT NULL)),
    CONSTRAINT work_sides_check CHECK ((kind = 'grow') = (sides IS NOT NULL)),
    CONSTRAINT work_upto_check CHECK (kind NOT IN ('seed', 'grow') OR state <> 'done' OR upto IS NOT NULL),
    CONSTRAINT work_versions_check CHECK (kind NOT IN ('seed', 'grow') OR (version > since AND upto > since)),
    CONSTRAINT work_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

CREATE UNIQUE INDEX work_grow_idx ON work (subject) WHERE kind = 'grow' AND state IN ('open', 'failed');

CREATE INDEX work_open_idx ON work (priority DESC, created_at, id) WHERE state = 'open';

COMMENT ON TABLE work IS 'What is to be done and what was: the outbox. Open rows are published after the commit and by the relay.';

COMMENT ON COLUMN work.id IS 'uuid5 of kind, subject, part and since: the same work exists once';

COMMENT ON COLUMN work.subject IS 'text, version or batch';

COMMENT ON COLUMN work.part IS 'of a seed: its start pairs';

COMMENT ON COLUMN work.since IS 'the version up to which the subject was searched before';

COMMENT ON COLUMN work.version IS 'the version that made it due';

COMMENT ON COLUMN work.priority IS 'larger first';

COMMENT ON COLUMN work.size IS 'orthos of the batch';

COMMENT ON COLUMN work.sides IS 'shape of the batch';

COMMENT ON COLUMN work.upto IS 'the version up to which it was searched';

CREATE TABLE remediations (
    batch BIGINT NOT NULL,
    searched INTEGER NOT NULL,
    phrases BYTEA NOT NULL,
    CONSTRAINT remediations_pkey PRIMARY KEY (batch),
    CONSTRAINT remediations_searched_check CHECK (searched >= 1),
    CONSTRAINT remediations_phrases_check CHECK (octet_length(phrases) % 4 = 0),
    CONSTRAINT remediations_batch_fkey FOREIGN KEY(batch) REFERENCES batches (id) ON DELETE CASCADE
);

COMMENT ON TABLE remediations IS 'What each searched batch waits on: when one of these phrases gets a continuation it is due again.';

COMMENT ON COLUMN remediations.searched IS 'the version up to which the batch was searched';

COMMENT ON COLUMN remediations.phrases IS 'int4, little-endian, ascending: the phrases consulted';

ALTER TABLE batches ALTER COLUMN cells SET STORAGE EXTERNAL;

ALTER TABLE remediations ALTER COLUMN phrases SET STORAGE EXTERNAL;

ALTER TABLE phrases ALTER COLUMN parent SET STORAGE EXTERNAL;

ALTER TABLE phrases ALTER COLUMN word SET STORAGE EXTERNAL;

CREATE FUNCTION word_at(cells bytea, width integer, place integer) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN get_byte(cells, width * place) + (get_byte(cells, width * place + 1) << 8)
    + CASE WHEN width = 4
           THEN (get_byte(cells, width * place + 2) << 16) + (get_byte(cells, width * place + 3) << 24)
           ELSE 0 END;

CREATE VIEW orthos AS
SELECT corpora.name AS corpus, array_to_string(batches.sides, 'x') AS shape, box.words,
       batches.sides, batches.born AS seen, batches.id AS batch, place
  FROM batches
  JOIN corpora ON corpora.id = batches.corpus
 CROSS JOIN LATERAL (SELECT batches.cells || ''::bytea AS cells OFFSET 0) AS unpacked  -- fetched once per batch
 CROSS JOIN LATERAL generate_series(0, batches.count - 1) AS place
 CROSS JOIN LATERAL (
       SELECT array_agg(words.word ORDER BY cell) AS words
         FROM generate_series(0, box_cells(batches.sides) - 1) AS cell
         JOIN words ON words.corpus = batches.corpus
          AND words.id = word_at(unpacked.cells, batches.width, cell * batches.count + place)
       ) AS box;

CREATE FUNCTION audit_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (what, subject, before, after)
    VALUES ('text.' || NEW.state, 'text ' || NEW.id,
            CASE WHEN TG_OP = 'UPDATE' THEN jsonb_build_object('state', OLD.state, 'version', OLD.version) END,
            jsonb_build_object('state', NEW.state, 'version', NEW.version, 'error', NEW.error));
    RETURN NULL;
END $$;

CREATE TRIGGER texts_audit_insert AFTER INSERT ON texts FOR EACH ROW EXECUTE FUNCTION audit_text();

CREATE TRIGGER texts_audit_update AFTER UPDATE OF state ON texts FOR EACH ROW
WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION audit_text();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append only', TG_TABLE_NAME;
END $$;

CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
