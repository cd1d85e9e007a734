-- Made from tables.py; a test compares the two.

-- Orthos follow from the phrases: they are found again, in the new form. Texts, words, phrases and keys stay.
TRUNCATE batches, remediations, counts;

DELETE FROM work WHERE kind IN ('seed', 'grow');

DELETE FROM work USING corpora
 WHERE corpora.id = work.corpus AND kind = 'remediations' AND subject < corpora.version;

-- One window of each corpus, up to its version: the item of its newest version searches all there is.
UPDATE work SET state = 'open', attempts = 0, error = NULL, found = 0,
       not_before = NULL, published_at = NULL, finished_at = NULL
 WHERE kind = 'remediations';

DROP VIEW orthos;

DROP FUNCTION word_at;

ALTER TABLE batches
    DROP COLUMN width,
    DROP COLUMN cells,
    ADD COLUMN numbering INTEGER NOT NULL,
    ADD COLUMN first TEXT COLLATE "C" NOT NULL,
    ADD COLUMN last TEXT COLLATE "C" NOT NULL,
    ADD COLUMN packed BYTEA NOT NULL,
    ALTER COLUMN packed SET STORAGE EXTERNAL,
    DROP CONSTRAINT batches_born_check,
    ADD CONSTRAINT batches_born_check CHECK (born >= 1 AND numbering >= born),
    ADD CONSTRAINT batches_range_check CHECK (first <= last);

DROP INDEX batches_corpus_idx;

CREATE INDEX batches_range_idx ON batches (corpus, sides, left("first", 64));

COMMENT ON TABLE batches IS 'The orthos: a row is a sorted run of up to 32k of one shape.';

COMMENT ON COLUMN batches.numbering IS 'the version whose phrase ids it holds';

COMMENT ON COLUMN batches.first IS 'the words of its first ortho';

COMMENT ON COLUMN batches.last IS 'the words of its last ortho';

COMMENT ON COLUMN batches.packed IS 'its orthos in alphabetical order (engine/runs.py)';

COMMENT ON COLUMN batches.found_by IS 'the work that found it; of merged batches, the merge';

ALTER TABLE remediations
    DROP CONSTRAINT remediations_phrases_check,
    DROP COLUMN searched;

COMMENT ON TABLE remediations IS 'What the orthos of each batch wait on: all their lines. A phrase that continues one of them is due.';

COMMENT ON COLUMN remediations.phrases IS 'packed ids, in the numbering of the batch';

CREATE TABLE windows (
    corpus INTEGER NOT NULL,
    version INTEGER NOT NULL,
    since INTEGER NOT NULL,
    due BYTEA,
    starts INTEGER NOT NULL,
    CONSTRAINT windows_pkey PRIMARY KEY (corpus, version),
    CONSTRAINT windows_numbers_check CHECK (since >= 0 AND version > since AND starts >= 0),
    CONSTRAINT windows_corpus_fkey FOREIGN KEY(corpus) REFERENCES corpora (id)
);

ALTER TABLE windows ALTER COLUMN due SET STORAGE EXTERNAL;

COMMENT ON TABLE windows IS 'What is searched because of a version: the boxes that hold a line born in (since, version].';

COMMENT ON COLUMN windows.since IS 'the version up to which the windows before it reach';

COMMENT ON COLUMN windows.due IS 'packed ids of the due phrases; none: all boxes are enumerated by origin word';

COMMENT ON COLUMN windows.starts IS 'how many starts its searches share out';

ALTER TABLE work
    DROP COLUMN size,
    DROP COLUMN sides,
    DROP COLUMN upto,
    DROP CONSTRAINT work_kind_check,
    DROP CONSTRAINT work_part_check,
    ADD COLUMN boxes BYTEA,
    ALTER COLUMN boxes SET STORAGE EXTERNAL,
    ADD CONSTRAINT work_kind_check CHECK (kind IN ('ingest', 'context', 'remediations', 'search')),
    ADD CONSTRAINT work_part_check CHECK (num_nonnulls(part, boxes) = (kind = 'search')::int),
    ADD CONSTRAINT work_versions_check CHECK (kind <> 'search' OR version > since);

DROP INDEX work_grow_idx;

COMMENT ON COLUMN work.id IS 'uuid5 of kind, subject, part or boxes: the same work exists once';

COMMENT ON COLUMN work.subject IS 'text or version';

COMMENT ON COLUMN work.part IS 'of a search: which starts of its window';

COMMENT ON COLUMN work.boxes IS 'of a search: what another one left over; emptied when it is done';

COMMENT ON COLUMN work.since IS 'of a search: where its window begins';
