ALTER TABLE keys ADD COLUMN addresses text[] DEFAULT '{}' NOT NULL;

COMMENT ON COLUMN keys.addresses IS 'networks that it was used from, the newest first';
