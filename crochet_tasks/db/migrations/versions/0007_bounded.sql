-- Made from tables.py; a test holds the two together.

CREATE INDEX texts_unfinished_idx ON texts (state, accepted_at) WHERE state <> 'current';

DROP INDEX work_unpublished_idx;

CREATE INDEX work_unpublished_idx ON work (priority DESC, created_at, id) WHERE state = 'open' AND published_at IS NULL AND (not_before IS NULL OR not_before < 'infinity');

CREATE INDEX work_searches_idx ON work (corpus) WHERE state = 'open' AND published_at IS NULL AND not_before IS NULL AND priority < 2000000;

CREATE INDEX work_set_aside_idx ON work (corpus, kind) WHERE state = 'open' AND not_before = 'infinity';
