ALTER TABLE windows ADD COLUMN orthos bigint;

COMMENT ON COLUMN windows.orthos IS 'how many its searches stored so far; none: unknown';

-- Of corpora whose work says where every stored ortho came from.
WITH found AS (
    SELECT corpus, subject, sum(found) AS orthos FROM work WHERE kind = 'search' GROUP BY corpus, subject
), known AS (
    SELECT corpus FROM found GROUP BY corpus
    HAVING sum(orthos) = (SELECT sum(orthos) FROM counts WHERE counts.corpus = found.corpus)
)
UPDATE windows
   SET orthos = coalesce((SELECT found.orthos FROM found
                           WHERE found.corpus = windows.corpus AND found.subject = windows.version), 0)
 WHERE corpus IN (SELECT corpus FROM known);
