CREATE TABLE best (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT best_pkey PRIMARY KEY,
    corpus integer NOT NULL CONSTRAINT best_corpus_fkey REFERENCES corpora (id),
    version integer NOT NULL,
    max_axes smallint,
    max_side smallint NOT NULL,
    max_cells integer,
    top integer,
    revision integer NOT NULL DEFAULT 0,
    search text,
    report jsonb,
    expected jsonb,
    certificate text,
    visits bigint NOT NULL DEFAULT '0',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    began_at timestamptz,
    changed_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT best_version_check CHECK (version >= 0),
    CONSTRAINT best_limits_check CHECK (max_axes >= 2 AND max_side >= 2 AND max_cells >= 4),
    CONSTRAINT best_top_check CHECK (top >= 1),
    CONSTRAINT best_search_check CHECK ((revision > 0) = (search IS NOT NULL) AND (search IS NULL) = (report IS NULL)),
    CONSTRAINT best_finished_check CHECK ((certificate IS NULL) = (finished_at IS NULL))
);

CREATE UNIQUE INDEX best_question_key ON best (corpus, version, max_axes, max_side, max_cells, top) NULLS NOT DISTINCT;

COMMENT ON TABLE best IS 'Searches for the best orthos of a version: the same question exists once. Their parts are rows of work.';
COMMENT ON COLUMN best.max_axes IS 'none: any number';
COMMENT ON COLUMN best.max_cells IS 'none: any number';
COMMENT ON COLUMN best.top IS 'how many are wanted; none: all that share the largest volume and cells';
COMMENT ON COLUMN best.revision IS 'of search: it grows with each change of it';
COMMENT ON COLUMN best.search IS 'how far it is, as JSON (engine/best/state.py); none before the first step';
COMMENT ON COLUMN best.report IS 'the same in words';
COMMENT ON COLUMN best.expected IS 'about how many visits are left: low, high, all';
COMMENT ON COLUMN best.certificate IS 'the proof, as JSON';
COMMENT ON COLUMN best.visits IS 'that were made since began_at';
COMMENT ON COLUMN best.began_at IS 'the first step since it was asked for, or asked for again';

CREATE TABLE best_faces (
    job bigint NOT NULL CONSTRAINT best_faces_job_fkey REFERENCES best (id) ON DELETE CASCADE,
    sides smallint[] NOT NULL,
    first integer NOT NULL,
    count integer NOT NULL,
    boxes bytea NOT NULL,
    CONSTRAINT best_faces_pkey PRIMARY KEY (job, sides, first),
    CONSTRAINT best_faces_count_check CHECK (count >= 1),
    CONSTRAINT best_faces_sides_check CHECK (box_cells(sides) >= 4)
);

COMMENT ON TABLE best_faces IS 'The orthos of a shape that larger shapes are stacked of, while a job needs them: a row per part that found some.';
COMMENT ON COLUMN best_faces.first IS 'the first start of the part';
COMMENT ON COLUMN best_faces.boxes IS 'packed ids of words, in the numbering of the version';

ALTER TABLE best_faces ALTER COLUMN boxes SET STORAGE EXTERNAL;

-- NOT VALID: the rows that there are satisfy the narrower constraints.
ALTER TABLE work
    DROP CONSTRAINT work_kind_check,
    DROP CONSTRAINT work_part_check,
    ADD CONSTRAINT work_kind_check CHECK (kind IN ('ingest', 'context', 'remediations', 'search', 'best')) NOT VALID,
    ADD CONSTRAINT work_part_check CHECK (
        CASE kind WHEN 'search' THEN num_nonnulls(part, boxes) = 1 WHEN 'best' THEN boxes IS NULL
             ELSE num_nonnulls(part, boxes) = 0 END
    ) NOT VALID;
ALTER TABLE work VALIDATE CONSTRAINT work_kind_check;
ALTER TABLE work VALIDATE CONSTRAINT work_part_check;

CREATE INDEX work_best_idx ON work (corpus, subject) WHERE kind = 'best' AND state IN ('open', 'failed');

COMMENT ON COLUMN work.subject IS 'text, version, or row of best';
COMMENT ON COLUMN work.part IS 'of a search: which starts of its window; of best: which starts of the shape that is searched; none: to plan';
