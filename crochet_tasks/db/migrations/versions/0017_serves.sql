ALTER TABLE alembic_version ADD COLUMN serves text;

COMMENT ON COLUMN alembic_version.serves IS 'the newest migration that the oldest program knows which works with this schema';
