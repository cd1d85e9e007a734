-- Made from tables.py; a test holds the two together.

ALTER TABLE texts ADD COLUMN origin JSONB;

COMMENT ON COLUMN texts.origin IS 'the request that brought it, and its traceparent';

ALTER TABLE work ADD COLUMN origin JSONB;

COMMENT ON COLUMN work.origin IS 'the request that caused it, and the traceparent of who wrote it';

ALTER TABLE work ADD COLUMN found INTEGER DEFAULT '0' NOT NULL;

COMMENT ON COLUMN work.found IS 'orthos that were stored when it was done';

ALTER TABLE attempts ADD COLUMN corpus INTEGER REFERENCES corpora (id);

UPDATE attempts SET corpus = work.corpus FROM work WHERE work.id = attempts.work;

ALTER TABLE attempts ALTER COLUMN corpus SET NOT NULL;

COMMENT ON COLUMN attempts.corpus IS 'of the work';

CREATE INDEX attempts_corpus_idx ON attempts (corpus, at);
