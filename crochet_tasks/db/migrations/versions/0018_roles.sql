ALTER TABLE keys
    ADD COLUMN corpora integer[],
    ADD CONSTRAINT keys_corpora_check CHECK (cardinality(corpora) > 0),
    DROP CONSTRAINT keys_scopes_check,
    ADD CONSTRAINT keys_scopes_check CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'operate', 'admin']);

ALTER TABLE sessions
    DROP CONSTRAINT sessions_scopes_check,
    ADD CONSTRAINT sessions_scopes_check CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'operate', 'admin']);

COMMENT ON COLUMN keys.corpora IS 'ids of those that it is limited to; none: all';

CREATE OR REPLACE FUNCTION audit_key() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('name', OLD.name, 'scopes', OLD.scopes,
        'corpora', OLD.corpora, 'tier', OLD.tier, 'expires_at', OLD.expires_at,
        'revoked_at', OLD.revoked_at, 'rotated_at', OLD.rotated_at) END;
    now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('name', NEW.name, 'scopes', NEW.scopes,
        'corpora', NEW.corpora, 'tier', NEW.tier, 'expires_at', NEW.expires_at,
        'revoked_at', NEW.revoked_at, 'rotated_at', NEW.rotated_at) END;
BEGIN
    IF was IS DISTINCT FROM now THEN
        INSERT INTO audit (tenant, what, subject, before, after)
        VALUES (coalesce(NEW.tenant, OLD.tenant),
                CASE WHEN TG_OP = 'INSERT' THEN 'key.created' WHEN TG_OP = 'DELETE' THEN 'key.deleted'
                     WHEN OLD.revoked_at IS DISTINCT FROM NEW.revoked_at THEN 'key.revoked'
                     ELSE 'key.changed' END,
                'key ' || coalesce(NEW.prefix, OLD.prefix), was, now);
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER keys_audit ON keys;

CREATE TRIGGER keys_audit
AFTER INSERT OR DELETE OR UPDATE OF name, scopes, corpora, tier, expires_at, revoked_at, rotated_at ON keys
FOR EACH ROW EXECUTE FUNCTION audit_key();
