-- Made from tables.py; a test holds the two together.

CREATE INDEX texts_waiting_idx ON texts (corpus, seq) WHERE state IN ('accepted', 'ingested');

DROP INDEX work_open_idx;

ALTER TABLE texts ADD COLUMN reached INTEGER;

COMMENT ON COLUMN texts.reached IS 'how many phrases there were after the last part that was ingested';

ALTER TABLE work ADD COLUMN reopened_at TIMESTAMP WITH TIME ZONE;

COMMENT ON COLUMN work.reopened_at IS 'when an operator opened it again';

CREATE INDEX work_versions_idx ON work (corpus, subject) WHERE kind = 'remediations' AND state <> 'done';

CREATE INDEX work_failed_idx ON work (corpus, created_at) WHERE state = 'failed';

CREATE INDEX work_published_idx ON work (published_at) WHERE state = 'open' AND published_at IS NOT NULL;

CREATE INDEX work_unpublished_idx ON work (priority DESC, created_at, id) WHERE state = 'open' AND published_at IS NULL;

CREATE TABLE attempts (
    id BIGINT GENERATED ALWAYS AS IDENTITY, 
    work UUID NOT NULL, 
    number SMALLINT NOT NULL, 
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    error JSONB NOT NULL, 
    CONSTRAINT attempts_pkey PRIMARY KEY (id), 
    CONSTRAINT attempts_work_fkey FOREIGN KEY(work) REFERENCES work (id) ON DELETE CASCADE
);

CREATE INDEX attempts_work_idx ON attempts (work);

COMMENT ON TABLE attempts IS 'Every try of work that did not succeed.';

COMMENT ON COLUMN attempts.number IS 'begins anew when an operator opens the work again';

COMMENT ON COLUMN attempts.error IS 'code, message, type, context and where it was';

CREATE TABLE dead_letters (
    id BIGINT GENERATED ALWAYS AS IDENTITY, 
    queue TEXT NOT NULL, 
    reason TEXT NOT NULL, 
    task TEXT, 
    message TEXT, 
    body BYTEA NOT NULL, 
    died_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    noted_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    CONSTRAINT dead_letters_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE dead_letters IS 'Messages that the broker gave up and that name no work of ours. Work that died is in `work`, as failed.';

COMMENT ON COLUMN dead_letters.reason IS 'why the broker gave the message up';

COMMENT ON COLUMN dead_letters.task IS 'the task it was for, if it says so';

COMMENT ON COLUMN dead_letters.message IS 'its id, if it has one';

COMMENT ON COLUMN dead_letters.body IS 'its beginning';

CREATE INDEX audit_subject_idx ON audit (subject);

COMMENT ON TABLE audit IS 'Every change of state of texts and work, append only.';

CREATE FUNCTION audit_work_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (what, subject, after)
    SELECT 'work.' || state, 'work ' || id, jsonb_build_object('state', state, 'kind', kind, 'subject', subject)
      FROM written;
    RETURN NULL;
END $$;

CREATE FUNCTION audit_work_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (what, subject, before, after)
    SELECT 'work.' || CASE WHEN now.state <> was.state THEN now.state ELSE 'postponed' END, 'work ' || now.id,
           jsonb_build_object('state', was.state, 'attempts', was.attempts),
           jsonb_build_object('state', now.state, 'attempts', now.attempts, 'error', now.error)
      FROM after AS now JOIN before AS was ON was.id = now.id
     WHERE now.state <> was.state OR now.attempts > was.attempts;
    RETURN NULL;
END $$;

CREATE TRIGGER work_audit_insert AFTER INSERT ON work REFERENCING NEW TABLE AS written
FOR EACH STATEMENT EXECUTE FUNCTION audit_work_written();

CREATE TRIGGER work_audit_update AFTER UPDATE ON work REFERENCING OLD TABLE AS before NEW TABLE AS after
FOR EACH STATEMENT EXECUTE FUNCTION audit_work_changed();
