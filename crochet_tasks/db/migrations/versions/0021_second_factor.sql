CREATE TABLE second_factors (
    key bigint NOT NULL,
    secret bytea NOT NULL,
    created_at timestamptz DEFAULT clock_timestamp() NOT NULL,
    confirmed_at timestamptz,
    step bigint DEFAULT 0 NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    locked_until timestamptz,
    recovery bytea[] DEFAULT '{}' NOT NULL,
    CONSTRAINT second_factors_pkey PRIMARY KEY (key),
    CONSTRAINT second_factors_key_fkey FOREIGN KEY (key) REFERENCES keys (id) ON DELETE CASCADE
);

COMMENT ON TABLE second_factors IS 'Of keys whose holder types a code as well, to log in on the page.';
COMMENT ON COLUMN second_factors.secret IS 'encrypted, with a key made of CROCHET_JWT_SECRET';
COMMENT ON COLUMN second_factors.confirmed_at IS 'since then it is on';
COMMENT ON COLUMN second_factors.step IS 'the newest time step whose code was used';
COMMENT ON COLUMN second_factors.failures IS 'wrong codes since the last right one';
COMMENT ON COLUMN second_factors.recovery IS 'SHA-256 of each';

CREATE FUNCTION audit_second_factor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (tenant, what, subject)
    SELECT keys.tenant,
           CASE WHEN TG_OP = 'DELETE' THEN 'second_factor.disabled' ELSE 'second_factor.enabled' END,
           'key ' || keys.prefix
      FROM keys WHERE keys.id = coalesce(NEW.key, OLD.key);
    RETURN NULL;
END $$;

CREATE TRIGGER second_factors_audit_enabled AFTER UPDATE OF confirmed_at ON second_factors FOR EACH ROW
WHEN (OLD.confirmed_at IS NULL AND NEW.confirmed_at IS NOT NULL) EXECUTE FUNCTION audit_second_factor();

CREATE TRIGGER second_factors_audit_disabled AFTER DELETE ON second_factors FOR EACH ROW
WHEN (OLD.confirmed_at IS NOT NULL) EXECUTE FUNCTION audit_second_factor();
