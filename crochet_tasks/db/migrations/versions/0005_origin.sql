-- Made from tables.py; a test holds the two together.

ALTER TABLE texts ADD COLUMN origin JSONB;

COMMENT ON COLUMN texts.origin IS 'the request that brought it, and its traceparent';

ALTER TABLE work ADD COLUMN origin JSONB;

COMMENT ON COLUMN work.origin IS 'the request that caused it, and the traceparent of who wrote it';
