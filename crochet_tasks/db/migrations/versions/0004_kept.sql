CREATE INDEX work_corpus_idx ON work (corpus, state, created_at);

CREATE INDEX work_ended_idx ON work (corpus, state, finished_at DESC) WHERE state IN ('done', 'cancelled');

CREATE INDEX sessions_expires_at_idx ON sessions (expires_at);

DROP TRIGGER security_log_append_only ON security_log;

CREATE TRIGGER security_log_append_only BEFORE UPDATE OR TRUNCATE ON security_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER security_log_kept BEFORE DELETE ON security_log
FOR EACH ROW WHEN (OLD.at > clock_timestamp() - INTERVAL '30 days') EXECUTE FUNCTION refuse_change();

-- Made anew: an answer is a corpus' own. Those that are kept, for a day, are forgotten: a text that comes again is known by its body.
DROP TABLE idempotency;

CREATE TABLE idempotency (
    corpus INTEGER NOT NULL,
    key TEXT NOT NULL,
    request BYTEA NOT NULL,
    status SMALLINT NOT NULL,
    answer JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT idempotency_pkey PRIMARY KEY (corpus, key),
    CONSTRAINT idempotency_key_check CHECK (char_length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_request_check CHECK (octet_length(request) = 32),
    CONSTRAINT idempotency_status_check CHECK (status BETWEEN 200 AND 599),
    CONSTRAINT idempotency_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

CREATE INDEX idempotency_created_at_idx ON idempotency (created_at);

COMMENT ON TABLE idempotency IS 'Answers to requests that may come again, written with what they did. A corpus'' own, as texts are.';

COMMENT ON COLUMN idempotency.key IS 'as the client gave it';

COMMENT ON COLUMN idempotency.request IS 'SHA-256 of all that was asked';

COMMENT ON COLUMN idempotency.answer IS 'body and headers';
