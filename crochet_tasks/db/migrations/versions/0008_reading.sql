-- Made from tables.py; a test compares the two.

-- What is there was read by rules 1, with the letters of whichever Python read it.
ALTER TABLE corpora ADD COLUMN reading TEXT DEFAULT '1' NOT NULL;

ALTER TABLE corpora ALTER COLUMN reading DROP DEFAULT;

COMMENT ON COLUMN corpora.reading IS 'by which reading rules and Unicode version its texts were read';
