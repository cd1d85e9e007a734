ALTER TABLE corpora ADD COLUMN paused_at timestamptz;

COMMENT ON COLUMN corpora.paused_at IS 'since then none of its work is published';
COMMENT ON COLUMN corpora.revision IS 'of what can be changed';

-- By corpus: the relay shares out among them.
DROP INDEX work_unpublished_idx;
DROP INDEX work_searches_idx;
CREATE INDEX work_unpublished_idx ON work (corpus, priority DESC, created_at, id)
 WHERE state = 'open' AND published_at IS NULL AND (not_before IS NULL OR not_before < 'infinity');
