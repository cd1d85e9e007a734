ALTER TABLE tenants
    ADD COLUMN max_corpora integer,
    ADD COLUMN rate integer,
    ADD COLUMN suspended_at timestamptz,
    ADD COLUMN removed_at timestamptz,
    ADD CONSTRAINT tenants_max_corpora_check CHECK (max_corpora >= 0),
    ADD CONSTRAINT tenants_rate_check CHECK (rate > 0),
    DROP CONSTRAINT tenants_name_key;

CREATE UNIQUE INDEX tenants_name_key ON tenants (name) WHERE removed_at IS NULL;

COMMENT ON COLUMN tenants.max_corpora IS 'none: CROCHET_MAX_CORPORA';
COMMENT ON COLUMN tenants.rate IS 'requests of a key in a minute; none: that of the key''s tier';
COMMENT ON COLUMN tenants.suspended_at IS 'since then its keys and tokens are refused, and its corpora are paused';
COMMENT ON COLUMN tenants.removed_at IS 'since then nobody sees it';

CREATE OR REPLACE FUNCTION audit_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (tenant, what, subject, before, after)
    VALUES (coalesce(NEW.id, OLD.id),
            CASE WHEN TG_OP = 'INSERT' THEN 'tenant.created' WHEN TG_OP = 'DELETE' THEN 'tenant.erased'
                 WHEN OLD.removed_at IS DISTINCT FROM NEW.removed_at THEN 'tenant.deleted'
                 WHEN OLD.suspended_at IS NULL AND NEW.suspended_at IS NOT NULL THEN 'tenant.suspended'
                 WHEN OLD.suspended_at IS NOT NULL AND NEW.suspended_at IS NULL THEN 'tenant.resumed'
                 ELSE 'tenant.changed' END,
            'tenant ' || coalesce(NEW.id, OLD.id), to_jsonb(OLD), to_jsonb(NEW));
    RETURN NULL;
END $$;
