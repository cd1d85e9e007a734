ALTER TABLE keys
    ADD COLUMN person text,
    ADD CONSTRAINT keys_person_key UNIQUE (person);

COMMENT ON COLUMN keys.person IS 'issuer and subject, where nobody holds the key: a person logs in';
COMMENT ON TABLE signatures IS 'Of signed requests, and hashes of what counts once, kept as long as it could come a second time.';
