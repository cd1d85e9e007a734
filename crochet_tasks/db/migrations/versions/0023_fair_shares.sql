ALTER TABLE tenants
    ADD COLUMN weight integer DEFAULT 1 NOT NULL,
    ADD COLUMN max_searches integer,
    ADD COLUMN max_orthos bigint,
    ADD COLUMN max_texts integer,
    ADD COLUMN max_bytes bigint,
    ADD COLUMN full_at timestamptz,
    ADD CONSTRAINT tenants_weight_check CHECK (weight BETWEEN 1 AND 100),
    ADD CONSTRAINT tenants_max_searches_check CHECK (max_searches > 0),
    ADD CONSTRAINT tenants_max_orthos_check CHECK (max_orthos > 0),
    ADD CONSTRAINT tenants_max_texts_check CHECK (max_texts >= 0),
    ADD CONSTRAINT tenants_max_bytes_check CHECK (max_bytes >= 0);

COMMENT ON COLUMN tenants.weight IS 'its share of the workers, where others have work, too';
COMMENT ON COLUMN tenants.max_searches IS 'that are published at the same time; none: CROCHET_PUBLISHED_LIMIT alone';
COMMENT ON COLUMN tenants.max_orthos IS 'after which no more are searched for; none: no quota';
COMMENT ON COLUMN tenants.max_texts IS 'that are kept, in any state; none: no quota';
COMMENT ON COLUMN tenants.max_bytes IS 'of the texts that are kept; none: no quota';
COMMENT ON COLUMN tenants.full_at IS 'since then it has as many orthos as max_orthos says: no search of it is published';

ALTER TABLE corpora
    ADD COLUMN priority smallint DEFAULT '0' NOT NULL,
    ADD CONSTRAINT corpora_priority_check CHECK (priority BETWEEN -3 AND 3);

COMMENT ON COLUMN corpora.priority IS 'each step doubles its share of what its tenant has';

ALTER TABLE texts
    ADD COLUMN priority smallint DEFAULT '0' NOT NULL,
    ADD CONSTRAINT texts_priority_check CHECK (priority BETWEEN 0 AND 3);

CREATE INDEX texts_urgent_idx ON texts (corpus, version) WHERE priority > 0;

COMMENT ON COLUMN texts.priority IS 'that its corpus has at least while work is due that it waits for';

CREATE OR REPLACE FUNCTION audit_corpus() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object(
        'name', OLD.name, 'description', OLD.description, 'budget', OLD.budget, 'priority', OLD.priority,
        'paused_at', OLD.paused_at, 'removed_at', OLD.removed_at) END;
    now jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object(
        'name', NEW.name, 'description', NEW.description, 'budget', NEW.budget, 'priority', NEW.priority,
        'paused_at', NEW.paused_at, 'removed_at', NEW.removed_at) END;
BEGIN
    IF was IS DISTINCT FROM now THEN
        INSERT INTO audit (corpus, tenant, what, subject, before, after)
        VALUES (coalesce(NEW.id, OLD.id), coalesce(NEW.tenant, OLD.tenant),
                CASE WHEN TG_OP = 'INSERT' THEN 'corpus.created' WHEN TG_OP = 'DELETE' THEN 'corpus.erased'
                     WHEN OLD.removed_at IS DISTINCT FROM NEW.removed_at THEN 'corpus.deleted'
                     WHEN OLD.paused_at IS NULL AND NEW.paused_at IS NOT NULL THEN 'corpus.paused'
                     WHEN OLD.paused_at IS NOT NULL AND NEW.paused_at IS NULL THEN 'corpus.resumed'
                     ELSE 'corpus.changed' END,
                'corpus ' || coalesce(NEW.id, OLD.id), was, now);
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER corpora_audit ON corpora;
CREATE TRIGGER corpora_audit
AFTER INSERT OR DELETE OR UPDATE OF name, description, budget, priority, paused_at, removed_at
ON corpora FOR EACH ROW EXECUTE FUNCTION audit_corpus();

CREATE OR REPLACE FUNCTION audit_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (corpus, what, subject, before, after)
    VALUES (NEW.corpus, 'text.' || NEW.state, 'text ' || NEW.id,
            CASE WHEN TG_OP = 'UPDATE' THEN jsonb_build_object('state', OLD.state, 'version', OLD.version) END,
            jsonb_build_object('state', NEW.state, 'version', NEW.version, 'error', NEW.error)
            || CASE WHEN NEW.priority > 0 THEN jsonb_build_object('priority', NEW.priority) ELSE '{}' END);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION audit_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (tenant, what, subject, before, after)
    VALUES (coalesce(NEW.id, OLD.id),
            CASE WHEN TG_OP = 'INSERT' THEN 'tenant.created' WHEN TG_OP = 'DELETE' THEN 'tenant.erased'
                 WHEN OLD.removed_at IS DISTINCT FROM NEW.removed_at THEN 'tenant.deleted'
                 WHEN OLD.suspended_at IS NULL AND NEW.suspended_at IS NOT NULL THEN 'tenant.suspended'
                 WHEN OLD.suspended_at IS NOT NULL AND NEW.suspended_at IS NULL THEN 'tenant.resumed'
                 WHEN OLD.full_at IS NULL AND NEW.full_at IS NOT NULL THEN 'tenant.full'
                 WHEN OLD.full_at IS NOT NULL AND NEW.full_at IS NULL THEN 'tenant.not_full'
                 ELSE 'tenant.changed' END,
            'tenant ' || coalesce(NEW.id, OLD.id), to_jsonb(OLD), to_jsonb(NEW));
    RETURN NULL;
END $$;
